"""What a trust cache was told by the control plane: people's words, and what other pods of the workload learned. Pure.

It is kept apart from what this pod saw and from what was said at its own control socket. It holds as long as it is told:
each message replaces the one before. Hearsay never becomes evidence: it is not told to others as this pod's own.
"""

from collections.abc import Iterable, Sequence

from weir_sidecar.contract.config import FailOpen
from weir_sidecar.contract.flow import Reason
from weir_sidecar.contract.trust import Said, State, Told, Word
from weir_sidecar.core.trust_entry import ANY_HOST, App, Entry, Key, bypass_runs
from weir_sidecar.core.trust_table import PERSONAL, Event, after
from weir_sidecar.core.trust_told import heard, spoken


class Heard:
    """What was told last. `words` are looked up by the cache beside its own."""

    def __init__(self, workload: str) -> None:
        self.words: dict[Key, Entry] = {}
        self.hosts: frozenset[str] = frozenset()
        """Of the words."""
        self._workload = workload
        self._learned: dict[Key, Entry] = {}
        self._forget: frozenset[Said] = frozenset()

    def __bool__(self) -> bool:
        return bool(self._learned)

    def replace(self, said: Sequence[Said], learned: Iterable[Told], limit: int, now: float) -> tuple[Said, ...]:
        """Take what is told now for all there is; returns the words that were not there before.

        Of `learned`, `limit` entries are kept. Words are as many as the message holds.
        """
        words = {
            Key(one.host, App(self._workload, one.uid, one.ja4)): one for one in said if one.word is not Word.FORGET
        }
        forget = frozenset(one for one in said if one.word is Word.FORGET)
        fresh = [one for one in said if one in forget - self._forget]
        before, self.words = self.words, {}
        for key, one in words.items():
            entry = spoken(one, now)
            assert entry is not None  # only FORGET makes no entry
            known = before.get(key)
            if known is not None and known.state is entry.state:
                entry = known  # with what was counted since
            else:
                fresh.append(one)
            self.words[key] = entry
        self.hosts = frozenset(key.host for key in self.words)
        self._forget = forget
        self._learned.clear()
        for bypassed in map(heard, learned):
            if bypassed is not None and len(self._learned) < limit:
                self._learned[self._key(bypassed)] = bypassed
        return tuple(fresh)

    def bypass(self, key: Key, own: State, app: State | None, now: float, settings: FailOpen) -> Reason | None:
        """Why a flow is to be passed through, if anybody said something that counts in these states.

        `own` is what this pod knows of (host, app), `app` what it knows of the app as such, if it may be judged.
        """
        if not _moved(own):
            return None
        entries = [self._learned.get(key), self._certificate(key.host)]
        if app is not None and _moved(app):
            entries.append(self._learned.get(Key(ANY_HOST, key.app)))
        for entry in entries:
            if entry is not None and bypass_runs(entry, now, settings):
                return entry.reason
        return None

    def entries(self) -> list[Entry]:
        """All of it, words first."""
        return [*self.words.values(), *self._learned.values()]

    def restore(self, entries: Iterable[Entry]) -> None:
        """What `entries` gave before a restart; it holds until something else is told."""
        for entry in entries:
            (self.words if entry.state in PERSONAL else self._learned)[self._key(entry)] = entry
        self.hosts = frozenset(key.host for key in self.words)

    def _certificate(self, host: str) -> Entry | None:
        """That the host's upstream asks for client certificates, which is so for every app."""
        entry = self._learned.get(Key(host, App(self._workload)))
        return entry if entry is not None and entry.reason is Reason.CLIENT_CERTIFICATE_REQUESTED else None

    def _key(self, entry: Entry) -> Key:
        return Key(entry.host, App(self._workload, entry.uid, entry.ja4))


def _moved(state: State) -> bool:
    """Whether hearsay counts: the table says so. What is bypassed or probed already goes by its own times."""
    return after(state, Event.HEARD) is not state
