"""What a filter can ask of a record: names, what their values are, and how each is had.

A request has what its flow's record says too, once that is there: who sent it, where it went.
"""

from collections.abc import Callable, Mapping
from enum import Enum, auto

import msgspec

from weir_cli.flows import ids
from weir_cli.flows.told import Record, Told
from weir_sidecar.contract.flow import Decision, FlowRecord, Protocol, Reason
from weir_sidecar.contract.request import HTTPVersion, RequestDecision, RequestRecord, TraceRecord


class Kind(Enum):
    """How the values of a field are compared."""

    TEXT = auto()
    WORD = auto()
    NUMBER = auto()
    ADDRESS = auto()


type Value = str | float | None


class Field(msgspec.Struct, frozen=True):
    """A field: `get` gives all its values in a record. `words`: of `WORD`, those there are."""

    kind: Kind
    get: Callable[[Told], tuple[Value, ...]]
    summary: str
    words: tuple[str, ...] = ()


def _request(get: Callable[[RequestRecord], Value]) -> Callable[[Told], tuple[Value, ...]]:
    return lambda told: (get(told.record) if isinstance(told.record, RequestRecord) else None,)


def _flow(get: Callable[[FlowRecord], Value]) -> Callable[[Told], tuple[Value, ...]]:
    return lambda told: (get(told.of) if told.of is not None else None,)


def _any(get: Callable[[Record], Value]) -> Callable[[Told], tuple[Value, ...]]:
    return lambda told: (get(told.record),)


def _paths(told: Told) -> tuple[Value, ...]:
    """With its query and without."""
    if not isinstance(told.record, RequestRecord):
        return (None,)
    path = told.record.path
    return (path, path.partition("?")[0])


def _trace(request: RequestRecord) -> Value:
    return request.trace.trace_id if isinstance(request.trace, TraceRecord) else None


def _what(told: Told) -> tuple[Value, ...]:
    return ("flow" if isinstance(told.record, FlowRecord) else "request",)


def _id(told: Told) -> tuple[Value, ...]:
    """Of a flow's name all its requests are meant too."""
    return (ids.name(told.record), ids.short(told.flow_id), told.flow_id)


def _up(record: Record) -> Value:
    return record.bytes_up if isinstance(record, FlowRecord) else record.request_bytes


def _down(record: Record) -> Value:
    return record.bytes_down if isinstance(record, FlowRecord) else record.response_bytes


def _words(*enums: type[Enum]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(word.value) for enum in enums for word in enum))


FIELDS: Mapping[str, Field] = {
    "host": Field(Kind.TEXT, _any(lambda record: record.host), "the name of the server"),
    "path": Field(Kind.TEXT, _paths, "a request's path, with its query or without"),
    "method": Field(Kind.TEXT, _request(lambda request: request.method), "a request's method"),
    "status": Field(Kind.NUMBER, _request(lambda request: request.status), "the status of the answer"),
    "decision": Field(
        Kind.WORD, _any(lambda record: record.decision), "what was done", _words(Decision, RequestDecision)
    ),
    "reason": Field(Kind.WORD, _flow(lambda flow: flow.reason), "why it was done with the flow", _words(Reason)),
    "rule": Field(Kind.TEXT, _any(lambda record: record.rule), "the rule that decided: policy/rule"),
    "error": Field(Kind.TEXT, _any(lambda record: record.error), "what went wrong"),
    "proto": Field(Kind.WORD, _any(lambda record: record.protocol), "the protocol", _words(Protocol, HTTPVersion)),
    "is": Field(Kind.WORD, _what, "whether it is a flow or a request", ("flow", "request")),
    "id": Field(Kind.TEXT, _id, "the ID; a flow's stands for its requests too"),
    "pod": Field(Kind.TEXT, lambda told: (told.line.pod,), "the pod, in a cluster"),
    "trace": Field(Kind.TEXT, _request(_trace), "the id of the trace that a request is a part of"),
    "uid": Field(Kind.NUMBER, _flow(lambda flow: flow.client.uid), "the user that sent it"),
    "ja4": Field(Kind.TEXT, _flow(lambda flow: flow.client.ja4), "the JA4 of the program that sent it"),
    "address": Field(Kind.ADDRESS, _flow(lambda flow: flow.address), "where it went: an address, or a network"),
    "port": Field(Kind.NUMBER, _any(lambda record: record.port), "to which port"),
    "up": Field(Kind.NUMBER, _any(_up), "bytes sent"),
    "down": Field(Kind.NUMBER, _any(_down), "bytes received"),
    "ms": Field(Kind.NUMBER, _any(lambda record: record.duration_ms), "how long it took, in milliseconds"),
    "ttfb": Field(Kind.NUMBER, _request(lambda request: request.ttfb_ms), "until the answer began, in milliseconds"),
}
"""In the order in which the documentation has them."""


def texts(told: Told) -> tuple[str, ...]:
    """What a bare word is looked for in: all text that the table shows of a record, and its URL."""
    record, flow = told.record, told.of
    shown: tuple[str | None, ...] = (record.rule, record.error, record.protocol, record.decision, told.line.pod)
    if isinstance(record, RequestRecord):
        shown += (f"{record.method} {record.host or ''}{record.path}",)
    else:
        shown += (record.host, record.sni)
    if flow is not None:
        shown += (flow.address, flow.reason)
    return tuple(text for text in (ids.name(record), *shown) if text)
