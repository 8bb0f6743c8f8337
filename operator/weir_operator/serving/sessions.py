"""The sidecars that are connected: what each runs, and what each is to be told.

A message to a sidecar says all there is to say of its kind, so the newest takes the place of one that is still waiting: a
sidecar that reads slowly holds up nobody and costs no memory.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Never

import msgspec

from weir_operator.cluster.facts import Workload
from weir_operator.cluster.policies import Plan
from weir_operator.injection.inject import Settings, pod_config
from weir_operator.kube.errors import ApiError
from weir_operator.serving.exceptions import ExceptionFacts, message
from weir_operator.serving.knowledge import CapturedPod, Knowledge
from weir_operator.serving.log import facts
from weir_operator.serving.tokens import Refusal
from weir_sidecar.contract.config import IDRange
from weir_sidecar.contract.stream import MAX_LINE, Applied, Down, Health, Hello, NewConfig

SETTLE_SECONDS = 0.05
"""Exceptions of a namespace are told this long after the first of several changes."""
_MOST_LINES = 1000
"""Encoded configs that are kept for other pods of the same workload. Jobs come and go; policies may stay for months."""
_AT_ONCE = 20
"""Sessions that are looked at before others of the process get their turn."""

_log = logging.getLogger(__name__)
_encoder = msgspec.json.Encoder()


class Session:
    """One connected sidecar: its pod, what it runs, and the letters that wait for it."""

    def __init__(self, pod: CapturedPod, hello: Hello, plan: Plan) -> None:
        self.pod = pod
        self.plan = plan
        self.runs = hello.revision
        self.loaded = hello.kernel_revision
        """The revision whose kernel rules it has, or whose rules do not differ from these."""
        self.waits: tuple[str, ...] = ()
        """What of the config that it runs counts only when its pod starts anew."""
        self.captured = hello.captured
        """Whether it found rules in its pod."""
        self.ended: Refusal | None = None
        self.offered: tuple[str, int] | None = None
        """Revision and edition of the config that it has, or that waits for it."""
        self._told: bytes | None = None
        self._config: bytes | None = None
        self._exceptions: bytes | None = None
        self._news = asyncio.Event()

    @property
    def current(self) -> bool:
        """Whether it runs what the policies now come to, the kernel's rules included."""
        return self.captured and self.runs == self.loaded == self.plan.config.revision

    def offer_config(self, line: bytes) -> None:
        """Tell it a config, instead of one that waits."""
        self._config = line
        self._news.set()

    def offer_exceptions(self, line: bytes) -> None:
        """Tell it exceptions, if they are other ones than those it has."""
        if line != self._told:
            self._told = self._exceptions = line
            self._news.set()

    def end(self, cause: Refusal) -> None:
        """Let it go; what waits is not told."""
        self.ended = self.ended or cause
        self._news.set()

    async def letters(self, seconds: float) -> tuple[bytes | None, bytes | None]:
        """A config and exceptions to tell now. Waits for one of them, or the end, at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return None, None
        self._news.clear()
        waiting = self._config, self._exceptions
        self._config = self._exceptions = None
        return waiting


class Sessions:
    """All of them, by pod. `changed` is called when the summary may be another."""

    def __init__(
        self,
        knowledge: Knowledge,
        settings: Callable[[], Settings],
        clock: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        self._knowledge = knowledge
        self._settings = settings
        self._clock = clock
        self._changed = changed
        self._by_namespace: dict[str, dict[str, Session]] = {}
        self._edition = 0
        self._lines: dict[tuple[str, str, tuple[IDRange, ...]], bytes] = {}
        self._stale = asyncio.Event()
        self._unsettled: set[str] = set()
        self._checks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return sum(map(len, self._by_namespace.values()))

    def all(self) -> list[Session]:
        """All of this moment."""
        return [session for sessions in self._by_namespace.values() for session in sessions.values()]

    def open(self, pod: CapturedPod, hello: Hello) -> Session:
        """A sidecar is there. If one of the same pod was, it is that one's end."""
        session = Session(pod, hello, self._knowledge.plan_of(pod))
        sessions = self._by_namespace.setdefault(pod.namespace, {})
        if before := sessions.get(pod.name):
            before.end(Refusal.REPLACED)
        sessions[pod.name] = session
        certificate = self._knowledge.certificate
        # One that is connected while the CA rotates may know the old one alone, which its revision does not tell.
        if session.current and not (certificate and certificate.rotating):
            session.offered = (session.plan.config.revision, self._edition)
        self._refresh(session)
        session.offer_exceptions(self._exceptions_line(session))
        self._changed()
        return session

    def close(self, session: Session) -> None:
        """It is gone."""
        sessions = self._by_namespace.get(session.pod.namespace, {})
        if sessions.get(session.pod.name) is session:
            del sessions[session.pod.name]
            if not sessions:
                del self._by_namespace[session.pod.namespace]
        self._changed()

    def applied(self, session: Session, applied: Applied) -> None:
        """A sidecar took a config, or did not."""
        if applied.problem is None:
            session.runs = applied.revision
            session.waits = applied.after_restart
            if not applied.after_restart:
                session.loaded = applied.revision
        self._changed()

    def health(self, session: Session, health: Health) -> None:
        """A sidecar told how it is."""
        if session.captured != health.captured:
            session.captured = health.captured
            self._changed()

    def plans_changed(self) -> None:
        """Any session's plan may be another."""
        self._stale.set()

    def settings_changed(self) -> None:
        """All configs are other ones, whatever their revision."""
        self._edition += 1
        self._stale.set()

    async def run(self) -> Never:
        """Tell sidecars what changed, until cancelled; many at a time, and yet nobody waits long."""
        while True:
            await self._stale.wait()
            self._stale.clear()
            self._lines.clear()
            for number, session in enumerate(self.all(), 1):
                self._refresh(session)
                if number % _AT_ONCE == 0:
                    await asyncio.sleep(0)
            self._changed()

    def _refresh(self, session: Session) -> None:
        """Offer the config that the session's pod now gets, if that is another one."""
        session.plan = self._knowledge.plan_of(session.pod)
        wanted = (session.plan.config.revision, self._edition)
        if session.offered == wanted:
            return
        session.offered = wanted
        line = self._config_line(session)
        if len(line) <= MAX_LINE:
            session.offer_config(line)
        else:
            about = facts(namespace=session.pod.namespace, pod=session.pod.name, bytes=len(line), allowed=MAX_LINE)
            _log.error("a config is too large to be sent; the sidecar keeps the one it has", extra=about)

    def _config_line(self, session: Session) -> bytes:
        """The config as a message: one and the same for all pods of a workload."""
        pod, plan = session.pod, session.plan
        workload = f"{pod.namespace}/{pod.workload.kind}/{pod.workload.name}"
        key = (plan.config.revision, workload, pod.exempt)
        line = self._lines.get(key)
        if line is None:
            if len(self._lines) >= _MOST_LINES:
                self._lines.clear()
            config = pod_config(plan.config, workload, self._settings(), pod.exempt)
            line = self._lines[key] = encode(NewConfig(config))
        return line

    def _exceptions_line(self, session: Session) -> bytes:
        pod = session.pod
        exceptions = self._knowledge.exceptions.of(pod.namespace)
        return encode(message(exceptions, pod.workload, share=session.plan.share, now=self._clock()))

    def exception_changed(self, old: ExceptionFacts | None, new: ExceptionFacts | None) -> None:
        """Tell the sidecars of its namespace, soon."""
        one = new or old
        if one is None or one.namespace not in self._by_namespace:
            return
        if one.namespace not in self._unsettled:
            self._unsettled.add(one.namespace)
            asyncio.get_running_loop().call_later(SETTLE_SECONDS, self._tell_exceptions, one.namespace)

    def _tell_exceptions(self, namespace: str) -> None:
        self._unsettled.discard(namespace)
        lines: dict[tuple[Workload, bool], bytes] = {}
        for session in self._by_namespace.get(namespace, {}).values():
            key = (session.pod.workload, session.plan.share)
            if key not in lines:
                lines[key] = self._exceptions_line(session)
            session.offer_exceptions(lines[key])

    def pod_changed(self, old: CapturedPod | None, new: CapturedPod | None) -> None:
        """A pod has other labels now, or is gone."""
        one = new or old
        session = None if one is None else self._by_namespace.get(one.namespace, {}).get(one.name)
        if session is None:
            return
        if new is not None and new.uid == session.pod.uid:
            session.pod = new
            self._refresh(session)
            self._changed()
        elif new is not None or session.pod.finished:
            session.end(Refusal.POD_GONE)
        else:
            # It is no longer selected by its label. Taking a label off is no way out of what policies say.
            check = asyncio.get_running_loop().create_task(self._check(session))
            self._checks.add(check)
            check.add_done_callback(self._checks.discard)

    async def _check(self, session: Session) -> None:
        pod = session.pod
        try:
            there = await self._knowledge.fetch_pod(pod.namespace, pod.name)
        except ApiError as error:
            about = facts(namespace=pod.namespace, pod=pod.name, problem=str(error))
            _log.warning("whether a pod is gone could not be asked; its stream goes on", extra=about)
            return
        if there is None or there.uid != pod.uid:
            session.end(Refusal.POD_GONE)
        else:
            session.pod = there

    def drain(self, seconds: float) -> None:
        """Let all go, one after the other, so that they do not all come at once to another replica."""
        sessions = self.all()
        random.shuffle(sessions)
        for number, session in enumerate(sessions):
            asyncio.get_running_loop().call_later(seconds * number / len(sessions), session.end, Refusal.STOPPING)


def encode(down: Down) -> bytes:
    """A message as a line."""
    return _encoder.encode(down) + b"\n"
