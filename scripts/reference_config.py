"""Prints docs/sidecar-config.md: every field of the sidecar config, from the contract's types and the words beside them."""

import ast
import inspect
import json
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect as types

from weir_sidecar.contract.config import SidecarConfig

HEAD = """# The sidecar config

What policies come to for one pod: the annotation `weir.dev/config` of a captured pod, and what `weir render --config`
prints. It is made by the compiler and never written by hand; this page is for reading one. Made from the contract by
`make reference`. Unknown fields are refused.
"""


def words_beside(struct: type) -> dict[str, str]:
    """What the source says below each field."""
    (defined,) = ast.parse(inspect.getsource(struct)).body
    assert isinstance(defined, ast.ClassDef)
    found = {}
    for field, text in zip(defined.body, defined.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            found[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return found


def plain(kind: types.Type) -> types.Type:
    """A type without what may stand for "not given"."""
    while isinstance(kind, types.Metadata):
        kind = kind.type
    if isinstance(kind, types.UnionType):
        (kind,) = (part for part in kind.types if not isinstance(part, types.NoneType))
    return kind


def type_of(kind: types.Type) -> str:
    """A type in a word or two."""
    kind = plain(kind)
    match kind:
        case types.StructType():
            return f"[{kind.cls.__name__}](#{kind.cls.__name__.lower()})"
        case types.VarTupleType():
            return f"list of {type_of(kind.item_type)}"
        case types.EnumType():
            return ", ".join(f"`{word.value}`" for word in kind.cls)
        case types.LiteralType():
            return ", ".join(f"`{word}`" for word in kind.values)
    return {"IntType": "integer", "FloatType": "number", "StrType": "string", "BoolType": "boolean"}[
        type(kind).__name__
    ]


def default_of(field: types.Field) -> str:
    """A field's default, as JSON; nothing for a part, whose own fields have theirs."""
    if field.required:
        return "required"
    value = field.default
    if value is msgspec.UNSET:
        return "left out"
    if value is msgspec.NODEFAULT or isinstance(value, msgspec.Struct):
        return ""
    return f"`{json.dumps(msgspec.to_builtins(value))}`"


def structs() -> Iterator[types.StructType]:
    """The config and its parts, each once, in the order in which they are met."""
    waiting: list[types.Type] = [types.type_info(SidecarConfig)]
    seen = set()
    while waiting:
        kind = plain(waiting.pop(0))
        if isinstance(kind, types.VarTupleType):
            waiting.insert(0, kind.item_type)
        elif isinstance(kind, types.StructType) and kind.cls not in seen:
            seen.add(kind.cls)
            yield kind
            waiting += [field.type for field in kind.fields]


def meaning(kind: types.Type, beside: str | None) -> str:
    """What stands beside a field; else, of an enum, what its values mean."""
    kind = plain(kind)
    words = beside or (kind.cls.__doc__ if isinstance(kind, types.EnumType) else "") or ""
    return " ".join(words.split()).replace("|", "\\|")


def section(struct: types.StructType) -> Iterator[str]:
    """One part of the config."""
    cls: Any = struct.cls
    yield f"## {cls.__name__}\n"
    yield inspect.cleandoc(cls.__doc__) + "\n"
    yield "| field | type | default | |"
    yield "|---|---|---|---|"
    beside = words_beside(cls)
    for field in struct.fields:
        words = meaning(field.type, beside.get(field.name))
        yield f"| `{field.encode_name}` | {type_of(field.type)} | {default_of(field)} | {words} |"
    yield ""


if __name__ == "__main__":
    lines = [HEAD, *(line for struct in structs() for line in section(struct))]
    sys.stdout.write("\n".join(lines).rstrip() + "\n")
