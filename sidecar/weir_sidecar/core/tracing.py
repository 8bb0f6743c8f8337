"""The sidecar's place in traces (W3C Trace Context): what records tell of it, and what a request goes on with.

Pure: random bytes are an argument.
"""

from collections.abc import Callable

from msgspec.structs import replace

from weir_sidecar.contract.request import RequestDecision, TraceRecord
from weir_sidecar.core.http_policy import Edits, RequestVerdict
from weir_sidecar.core.request_log import Fields
from weir_sidecar.wire.trace_context import (
    RANDOM,
    SAMPLED,
    SPAN_ID_BYTES,
    TRACE_ID_BYTES,
    TRACEPARENT,
    TRACESTATE,
    TraceParent,
    find,
)

_PARENT = frozenset((TRACEPARENT,))
_WHOLE = frozenset((TRACEPARENT, TRACESTATE))

type RandomBytes = Callable[[int], bytes]
"""So many random bytes."""


def heard(fields: Fields) -> TraceRecord | None:
    """What the request says of its trace."""
    found = find(fields)
    return None if found is None else TraceRecord(found.trace_id, found.parent_id, found.sampled)


def propagated(
    fields: Fields, verdict: RequestVerdict, random: RandomBytes, *, sampled: bool
) -> tuple[RequestVerdict, TraceRecord | None]:
    """The verdict with which a request goes on as the child of a span of the sidecar's own, and that span's place.

    A request without a valid trace begins one, which is `sampled` or not, and what it says as `tracestate` belongs to no
    trace (section 4.3 of the specification). A rule that sets or removes `traceparent` itself has the last word.
    """
    edits = verdict.request_edits
    if edits is not None and TRACEPARENT in edits.remove:
        return verdict, heard(fields)
    caller = find(fields)
    span_id = random(SPAN_ID_BYTES).hex()
    if caller is None:
        own = TraceParent(random(TRACE_ID_BYTES).hex(), span_id, RANDOM | (SAMPLED if sampled else 0))
        told = TraceRecord(own.trace_id, None, sampled, span_id)
    else:
        own = replace(caller, parent_id=span_id)
        told = TraceRecord(caller.trace_id, caller.parent_id, caller.sampled, span_id)
    if verdict.decision is RequestDecision.DENY:
        return verdict, told
    names = _WHOLE if caller is None else _PARENT
    added = (TRACEPARENT, own.value())
    edits = Edits(names, (added,)) if edits is None else Edits(edits.remove | names, (*edits.add, added))
    return replace(verdict, request_edits=edits), told
