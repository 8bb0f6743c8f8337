"""A terminal for tests: DEC's VT52, the simplest that terminfo knows a full screen for (terminfo(5), `infocmp vt52`).

At most 90 columns: it tells places as characters, and those after that are no ASCII.
"""

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

TERM = "vt52"
_SEQUENCE = re.compile(r"\x1bY(..)|\x1b([A-XZ=>])|([\x00-\x1a\x1c-\x1f])|([^\x00-\x1f]+)", re.DOTALL)
_TIMEOUT = 20


class Terminal:
    """A program on a terminal of its own, and what is on its screen."""

    def __init__(self, argv, columns=80, rows=24, term=TERM):
        self._ours, self._theirs = pty.openpty()
        self._before = termios.tcgetattr(self._theirs)
        self._pending = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.resize(columns, rows)
        # With these two curses believes them, and no other size.
        inherited = {name: value for name, value in os.environ.items() if name not in ("LINES", "COLUMNS")}
        self.program = subprocess.Popen(
            argv, stdin=self._theirs, stdout=self._theirs, stderr=self._theirs, env={**inherited, "TERM": term},
            start_new_session=True,
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.program.kill()
        self.program.wait()
        os.close(self._theirs)
        os.close(self._ours)

    def resize(self, columns, rows):
        """Another size, told as a window manager does; what was on the screen is not."""
        self._cells = [[" "] * columns for _ in range(rows)]
        self._row = self._column = 0
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def signal(self, number):
        self.program.send_signal(number)

    def type(self, keys):
        os.write(self._ours, keys)

    @property
    def text(self):
        return "\n".join("".join(row).rstrip() for row in self._cells)

    @property
    def as_it_was(self):
        """Whether the program has left the terminal's settings as they were."""
        return termios.tcgetattr(self._theirs) == self._before

    def expect(self, *words):
        """Wait until all the words are on the screen at once."""
        end = time.monotonic() + _TIMEOUT
        while not all(word in self.text for word in words):
            assert time.monotonic() < end, f"{words} are not there:\n{self.text}"
            self._read(0.5)

    def status(self):
        """Wait for the program's end."""
        end = time.monotonic() + _TIMEOUT
        while self.program.poll() is None:
            assert time.monotonic() < end, f"it goes on:\n{self.text}"
            self._read(0.1)
        self._read(0)
        return self.program.returncode

    def _read(self, seconds):
        if select.select([self._ours], [], [], seconds)[0]:
            self._pending += self._decoder.decode(os.read(self._ours, 65536))
            self._show()

    def _show(self):
        while found := _SEQUENCE.match(self._pending):
            self._pending = self._pending[found.end() :]
            place, command, control, text = found.groups()
            if place:
                self._row, self._column = (ord(char) - 32 for char in place)
            elif command:
                self._obey(command)
            elif control:
                self._control(control)
            else:
                self._print(text)

    def _print(self, text):
        row = self._cells[min(self._row, len(self._cells) - 1)]
        for char in text:
            row[min(self._column, len(row) - 1)] = char
            self._column = min(self._column + 1, len(row) - 1)  # it does not go on in the next line

    def _control(self, control):
        if control == "\r":
            self._column = 0
        elif control == "\n":
            self._row = min(self._row + 1, len(self._cells) - 1)
        elif control == "\b":
            self._column = max(0, self._column - 1)
        elif control == "\t":
            self._column = (self._column // 8 + 1) * 8

    def _obey(self, command):
        if command == "H":
            self._row = self._column = 0
        elif command in "ABCD":
            row, column = {"A": (-1, 0), "B": (1, 0), "C": (0, 1), "D": (0, -1)}[command]
            self._row, self._column = max(0, self._row + row), max(0, self._column + column)
        elif command in "JK":
            row = self._cells[self._row]
            row[self._column :] = [" "] * (len(row) - self._column)
            if command == "J":
                for below in self._cells[self._row + 1 :]:
                    below[:] = [" "] * len(below)


def resized(terminal, columns, rows):
    """Give the terminal another size, and tell the program, which would hear it from the kernel if this were its session's."""
    terminal.resize(columns, rows)
    terminal.signal(signal.SIGWINCH)
