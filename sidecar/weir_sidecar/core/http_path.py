"""The readings that servers may have of one path, and patterns for paths. A rule must not be escaped by spelling.

What reaches the server is never changed. So a rule that refuses matches if any reading matches, and a rule that lets
through matches only if every reading does.
"""

import re
from collections.abc import Callable

from weir_sidecar.contract.http import PathKind, PathMatch
from weir_sidecar.contract.pattern import ALL, Byte, Pattern, PatternError, Repeat, Sequence, literal, read_pattern
from weir_sidecar.core.automaton import Automaton

type PathTest = Callable[[bytes], bool]

_SUSPECT = re.compile(rb"[%\\;]|//|/\.")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_PARAMETERS = re.compile(rb";[^/]*")
_SLASHES = re.compile(rb"[/\\]+")
_GLOB = re.compile(r"\*\*|\*|\?|[^*?]+")
_IN_SEGMENT = Byte(ALL - frozenset(b"/"))
_GLOB_PART: dict[str, Pattern] = {
    "**": Repeat(Byte(ALL), 0, None),
    "*": Repeat(_IN_SEGMENT, 0, None),
    "?": _IN_SEGMENT,
}


def readings(path: bytes) -> tuple[bytes, ...]:
    """`path` as it is; and where it is spelt so that servers differ, decoded, with and without `;` parameters.

    Decoded: %xx once (RFC 3986, section 2.1), backslashes as slashes, empty and dot segments removed (section 5.2.4).
    """
    if _SUSPECT.search(path) is None:
        return (path,)
    bare = _PARAMETERS.sub(b"", path)
    return path, _without_dots(unescape(path)), _without_dots(unescape(bare))


def path_test(match: PathMatch) -> PathTest:
    """Whether one reading matches. Raises ValueError for a regular expression that cannot be read."""
    value = match.value.encode()
    match match.kind:
        case PathKind.EXACT:
            return value.__eq__
        case PathKind.PREFIX:
            whole = value.removesuffix(b"/")
            below = whole + b"/"
            return lambda path: path == whole or path.startswith(below)
        case PathKind.GLOB:
            parts = (_GLOB_PART.get(part) or literal(part) for part in _GLOB.findall(match.value))
            return Automaton(Sequence(tuple(parts))).matches
        case PathKind.REGEX:
            try:
                return Automaton(read_pattern(match.value)).matches
            except PatternError as error:
                raise ValueError(f"{match.value!r} is not a regular expression: {error}") from error


def unescape(text: bytes) -> bytes:
    """%xx decoded, once."""
    return _ESCAPE.sub(lambda found: bytes((int(found[1], 16),)), text) if b"%" in text else text


def _without_dots(path: bytes) -> bytes:
    segments: list[bytes] = []
    pieces = _SLASHES.sub(b"/", path).split(b"/")
    for segment in pieces:
        if segment == b"..":
            if len(segments) > 1:
                segments.pop()
        elif segment != b".":
            segments.append(segment)
    if pieces[-1] in (b".", b".."):
        segments.append(b"")
    return b"/".join(segments)
