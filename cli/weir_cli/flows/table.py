"""Records as rows: of the table that is printed, with columns of one width, and of the full screen's, which has its own."""

from collections.abc import Iterable, Iterator
from enum import Enum, auto

import msgspec

from weir_cli.flows import ids
from weir_cli.flows.told import Record, Told, Unreadable
from weir_cli.text import fit, printable, width
from weir_sidecar.contract.flow import FlowRecord
from weir_sidecar.contract.request import RequestRecord

_KIB = 1024
_GAP = 2
_SECONDS = len("HH:MM:SS")


class Column(Enum):
    """A column, by what stands in its head."""

    POD = auto()
    TIME = auto()
    ID = auto()
    CLIENT = auto()
    PROTO = auto()
    DESTINATION = auto()
    DECISION = auto()
    REASON = auto()
    UP = auto()
    DOWN = auto()
    MS = auto()


class _Widths(msgspec.Struct, frozen=True):
    """Columns that a terminal gives: in the printed table, and at least on the full screen. `right`: aligned so."""

    printed: int
    least: int
    right: bool = False


_WIDTHS = {
    Column.POD: _Widths(32, 14),
    Column.TIME: _Widths(12, _SECONDS),
    Column.ID: _Widths(11, 11),
    Column.CLIENT: _Widths(15, 9, right=True),
    Column.PROTO: _Widths(8, 8),
    Column.DESTINATION: _Widths(44, 28),
    Column.DECISION: _Widths(11, 11),
    Column.REASON: _Widths(28, 17),
    Column.UP: _Widths(6, 6, right=True),
    Column.DOWN: _Widths(6, 6, right=True),
    Column.MS: _Widths(9, 9, right=True),
}
_DISPENSABLE = (Column.UP, Column.CLIENT, Column.DOWN, Column.MS, Column.ID, Column.TIME, Column.POD, Column.DECISION)
"""What a narrow screen does without, in this order."""
_GROWING = (Column.DESTINATION, Column.REASON, Column.POD)
"""What gets the room that a wide screen has left, in turns, up to its printed width; the first gets the rest."""

type Layout = tuple[tuple[Column, int], ...]
"""Columns from left to right, and how wide each is."""


def printed(*, pods: bool) -> Layout:
    """The layout of the printed table."""
    return tuple((column, _WIDTHS[column].printed) for column in Column if pods or column is not Column.POD)


def fitted(columns: int, *, pods: bool) -> Layout:
    """The layout of a screen that is so wide."""
    least = {column: _WIDTHS[column].least for column in Column if pods or column is not Column.POD}
    for column in _DISPENSABLE:
        if _sum(least) <= columns:
            break
        least.pop(column, None)
    for column in _GROWING:
        if column in least:
            least[column] += max(0, min(columns - _sum(least), _WIDTHS[column].printed - least[column]))
    least[_GROWING[0]] += columns - _sum(least)
    return tuple((column, max(0, columns)) for column, columns in least.items())


def _sum(widths: dict[Column, int]) -> int:
    return sum(widths.values()) + _GAP * (len(widths) - 1)


def head(layout: Layout) -> str:
    """The line above the rows."""
    return _joined(layout, {column: column.name for column in Column}).rstrip()


def row(told: Told, layout: Layout) -> str:
    """A record as one line of the printed table: what is too long for its column moves the others."""
    cells = {column: printable(text) for column, text in _cells(told).items()}
    text = (" " * _GAP).join(
        " " * (columns - width(cells[column])) + cells[column]
        if _WIDTHS[column].right
        else cells[column] + " " * (columns - width(cells[column]))
        for column, columns in layout
    )
    error = told.record.error
    return f"{text}  {printable(error)}" if error else text.rstrip()


def fitted_row(told: Told, layout: Layout) -> str:
    """A record as one line of a screen, exactly as wide as the layout."""
    cells = {column: printable(text) for column, text in _cells(told).items()}
    cells[Column.TIME] = cells[Column.TIME][:_SECONDS]
    if told.record.error:
        # First, since it says more, and the rest may not fit.
        cells[Column.REASON] = f"{printable(told.record.error)}, {cells[Column.REASON]}"
    return _joined(layout, cells)


def _joined(layout: Layout, cells: dict[Column, str]) -> str:
    return (" " * _GAP).join(fit(cells[column], columns, right=_WIDTHS[column].right) for column, columns in layout)


def _cells(told: Told) -> dict[Column, str]:
    record = told.record
    rule = f" ({record.rule})" if record.rule else ""
    cells = {
        Column.POD: told.line.pod or "",
        Column.TIME: record.time.partition("T")[2].rstrip("Z")[:12],
        Column.ID: ids.name(record),
        Column.PROTO: record.protocol,
        Column.DESTINATION: destination(record),
        Column.DECISION: record.decision,
        Column.MS: f"{record.duration_ms:.1f}",
    }
    if isinstance(record, RequestRecord):
        return cells | {
            Column.CLIENT: "",
            Column.REASON: f"{record.status or 'no answer'}{rule}",
            Column.UP: amount(record.request_bytes),
            Column.DOWN: amount(record.response_bytes),
        }
    return cells | {
        Column.CLIENT: f"uid {record.client.uid}" if record.client.uid is not None else record.client.address or "?",
        Column.REASON: f"{record.reason}{rule}",
        Column.UP: amount(record.bytes_up),
        Column.DOWN: amount(record.bytes_down),
    }


def destination(record: Record) -> str:
    """Where a flow went, or what a request asked for."""
    if isinstance(record, RequestRecord):
        return f"{record.method} {record.host or ''}{record.path}"
    address = f"[{record.address}]" if ":" in record.address else record.address
    return f"{record.host or address}:{record.port}"


def amount(count: float) -> str:
    """Bytes in at most six characters."""
    for unit in ("", "K", "M", "G"):
        if count < 10 * _KIB or unit == "G":
            return f"{count:.0f}{unit}"
        count /= _KIB
    raise AssertionError


def grouped(told: Iterable[Told | Unreadable]) -> Iterator[Told | Unreadable]:
    """Requests after their flow, whose record comes when all of them have ended; those of open flows come last."""
    waiting: dict[str, list[Told]] = {}
    for one in told:
        if isinstance(one, Unreadable):
            yield one
        elif isinstance(one.record, FlowRecord):
            yield one
            for request in waiting.pop(one.record.id, ()):
                yield msgspec.structs.replace(request, flow=one.record)
        else:
            waiting.setdefault(one.record.flow, []).append(one)
    for requests in waiting.values():
        yield from requests
