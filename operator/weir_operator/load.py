"""A policy file to documents, or to everything that is wrong with it. Pure: the file's bytes are an argument."""

import msgspec

from weir_operator.decode import MAX_PROBLEMS, Decoder
from weir_operator.models import API_VERSION, KINDS, Document
from weir_operator.nodes import Mapping, Node, Scalar, read
from weir_operator.problems import PolicyError, Position, Problem


class Loaded[D: Document](msgspec.Struct, frozen=True):
    """A document, and where it and its fields stand, for what is found wrong later."""

    file: str
    document: D
    positions: dict[str, Position | None]

    def problem(self, path: str, text: str) -> Problem:
        """Something wrong with the field at `path`; placed at the nearest field above it that is in the file."""
        at = path
        while at not in self.positions:
            at = at[: max(at.rfind("."), at.rfind("["), 0)]
        return Problem(self.file, self.positions[at], path, text)


def load(data: bytes, file: str) -> tuple[Loaded[Document], ...]:
    """The documents of a file called `file`. Raises `PolicyError` with all that is wrong."""
    nodes, problems = read(data, file)
    loaded: list[Loaded[Document]] = []
    for node in nodes:
        if len(problems) >= MAX_PROBLEMS:
            break
        decoder = Decoder(file)
        document = read_document(node, decoder)
        problems += decoder.problems
        if document is not None:
            loaded.append(Loaded(file, document, decoder.positions))
    if not nodes and not problems:
        problems.append(Problem(file, None, "", f"found no document; allowed: documents of {', '.join(KINDS)}"))
    if problems:
        raise PolicyError(sorted(problems, key=_order)[:MAX_PROBLEMS])
    return tuple(loaded)


def read_document(node: Node, decoder: Decoder) -> Document | None:
    """The policy that a node is; None, and the decoder has its problems, if it is none."""
    if not isinstance(node, Mapping):
        decoder.note(node.position, "", "found no object; allowed: an object with apiVersion, kind, metadata and spec")
        return None
    known = _expect(node, "apiVersion", [API_VERSION], decoder)
    kind = _expect(node, "kind", list(KINDS), decoder)
    if kind is None or known is None:
        return None
    return decoder.read(node, KINDS[kind])


def _expect(node: Mapping, key: str, allowed: list[str], decoder: Decoder) -> str | None:
    """The value of `key`, which must be one of `allowed`."""
    entry = next((entry for entry in node.entries if entry.key == key), None)
    if entry is None:
        decoder.note(node.position, key, f"missing; allowed: {', '.join(allowed)}")
        return None
    found = entry.value.value if isinstance(entry.value, Scalar) else None
    if isinstance(found, str) and found in allowed:
        return found
    decoder.note(entry.value.position, key, f"found {found!r}; allowed: {', '.join(allowed)}")
    return None


def _order(problem: Problem) -> tuple[int, int]:
    return (problem.position.line, problem.position.column) if problem.position else (0, 0)
