"""The full screen of `weir flows --live` as a state machine: keys in, states out; what each key does is in one table.

Nothing here knows a terminal: `press` and `settled` make the next state, `flows.picture` draws it as lines of text.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto

import msgspec

from weir_cli.flows.detail import detail
from weir_cli.flows.filters import Filter, FilterError, parse
from weir_cli.flows.log import Log
from weir_cli.text import wrapped

HEAD_ROWS = 1
FOOT_ROWS = 2


class Mode(Enum):
    """What the screen shows, and so what keys mean."""

    TABLE = auto()
    DETAIL = auto()
    FILTER = auto()
    """The table, with the filter being edited below it."""
    OVER = auto()


class Key(Enum):
    """A key that is no character."""

    UP = auto()
    DOWN = auto()
    LEFT = auto()
    RIGHT = auto()
    PAGE_UP = auto()
    PAGE_DOWN = auto()
    HOME = auto()
    END = auto()
    ENTER = auto()
    ESCAPE = auto()
    BACKSPACE = auto()
    DELETE = auto()
    CLEAR = auto()
    """Ctrl-U: all that stands before the cursor."""


class Size(msgspec.Struct, frozen=True):
    """Of the screen."""

    columns: int
    rows: int

    @property
    def body(self) -> int:
        """Rows between head and foot."""
        return max(1, self.rows - HEAD_ROWS - FOOT_ROWS)


class View(msgspec.Struct, frozen=True):
    """What the screen shows. Records are meant by their numbers in the log, which stay when older ones go."""

    mode: Mode = Mode.TABLE
    follow: bool = True
    """Whether the newest is selected whenever one comes."""
    selected: int = 0
    top: int = 0
    """The record in the first row."""
    filter: Filter = Filter()
    edited: str = ""
    cursor: int = 0
    """Where in `edited` the next character goes."""
    complaint: str | None = None
    """What is wrong with `edited`."""
    scrolled: int = 0
    """How many lines of the detail are above the screen."""


type _Action = Callable[[View, Log, Size], View]


def press(view: View, key: Key | str, log: Log, size: Size) -> View:
    """The state after a key; a character is a key of its own. A key that means nothing changes nothing."""
    action = _TABLE[view.mode].get(key)
    if action is not None:
        return action(view, log, size)
    if view.mode is Mode.FILTER and isinstance(key, str) and key.isprintable():
        text = view.edited[: view.cursor] + key + view.edited[view.cursor :]
        return _edited(view, text, view.cursor + len(key))
    return view


def settled(view: View, log: Log, size: Size) -> View:
    """The state with a record selected that is shown, and the screen scrolled to it; to be called before it is drawn."""
    shown = log.shown
    if not shown:
        return replace(view, mode=Mode.TABLE if view.mode is Mode.DETAIL else view.mode)
    last = len(shown) - 1
    index = last if view.follow and view.mode is not Mode.DETAIL else min(log.index(view.selected), last)
    top = min(log.index(view.top), index, max(0, len(shown) - size.body))
    top = max(top, index - size.body + 1)
    view = replace(view, selected=shown[index], top=shown[top])
    if view.mode is Mode.DETAIL:
        most = max(0, len(lines_of_detail(view, log, size)) - size.body)
        view = replace(view, scrolled=min(view.scrolled, most))
    return view


def lines_of_detail(view: View, log: Log, size: Size) -> Sequence[str]:
    """All lines about the selected record, none wider than the screen."""
    told = log[view.selected]
    lines = detail(told, log.requests(told.flow_id))
    return [piece for line in lines for piece in wrapped(line, size.columns)]


replace = msgspec.structs.replace


def _move(by: Callable[[Size], int]) -> _Action:
    def act(view: View, log: Log, size: Size) -> View:
        if not log.shown:
            return view
        last = len(log.shown) - 1
        index = min(max(0, log.index(view.selected) + by(size)), last)
        return replace(view, selected=log.shown[index], follow=view.follow and index == last)

    return act


def _first(view: View, log: Log, _size: Size) -> View:
    return replace(view, selected=log.shown[0], follow=False) if log.shown else view


def _newest(view: View, _log: Log, _size: Size) -> View:
    """The last record, and those that come after it."""
    return replace(view, follow=True)


def _toggle(view: View, _log: Log, _size: Size) -> View:
    return replace(view, follow=not view.follow)


def _quit(view: View, _log: Log, _size: Size) -> View:
    return replace(view, mode=Mode.OVER)


def _open(view: View, log: Log, _size: Size) -> View:
    return replace(view, mode=Mode.DETAIL, scrolled=0) if log.shown else view


def _close(view: View, _log: Log, _size: Size) -> View:
    return replace(view, mode=Mode.TABLE, complaint=None)


def _scroll(by: Callable[[Size], int]) -> _Action:
    # `settled` knows where the end is.
    return lambda view, _log, size: replace(view, scrolled=max(0, view.scrolled + by(size)))


def _other(by: int) -> _Action:
    """The detail of a neighbour; the screen does not follow then, or it would jump back."""
    step = _move(lambda _: by)
    return lambda view, log, size: replace(step(view, log, size), follow=False, scrolled=0)


def _edit(view: View, _log: Log, _size: Size) -> View:
    text = view.filter.text
    return replace(view, mode=Mode.FILTER, edited=text, cursor=len(text), complaint=None)


def _edited(view: View, text: str, cursor: int) -> View:
    return replace(view, edited=text, cursor=min(max(0, cursor), len(text)), complaint=None)


def _apply(view: View, log: Log, _size: Size) -> View:
    try:
        wanted = parse(view.edited)
    except FilterError as error:
        return replace(view, complaint=str(error))
    log.choose(wanted)
    return replace(view, mode=Mode.TABLE, filter=wanted)


def _erase(view: View, _log: Log, _size: Size) -> View:
    cursor = max(0, view.cursor - 1)
    return _edited(view, view.edited[:cursor] + view.edited[view.cursor :], cursor)


def _delete(view: View, _log: Log, _size: Size) -> View:
    return _edited(view, view.edited[: view.cursor] + view.edited[view.cursor + 1 :], view.cursor)


def _clear(view: View, _log: Log, _size: Size) -> View:
    return _edited(view, view.edited[view.cursor :], 0)


def _cursor(to: Callable[[View], int]) -> _Action:
    return lambda view, _log, _size: _edited(view, view.edited, to(view))


_UP, _DOWN = _move(lambda _: -1), _move(lambda _: 1)
_PAGE_UP, _PAGE_DOWN = _move(lambda size: -size.body), _move(lambda size: size.body)
_MANY = 1 << 30

_TABLE: Mapping[Mode, Mapping[Key | str, _Action]] = {
    Mode.TABLE: {
        Key.UP: _UP,
        "k": _UP,
        Key.DOWN: _DOWN,
        "j": _DOWN,
        Key.PAGE_UP: _PAGE_UP,
        Key.PAGE_DOWN: _PAGE_DOWN,
        " ": _PAGE_DOWN,
        Key.HOME: _first,
        "g": _first,
        Key.END: _newest,
        "G": _newest,
        "f": _toggle,
        Key.ENTER: _open,
        "/": _edit,
        "q": _quit,
    },
    Mode.DETAIL: {
        Key.UP: _scroll(lambda _: -1),
        "k": _scroll(lambda _: -1),
        Key.DOWN: _scroll(lambda _: 1),
        "j": _scroll(lambda _: 1),
        Key.PAGE_UP: _scroll(lambda size: -size.body),
        Key.PAGE_DOWN: _scroll(lambda size: size.body),
        " ": _scroll(lambda size: size.body),
        Key.HOME: _scroll(lambda _: -_MANY),
        "g": _scroll(lambda _: -_MANY),
        Key.END: _scroll(lambda _: _MANY),
        "G": _scroll(lambda _: _MANY),
        "p": _other(-1),
        "n": _other(1),
        Key.ENTER: _close,
        Key.ESCAPE: _close,
        "q": _close,
    },
    Mode.FILTER: {
        Key.ENTER: _apply,
        Key.ESCAPE: _close,
        Key.BACKSPACE: _erase,
        Key.DELETE: _delete,
        Key.CLEAR: _clear,
        Key.LEFT: _cursor(lambda view: view.cursor - 1),
        Key.RIGHT: _cursor(lambda view: view.cursor + 1),
        Key.HOME: _cursor(lambda _: 0),
        Key.END: _cursor(lambda view: len(view.edited)),
    },
    Mode.OVER: {},
}
