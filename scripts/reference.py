"""Prints docs/reference.md: every field of every kind, from the custom resource definitions of the chart."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

CRDS = Path(__file__).parents[1] / "charts/weir/files/crds"
HEAD = """# Fields of all kinds

Made from the definitions of the kinds by `make reference`; `kubectl explain interceptionpolicy.spec --recursive` says the
same. What policies mean together, and what is decided where a field is left out, is in the [policy reference](policy.md).
"""
PAIRS = (
    ("InterceptionPolicy", "ClusterInterceptionPolicy"),
    ("TrustPolicy", "ClusterTrustPolicy"),
    ("TrustException",),
)
"""Kinds whose fields are the same, but for those of the cluster kind alone."""

type Node = Mapping[str, Any]


def definitions() -> dict[str, Node]:
    """The definitions, by kind."""
    loaded = (yaml.safe_load(path.read_text()) for path in sorted(CRDS.glob("*.yaml")))
    return {definition["spec"]["names"]["kind"]: definition for definition in loaded}


def schema(definition: Node) -> Node:
    """The schema of a definition's one version."""
    (version,) = definition["spec"]["versions"]
    found: Node = version["schema"]["openAPIV3Schema"]
    return found


def fields(node: Node, path: str) -> Iterator[tuple[str, Node, bool]]:
    """Each field below a node: its path, its schema, and whether it is required where its parent is given."""
    below = node.get("items", node)
    for name, part in below.get("properties", {}).items():
        here = f"{path}.{name}{'[]' if part.get('type') == 'array' else ''}"
        yield here, part, name in below.get("required", ())
        if name != "conditions":  # Those are the same in all of Kubernetes.
            yield from fields(part, here)


def type_of(part: Node) -> str:
    """A field's type in a word or two, with its bounds."""
    if part.get("type") == "array":
        most = f", at most {part['maxItems']}" if "maxItems" in part else ""
        return f"list of {type_of(part['items'])}{most}"
    if "enum" in part:
        return ", ".join(f"`{word}`" for word in part["enum"])
    if part.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if part.get("type") == "object":
        return "map" if "additionalProperties" in part else "object"
    word = {"date-time": "time"}.get(part.get("format", ""), str(part.get("type")))
    if "minimum" in part and "maximum" in part:
        return f"{word}, {part['minimum']} to {part['maximum']}"
    return word


def described(part: Node) -> str:
    """What a field means: its description, its default, and what the API server checks of it and of its entries."""
    entries = part.get("items", {})
    words = [part.get("description", "")]
    if "default" in part:
        words.append(
            f"Default: `{str(part['default']).lower() if part['default'] in (True, False) else part['default']}`."
        )
    rules = [*part.get("x-kubernetes-validations", ()), *entries.get("x-kubernetes-validations", ())]
    words += [rule["message"][0].upper() + rule["message"][1:] + "." for rule in rules]
    return " ".join(" ".join(words).split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def table(kinds: tuple[str, ...], of: Mapping[str, Node], part: str) -> Iterator[str]:
    """The rows of `spec` or `status`."""
    yield "| field | type | |"
    yield "|---|---|---|"
    widest = of[kinds[-1]]["properties"][part]
    elsewhere = {path for path, _, _ in fields(of[kinds[0]]["properties"][part], part)}
    for path, node, required in fields(widest, part):
        note = ("**Required.** " if required else "") + ("" if path in elsewhere else f"*{kinds[-1]} only.* ")
        yield f"| `{path}` | {type_of(node)} | {note}{described(node)} |"


def page() -> Iterator[str]:
    """The lines of the page."""
    found = definitions()
    schemas = {kind: schema(definition) for kind, definition in found.items()}
    yield HEAD
    for kinds in PAIRS:
        yield f"## {', '.join(kinds)}\n"
        for kind in kinds:
            yield f"{' '.join(schemas[kind]['description'].split())}\n"
        for part in ("spec", "status"):
            yield f"### {kinds[0]}: {part}\n"
            yield from table(kinds, schemas, part)
            yield ""
    if left := set(found) - {kind for kinds in PAIRS for kind in kinds}:
        raise SystemExit(f"reference: {', '.join(sorted(left))}: in {CRDS}, and not in PAIRS of {__file__}")


if __name__ == "__main__":
    sys.stdout.write("\n".join(page()).rstrip() + "\n")
