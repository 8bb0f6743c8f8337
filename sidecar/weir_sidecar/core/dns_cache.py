"""Answers kept for their TTL, given again to the very same question from the very same server.

The key is everything that can change an answer: transport, server, flags, name in any case, and all bytes after it
(type, class, EDNS). So a client never gets an answer that was made for other options or a larger buffer.
"""

from collections import OrderedDict
from collections.abc import Hashable

import msgspec

from weir_sidecar.wire.dns import HEADER_SIZE, Ages, MalformedDNS, Question, ages

ENTRIES = 2048
ANSWER_BYTES = 2048
MAX_LIFETIME = 86400.0
"""Seconds."""


class _Entry(msgspec.Struct, frozen=True, gc=False):
    answer: bytes
    ages: Ages
    stored: float


class DNSCache:
    """A bounded cache of raw answers. Times are monotonic seconds."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()

    def get(self, scope: Hashable, query: bytes, question: Question, now: float) -> bytes | None:
        """The answer with its TTLs counted down, under the id and the spelling of `query`."""
        key = _key(scope, query, question)
        entry = self._entries.get(key)
        if entry is None:
            return None
        age = int(now - entry.stored)
        if age >= min(entry.ages.lifetime, MAX_LIFETIME):
            del self._entries[key]
            return None
        answer = bytearray(entry.answer)
        answer[:2] = query[:2]
        answer[HEADER_SIZE : question.end] = query[HEADER_SIZE : question.end]
        for offset in entry.ages.offsets:
            answer[offset : offset + 4] = (int.from_bytes(answer[offset : offset + 4]) - age).to_bytes(4)
        return bytes(answer)

    def put(self, scope: Hashable, query: bytes, question: Question, answer: bytes, now: float) -> None:
        """Keep `answer` if it may be kept: small, whole, with a TTL (see `ages`), and with its question in it."""
        if len(answer) > ANSWER_BYTES or answer[4:6] != b"\0\1":
            return
        try:
            kept = ages(answer, question)
        except MalformedDNS:
            return
        if kept is None or kept.lifetime == 0:
            return
        key = _key(scope, query, question)
        self._entries[key] = _Entry(answer, kept, now)
        self._entries.move_to_end(key)
        if len(self._entries) > ENTRIES:
            self._entries.popitem(last=False)


def _key(scope: Hashable, query: bytes, question: Question) -> Hashable:
    return scope, query[2:4], question.name, query[question.end - 4 :]
