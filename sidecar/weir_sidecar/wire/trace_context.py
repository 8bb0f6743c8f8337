"""W3C Trace Context: the header field `traceparent`, which says of which trace a request is a part.

https://www.w3.org/TR/trace-context-2/, section 3.2. Level 1 differs in the second flag alone.
"""

import re
from collections.abc import Sequence

import msgspec

TRACEPARENT = b"traceparent"
TRACESTATE = b"tracestate"
TRACE_ID_BYTES, SPAN_ID_BYTES = 16, 8

SAMPLED = 0x01
"""The caller may have recorded the trace (section 3.2.2.5.1)."""
RANDOM = 0x02
"""The last seven bytes of the trace's id are random (section 3.2.2.5.2)."""

_FORM = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_VERSION, _INVALID_VERSION = b"00", b"ff"
_NO_TRACE, _NO_PARENT = b"0" * 32, b"0" * 16


class TraceParent(msgspec.Struct, frozen=True, gc=False):
    """Where a request stands in a trace. Ids are lower-case hex, 32 and 16 digits, and not all zeros."""

    trace_id: str
    parent_id: str
    """The caller's span."""
    flags: int

    @property
    def sampled(self) -> bool:
        """Whether the caller may have recorded the trace."""
        return bool(self.flags & SAMPLED)

    def value(self) -> bytes:
        """The field's value in version 00. Flags that it does not define are not passed on."""
        return f"00-{self.trace_id}-{self.parent_id}-{self.flags & (SAMPLED | RANDOM):02x}".encode()


def parse(value: bytes) -> TraceParent | None:
    """What a field's value says, or None.

    Of versions that are not known yet the beginning is read, as version 00 has it (section 4.3). Their flags but the
    sampled one may mean something else.
    """
    found = _FORM.fullmatch(value.strip(b" \t"))
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    if version == _INVALID_VERSION or (version == _VERSION and more is not None):
        return None
    if trace_id == _NO_TRACE or parent_id == _NO_PARENT:
        return None
    known = int(flags, 16) & (0xFF if version == _VERSION else SAMPLED)
    return TraceParent(trace_id.decode(), parent_id.decode(), known)


def find(fields: Sequence[tuple[bytes, bytes]]) -> TraceParent | None:
    """What a request's header fields say; None where there is no such field, more than one, or one that is not valid."""
    found = [value for name, value in fields if len(name) == len(TRACEPARENT) and name.lower() == TRACEPARENT]
    return parse(found[0]) if len(found) == 1 else None
