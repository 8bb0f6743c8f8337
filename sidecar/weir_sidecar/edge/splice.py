"""A pipe between two sockets, through which bytes pass without leaving the kernel (splice(2))."""

import os

PIPE_BYTES = 1 << 20
"""The most that is in a pipe."""
_F_SETPIPE_SZ = 1031
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class Pipe:
    """Made when a way moves bulk; raises OSError where there is no descriptor to spare. `held`: bytes in it."""

    __slots__ = ("_from", "_to", "held")

    def __init__(self) -> None:
        self._from, self._to = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        _widen(self._to)
        self.held = 0

    def fill(self, source: int, most: int = PIPE_BYTES) -> int:
        """Take from a socket; 0: it has ended. Raises BlockingIOError, also where urgent data is next (tcp(7)); OSError."""
        moved = os.splice(source, self._to, most, flags=_FLAGS)
        self.held += moved
        return moved

    def flush(self, sink: int) -> int:
        """Give to a socket what it takes; what is `held` afterwards waits for it to be writable. Raises OSError."""
        before = self.held
        try:
            while self.held:
                self.held -= os.splice(self._from, sink, self.held, flags=_FLAGS)
        except BlockingIOError:
            pass
        return before - self.held

    def close(self) -> None:
        """Give the descriptors back."""
        os.close(self._from)
        os.close(self._to)


def _widen(pipe: int) -> None:
    import fcntl  # noqa: PLC0415  (only a pod that moves bulk pays for it)

    try:
        fcntl.fcntl(pipe, _F_SETPIPE_SZ, PIPE_BYTES)
    except OSError:
        return  # the user's pipe budget is spent (pipe(7)); the default size works too
