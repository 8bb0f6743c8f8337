"""The full screen as lines of text, each with what it is, and where the cursor stands."""

from collections.abc import Iterator
from enum import Enum, auto

import msgspec

from weir_cli.flows.log import Log
from weir_cli.flows.table import Layout, fitted, fitted_row, head
from weir_cli.flows.told import Told
from weir_cli.flows.view import Mode, Size, View, lines_of_detail
from weir_cli.text import fit, printable, width
from weir_sidecar.contract.flow import Decision, FlowRecord
from weir_sidecar.contract.request import RequestDecision

_SERVER_ERROR = 500


class Style(Enum):
    """What a line is; the terminal's side knows how that looks."""

    HEAD = auto()
    TITLE = auto()
    PLAIN = auto()
    PASSED = auto()
    """A flow that was passed through unread."""
    FAILED = auto()
    """Denied, or an error."""
    STATUS = auto()
    HELP = auto()
    COMPLAINT = auto()


class Row(msgspec.Struct, frozen=True):
    """A line of the screen, exactly as wide as that."""

    text: str
    style: Style
    selected: bool = False


class Picture(msgspec.Struct, frozen=True):
    """The screen. `cursor`: row and column; None: it is not to be seen."""

    rows: tuple[Row, ...]
    cursor: tuple[int, int] | None = None


class News(msgspec.Struct, frozen=True):
    """What there is to say of the source, for the status line."""

    name: str
    pods: bool
    """Whether records are of several pods."""
    unreadable: int = 0
    """Lines that were no records."""
    ended: str | None = None
    """Why no more records come."""


_HELP = {
    Mode.TABLE: "Up/Down select  Enter detail  / filter  f follow  g/G first/newest  q quit",
    Mode.DETAIL: "Up/Down scroll  n/p next/previous  q back",
    Mode.FILTER: "Enter apply  Esc cancel  e.g. host:*.example.com status:>=400 -path:/health",
    Mode.OVER: "",
}


def picture(view: View, log: Log, size: Size, news: News) -> Picture:
    """The screen of a state that is `settled`."""
    if view.mode is Mode.DETAIL:
        head, *body = _detail(view, log, size)
    else:
        head, *body = _table(view, log, size, fitted(size.columns, pods=news.pods))
    body += [Row("", Style.PLAIN)] * (size.body - len(body))
    said, last, column = _foot(view, log, size, news)
    rows = [head, *body, said, last][-size.rows :]
    fitting = tuple(msgspec.structs.replace(row, text=fit(row.text, size.columns)) for row in rows)
    return Picture(fitting, None if column is None else (len(rows) - 1, column))


def _table(view: View, log: Log, size: Size, layout: Layout) -> Iterator[Row]:
    yield Row(head(layout), Style.HEAD)
    top = log.index(view.top)
    for serial in log.shown[top : top + size.body]:
        told = log[serial]
        yield Row(fitted_row(told, layout), _style(told), serial == view.selected)


def _detail(view: View, log: Log, size: Size) -> Iterator[Row]:
    yield Row(f"{log.index(view.selected) + 1} of {len(log.shown)}", Style.HEAD)
    for line in lines_of_detail(view, log, size)[view.scrolled : view.scrolled + size.body]:
        yield Row(line, Style.TITLE if line and not line.startswith(" ") else Style.PLAIN)


def _style(told: Told) -> Style:
    record = told.record
    if record.error or record.decision in (Decision.DENY, RequestDecision.DENY):
        return Style.FAILED
    if isinstance(record, FlowRecord):
        return Style.PASSED if record.decision is Decision.PASSTHROUGH else Style.PLAIN
    return Style.FAILED if (record.status or 0) >= _SERVER_ERROR else Style.PLAIN


def _status(view: View, log: Log, news: News) -> str:
    counted = f"{len(log)} records"
    if view.filter.terms:
        counted = f"{len(log.shown)} of {counted}, filter: {view.filter.text}"
    words = [counted, "following" if view.follow else "not following (f)"]
    if news.ended is not None:
        words.append(news.ended)
    if news.unreadable:
        words.append(f"{news.unreadable} lines are no records")
    words.append(news.name)
    return printable("  |  ".join(words))


def _foot(view: View, log: Log, size: Size, news: News) -> tuple[Row, Row, int | None]:
    """The two last lines, and in which column of the last the cursor stands."""
    if view.mode is not Mode.FILTER:
        return Row(_status(view, log, news), Style.STATUS), Row(_HELP[view.mode], Style.HELP), None
    text, column = _prompt(view, size)
    said = Row(_HELP[view.mode], Style.HELP) if view.complaint is None else Row(view.complaint, Style.COMPLAINT)
    return said, Row(text, Style.PLAIN), column


def _prompt(view: View, size: Size) -> tuple[str, int]:
    """The line in which the filter is edited, moved so that the cursor is on the screen."""
    start = "filter: "
    before = printable(view.edited[: view.cursor])
    room = max(1, size.columns - len(start) - 1)
    while before and width(before) > room:
        before = before[1:]
    return start + before + printable(view.edited[view.cursor :]), min(len(start) + width(before), size.columns - 1)
