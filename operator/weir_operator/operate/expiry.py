"""When a TrustException that nobody decided has had its time. Pure.

What sidecars learn is written down so that people see it and other pods of the workload need not learn it again. An
entry is of use until its bypass ends, and then for as long again as it lasted, twice, in case the client comes back.
"""

from datetime import UTC, datetime, timedelta

from weir_operator.operate.world import Object
from weir_sidecar.contract.config import FailOpen
from weir_sidecar.contract.trust import State

TRUSTED = timedelta(minutes=10)
"""How long an entry stays whose client turned out to trust the CA: long enough to be seen, and told to other pods."""
LEAST = timedelta(hours=1)
UNTIMED = timedelta(seconds=FailOpen().max_ttl)
"""How long an entry without an end of its own lasts from when it was last seen: the default maxTTL."""


def deletable(exception: Object, now: datetime) -> bool:
    """Whether a TrustException is to be deleted: nobody decided it, and its time was over long ago."""
    end = end_of(exception)
    return end is not None and now >= end


def end_of(exception: Object) -> datetime | None:
    """When it is deleted unless it is seen again; None: never, a person decided.

    That is twice its TTL after it expired, and at least an hour after; without an expiry, the default maxTTL counts
    from when it was last seen. Without a status it counts from when it was made.
    """
    if (exception.get("spec") or {}).get("decision", "Auto") != "Auto":
        return None
    status = exception.get("status") or {}
    seen = _time(status.get("lastSeen")) or _time(exception["metadata"].get("creationTimestamp"))
    if seen is None:
        return None
    if str(status.get("state")).lower() == State.TRUSTED:
        return seen + TRUSTED
    expires = _time(status.get("expiresAt")) or seen + UNTIMED
    return expires + max(2 * (expires - seen), LEAST)


def _time(text: object) -> datetime | None:
    """An RFC 3339 time; None: there is none, or it cannot be read, which is as good as none."""
    try:
        read = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return read if read.tzinfo else read.replace(tzinfo=UTC)
