"""The full screen on a real terminal, by curses: keys and records in, pictures out. What they mean is said elsewhere.

A thread waits for records, so that the screen never does; curses sends a terminal only what has changed on it.
"""

import contextlib
import curses
import locale
import os
import re
import signal
import sys
import threading
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from queue import Queue

from weir_cli.cluster.kubectl import KubectlError
from weir_cli.cluster.records import Line, Pods
from weir_cli.control import ControlError
from weir_cli.flows import source
from weir_cli.flows.filters import Filter
from weir_cli.flows.log import Log
from weir_cli.flows.picture import News, Picture, Style, picture
from weir_cli.flows.source import Source
from weir_cli.flows.told import Unreadable, capture_told, read
from weir_cli.flows.view import Key, Mode, Size, View, press, replace, settled

_TICK = 100
"""Milliseconds that a key is waited for; then records are looked after."""
_BATCH = 256
"""Lines that may wait, and so records between two looks at the keys; one with bodies in it can be long."""
_ESCAPE = 25
"""Milliseconds after which an escape character was the key, and not the beginning of another one's sequence."""
_KILLED = 128
"""Added to a signal's number: the status of who was ended by it, as shells have it."""
_PARTING = 0.5
"""Seconds that the thread has to end."""

_ESC = "\x1b"
_UNFINISHED = re.compile(r"\[[0-?]*[ -/]*")

_KEYS: Mapping[int | str, Key] = {
    curses.KEY_UP: Key.UP,
    curses.KEY_DOWN: Key.DOWN,
    curses.KEY_LEFT: Key.LEFT,
    curses.KEY_RIGHT: Key.RIGHT,
    curses.KEY_PPAGE: Key.PAGE_UP,
    curses.KEY_NPAGE: Key.PAGE_DOWN,
    curses.KEY_HOME: Key.HOME,
    curses.KEY_END: Key.END,
    curses.KEY_ENTER: Key.ENTER,
    curses.KEY_BACKSPACE: Key.BACKSPACE,
    curses.KEY_DC: Key.DELETE,
    "\r": Key.ENTER,
    "\n": Key.ENTER,
    "\x7f": Key.BACKSPACE,
    "\b": Key.BACKSPACE,
    "\x15": Key.CLEAR,
    "\x02": Key.PAGE_UP,
    "\x06": Key.PAGE_DOWN,
    "\x01": Key.HOME,
    "\x05": Key.END,
}
"""Ctrl-B, F, A and E as in pagers and shells: not every terminal has the others."""

_SEQUENCES: Mapping[str, Key] = {
    "[A": Key.UP,
    "[B": Key.DOWN,
    "[C": Key.RIGHT,
    "[D": Key.LEFT,
    "OA": Key.UP,
    "OB": Key.DOWN,
    "OC": Key.RIGHT,
    "OD": Key.LEFT,
    "[H": Key.HOME,
    "OH": Key.HOME,
    "[1~": Key.HOME,
    "[7~": Key.HOME,
    "[F": Key.END,
    "OF": Key.END,
    "[4~": Key.END,
    "[8~": Key.END,
    "[3~": Key.DELETE,
    "[5~": Key.PAGE_UP,
    "[6~": Key.PAGE_DOWN,
}
"""What terminals send after an escape character (ECMA-48, 5.4), where TERM names another one than there is."""

_COLOURS = {
    Style.PASSED: curses.COLOR_YELLOW,
    Style.FAILED: curses.COLOR_RED,
    Style.COMPLAINT: curses.COLOR_RED,
    Style.HELP: curses.COLOR_CYAN,
}
_ATTRIBUTES = {Style.HEAD: curses.A_BOLD, Style.TITLE: curses.A_BOLD, Style.STATUS: curses.A_REVERSE}


class TerminalError(Exception):
    """There is no terminal that a full screen can be shown on; the text says what there is."""


def show(records: Source, last: int, wanted: Filter) -> None:
    """Show the records of a source until the user quits. Raises `ControlError`, `KubectlError` and `TerminalError`."""
    _check_terminal()
    stopped = threading.Event()
    feed = _Feed()
    # What ends the source comes before the wait for the thread that reads it.
    with ExitStack() as stack:
        stack.callback(feed.join)
        lines = source.lines(records, last, stack, follow=True, pause=stopped.wait)
        stack.callback(stopped.set)
        feed.start(lines)
        for number in (signal.SIGTERM, signal.SIGHUP):
            # Else the terminal stays as it is on the full screen, and kubectl runs on.
            signal.signal(number, lambda number, _: sys.exit(_KILLED + number))
        with contextlib.suppress(locale.Error):  # else it stays ASCII
            locale.setlocale(locale.LC_ALL, "")
        curses.wrapper(lambda window: _Screen(window, feed, wanted, records).run())


def _check_terminal() -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise TerminalError("--live needs a terminal; --follow prints line after line, wherever to")
    try:
        curses.setupterm()
    except curses.error as error:
        raise TerminalError(
            f"TERM is {os.environ.get('TERM')!r}: {error}; --follow needs nothing of a terminal"
        ) from error
    if curses.tigetstr("cup") is None:
        raise TerminalError(
            f"TERM is {os.environ.get('TERM')!r}: such a terminal has no full screen; --follow prints line after line"
        )


class _Feed:
    """Fetches lines in a thread of its own."""

    def __init__(self) -> None:
        self._waiting: Queue[Line | str] = Queue(_BATCH)
        self._thread: threading.Thread | None = None

    def start(self, lines: Iterable[Line]) -> None:
        # Not waited for at the end of the process: it may be waiting for a sidecar that says nothing.
        self._thread = threading.Thread(target=self._fetch, args=(lines,), daemon=True)
        self._thread.start()

    def _fetch(self, lines: Iterable[Line]) -> None:
        try:
            for line in lines:
                self._waiting.put(line)
            self._waiting.put("the source has ended")
        except (ControlError, KubectlError) as error:
            self._waiting.put(str(error))

    def take(self) -> list[Line | str]:
        """What has come: lines, and at their end why there are no more."""
        return [self._waiting.get() for _ in range(self._waiting.qsize())]

    def join(self) -> None:
        """Give the thread a moment to end."""
        if self._thread is not None:
            self.take()  # it may wait for room
            self._thread.join(_PARTING)


class _Screen:
    """The loop: draws, waits for a key, looks after records."""

    def __init__(self, window: curses.window, feed: _Feed, wanted: Filter, records: Source) -> None:
        self._window = window
        self._feed = feed
        self._log = Log()
        self._log.choose(wanted)
        self._view = View(filter=wanted)
        self._news = News(name(records), pods=isinstance(records, Pods) and records.several)
        self._styles = _styles()
        self._wait = _TICK

    def run(self) -> None:
        curses.set_escdelay(_ESCAPE)
        changed = True
        while self._view.mode is not Mode.OVER:
            if changed:
                self._view = settled(self._view, self._log, self._size())
                self._draw(picture(self._view, self._log, self._size(), self._news))
            pressed = self._press()
            changed = self._take() or pressed

    def _size(self) -> Size:
        rows, columns = self._window.getmaxyx()
        return Size(columns, rows)

    def _press(self) -> bool:
        """Wait for a key and do what it says; whether there was one."""
        pressed = self._get(self._wait)
        if pressed is None:
            return False
        if pressed == curses.KEY_RESIZE:
            self._window.clearok(True)  # terminals differ in what they do to what they show
        key = self._sequence() if pressed == _ESC else _KEYS.get(pressed, pressed)
        if not isinstance(key, int | None):  # a key without meaning here; or the terminal has another size now
            self._view = press(self._view, key, self._log, self._size())
        return True

    def _get(self, milliseconds: int) -> int | str | None:
        """What is typed; None: nothing in time."""
        self._window.timeout(milliseconds)
        try:
            return self._window.get_wch()
        except curses.error:
            return None

    def _sequence(self) -> Key | None:
        """The key that an escape character begins, or is. None: one that means nothing here, whose rest is no text."""
        came = self._get(_ESCAPE)
        if came is None:
            return Key.ESCAPE
        text = str(came)
        while text == "O" or _UNFINISHED.fullmatch(text):
            more = self._get(_ESCAPE)
            if more is None:
                break
            text += str(more)
        return _SEQUENCES.get(text)

    def _take(self) -> bool:
        """Look after what has come; whether there was anything."""
        came = self._feed.take()
        self._wait = 0 if len(came) >= _BATCH else _TICK  # there is more
        for one in came:
            told = one if isinstance(one, str) else read(one)
            if isinstance(told, str):
                self._news = replace(self._news, ended=told)
            elif isinstance(told, Unreadable) and capture_told(told.line) is None:
                self._news = replace(self._news, unreadable=self._news.unreadable + 1)
            elif not isinstance(told, Unreadable):
                self._log.add(told)
        return bool(came)

    def _draw(self, shown: Picture) -> None:
        window = self._window
        window.erase()
        for number, row in enumerate(shown.rows):
            style = self._styles[row.style] | (curses.A_REVERSE if row.selected else 0)
            text = row.text.encode(window.encoding, "replace").decode(window.encoding)
            # The last cell of the screen is drawn, and then there is no place for the cursor, which is an error.
            with contextlib.suppress(curses.error):
                window.addstr(number, 0, text, style)
        with contextlib.suppress(curses.error):  # not every terminal can hide it
            curses.curs_set(0 if shown.cursor is None else 1)
        if shown.cursor is not None:
            window.move(*shown.cursor)
        window.refresh()


def _styles() -> dict[Style, int]:
    """How lines look on this terminal."""
    styles = {style: _ATTRIBUTES.get(style, curses.A_NORMAL) for style in Style}
    if curses.has_colors():
        curses.use_default_colors()
        for number, (style, colour) in enumerate(_COLOURS.items(), 1):
            curses.init_pair(number, colour, -1)
            styles[style] |= curses.color_pair(number)
    return styles


def name(records: Source) -> str:
    """What the status line calls the source."""
    match records:
        case source.File(path):
            return path
        case source.Run(state, run):
            return state or run or ""
        case Pods(kubectl, pod, selector):
            where = f"namespace {kubectl.namespace}" if kubectl.namespace else "the current namespace"
            return f"{pod or selector or 'captured pods'} in {where}"
