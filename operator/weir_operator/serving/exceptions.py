"""TrustExceptions: what pods tell becomes their status, and what they and people say becomes a message to pods. Pure.

A status is about a workload: of what its pods tell, the latest word on the state counts. Only "failing" does not undo a
bypass that still runs: it comes from a pod that has not heard of it.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from weir_operator.cluster.facts import Workload
from weir_operator.models import ExceptionDecision
from weir_sidecar.contract.flow import Reason
from weir_sidecar.contract.stream import HEARSAY_SECONDS, Exceptions
from weir_sidecar.contract.trust import Said, State, Told, Word

MAX_NAME = 63
MAX_PODS = 10
MOST_AHEAD = 366 * 86400.0
"""Seconds from now to the latest end of a bypass that is believed."""

NOTEWORTHY = frozenset({State.FAILING, State.BYPASSED, State.PROBATION})
"""What makes a TrustException; the other states only change one that is there."""
_WORDS = {ExceptionDecision.INTERCEPT: Word.APPROVE, ExceptionDecision.PASSTHROUGH: Word.PIN}
_GRAVITY = (
    State.UNKNOWN,
    State.TRUSTED,
    State.FAILING,
    State.PROBATION,
    State.BYPASSED,
    State.APPROVED,
    State.PINNED,
)


class Subject(msgspec.Struct, frozen=True):
    """What an exception is about. `workload` None: every pod of the namespace; `uid` and `ja4` None: any."""

    workload: Workload | None
    host: str
    uid: int | None = None
    ja4: str | None = None


class Seen(msgspec.Struct, frozen=True):
    """What was seen, as a status has it. Times: seconds since the epoch, to a millisecond."""

    state: State
    reason: Reason | None = None
    alert: int | None = None
    failures: int = 0
    successes: int = 0
    first_seen: float = 0.0
    last_seen: float = 0.0
    expires_at: float | None = None
    pods: tuple[str, ...] = ()


class ExceptionFacts(msgspec.Struct, frozen=True):
    """A TrustException, as far as it matters here."""

    namespace: str
    name: str
    subject: Subject
    decision: ExceptionDecision
    seen: Seen | None


def exception_facts(obj: Mapping[str, Any]) -> ExceptionFacts:
    """Read a TrustException. Raises ValueError for one that its own schema would not let in."""
    metadata, spec = obj["metadata"], obj["spec"]
    workload, app = spec.get("workload"), spec.get("app") or {}
    subject = Subject(
        Workload(workload["kind"], workload["name"]) if workload else None,
        spec["host"],
        app.get("uid"),
        app.get("ja4"),
    )
    decision = ExceptionDecision(spec.get("decision") or ExceptionDecision.AUTO)
    return ExceptionFacts(metadata["namespace"], metadata["name"], subject, decision, read_seen(obj.get("status")))


def object_name(subject: Subject) -> str:
    """The name of the TrustException about a subject of a workload: the same on every replica."""
    workload = subject.workload or Workload("", "all")
    parts = (workload.kind, workload.name, subject.host, subject.uid, subject.ja4)
    digest = hashlib.sha256("/".join("" if part is None else str(part) for part in parts).encode()).hexdigest()[:10]
    return f"{workload.name[: MAX_NAME - 11].rstrip('-.')}-{digest}"


def new_object(namespace: str, name: str, subject: Subject) -> dict[str, Any]:
    """A TrustException that nobody has decided about."""
    app = {key: value for key, value in (("uid", subject.uid), ("ja4", subject.ja4)) if value is not None}
    spec: dict[str, Any] = {"host": subject.host, "decision": ExceptionDecision.AUTO.value}
    if app:
        spec["app"] = app
    if subject.workload is not None:
        spec["workload"] = msgspec.to_builtins(subject.workload)
    metadata = {"namespace": namespace, "name": name}
    return {"apiVersion": "weir.dev/v1alpha1", "kind": "TrustException", "metadata": metadata, "spec": spec}


def read_seen(status: Mapping[str, Any] | None) -> Seen | None:
    """What a status says was seen; None: nothing yet."""
    if not status or "state" not in status:
        return None
    return Seen(
        state=State(status["state"].lower()),
        reason=Reason(status["reason"]) if status.get("reason") else None,
        alert=status.get("alert"),
        failures=status.get("failures", 0),
        successes=status.get("successes", 0),
        first_seen=_seconds(status.get("firstSeen")) or 0.0,
        last_seen=_seconds(status.get("lastSeen")) or 0.0,
        expires_at=_seconds(status.get("expiresAt")),
        pods=tuple(status.get("pods") or ()),
    )


def write_seen(seen: Seen, status: Mapping[str, Any] | None) -> dict[str, Any]:
    """A status that says what was seen; what others keep in it (conditions) stays."""
    told = {
        "state": seen.state.value.capitalize(),
        "reason": seen.reason,
        "alert": seen.alert,
        "failures": seen.failures,
        "successes": seen.successes,
        "firstSeen": _text(seen.first_seen),
        "lastSeen": _text(seen.last_seen),
        "expiresAt": None if seen.expires_at is None else _text(seen.expires_at),
        "pods": list(seen.pods),
    }
    kept = {key: value for key, value in (status or {}).items() if key not in told}
    return {**kept, **{key: value for key, value in told.items() if value is not None}}


def merge(seen: Seen | None, told: Told, pod: str, now: float) -> Seen:
    """Take what one pod tells into what is known. The same told twice changes nothing; a pod's clock is not believed."""
    news = _news(told, pod, now)
    if seen is None:
        return news
    state = news if _prevails(news, seen) else seen
    return replace(
        state,
        failures=max(seen.failures, news.failures),
        successes=max(seen.successes, news.successes),
        first_seen=min(seen.first_seen, news.first_seen),
        last_seen=max(seen.last_seen, news.last_seen),
        pods=seen.pods if pod in seen.pods else (*seen.pods, pod)[-MAX_PODS:],
    )


def _news(told: Told, pod: str, now: float) -> Seen:
    last = _milliseconds(min(max(told.last_seen, 0.0), now))
    ends = None if told.expires_at is None else _milliseconds(min(max(told.expires_at, 0.0), now + MOST_AHEAD))
    return Seen(
        state=told.state,
        reason=told.reason,
        alert=told.alert,
        failures=told.failures,
        successes=told.successes,
        first_seen=min(_milliseconds(max(told.first_seen, 0.0)), last),
        last_seen=last,
        expires_at=ends,
        pods=(pod,),
    )


def _prevails(news: Seen, seen: Seen) -> bool:
    bypassed = seen.state is State.PROBATION or _bypassed(seen, news.last_seen)
    if news.state is State.FAILING and bypassed:
        return False
    return _order(news) > _order(seen)


def _order(seen: Seen) -> tuple[float, int, float, str, int]:
    alert = -1 if seen.alert is None else seen.alert
    return (seen.last_seen, _GRAVITY.index(seen.state), seen.expires_at or 0.0, seen.reason or "", alert)


def message(exceptions: Iterable[ExceptionFacts], workload: Workload, *, share: bool, now: float) -> Exceptions:
    """What the pods of a workload are told: people's words, and the bypasses that were learned, if they are shared.

    Of two words on the same, the workload's own holds.
    """
    said: dict[tuple[str, int | None, str | None], Said] = {}
    learned: list[Told] = []
    for one in sorted(exceptions, key=lambda one: (one.subject.workload is not None, one.name)):
        subject = one.subject
        if subject.workload not in (None, workload):
            continue
        word = _WORDS.get(one.decision)
        if word is not None:
            key = (subject.host, subject.uid, subject.ja4)
            said.pop(key, None)
            said[key] = Said(subject.host, word, subject.uid, subject.ja4)
        elif share and subject.workload is not None and one.seen is not None and _told_of(one.seen, now):
            learned.append(_told(subject, one.seen))
    return Exceptions(tuple(said.values()), tuple(learned))


def _told_of(seen: Seen, now: float) -> bool:
    """Whether others still hear of a bypass: also for a while after its end, which is then the learning pod's to try."""
    return _bypassed(seen, now - HEARSAY_SECONDS)


def _bypassed(seen: Seen, at: float) -> bool:
    return seen.state is State.BYPASSED and seen.expires_at is not None and at < seen.expires_at


def _told(subject: Subject, seen: Seen) -> Told:
    return Told(
        host=subject.host,
        state=seen.state,
        uid=subject.uid,
        ja4=subject.ja4,
        reason=seen.reason,
        alert=seen.alert,
        failures=seen.failures,
        successes=seen.successes,
        bypasses=int(seen.state is State.BYPASSED),
        first_seen=seen.first_seen,
        last_seen=seen.last_seen,
        expires_at=seen.expires_at,
    )


def _milliseconds(seconds: float) -> float:
    return round(seconds, 3)


def _text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _seconds(text: str | None) -> float | None:
    return None if text is None else _milliseconds(datetime.fromisoformat(text).timestamp())
