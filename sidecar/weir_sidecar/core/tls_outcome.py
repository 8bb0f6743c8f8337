"""What one intercepted TLS handshake says about whether the client trusts the CA.

Failures are told apart by direction (the client's end, or ours) and class (a numeric alert, a silent end, nothing),
never by an error's text. The law:

1. Trust is proven by the client's first application byte, and by nothing less: half of the clients that distrust the
   CA complete the handshake before they leave. Once there is a byte, nothing that follows can be distrust.
2. Before our Certificate is out, nothing counts: the client cannot have judged what it has not seen.
3. A certificate alert from the client is distrust. Any other alert is about something else and counts for nothing.
4. A client that leaves in the middle of the handshake, or stalls in it, is suspect: it had only to answer.
5. A client that leaves right after a completed handshake is weakly suspect: so do health checks.
6. A client that has completed the handshake and stays is idle (a pre-connect, or it waits for the server to speak
   first): clients that verify late do so at once, so what such a client does later is not about the certificate.
   Bytes that the server sent first prove nothing either way: they may be on their way before the client has verified.
"""

from enum import StrEnum

import msgspec

CERTIFICATE_ALERTS = frozenset({42, 43, 44, 45, 46, 48})
"""bad, unsupported, revoked, expired and unknown certificate, and unknown_ca (RFC 8446, section 6.2)."""

REACTION = 3.0
"""Seconds after our flight in which leaving a completed handshake may be a reaction to the certificate."""

STALLED = 4.0
"""Seconds after our flight after which an unanswered handshake is a stall. s2n keeps still for 10 to 30 s."""

SETTLED = 0.25
"""Seconds after our flight after which a client with a completed handshake has stayed: late verifiers leave in 1 ms."""

_CLOSE_NOTIFY = 0


class ClientEnd(StrEnum):
    """How the client's side stands: still open, or who ended it and how."""

    OPEN = "open"
    """Still connected. Asked when the first application byte arrives, and when time has passed without one."""
    ALERT = "alert"
    """A fatal alert other than close_notify; its number is in `ClientSide.alert`."""
    CLOSE_NOTIFY = "close_notify"
    FIN = "fin"
    RST = "rst"
    UPSTREAM = "upstream"
    """The upstream or the sidecar ended it: the client had no say."""


class ClientSide(msgspec.Struct, frozen=True):
    """What was seen of the client in one intercepted connection.

    `certificate_sent` and `seconds_after_flight` are about the flight that carries our Certificate; a HelloRetryRequest
    is not one, and a resumed session has none. `handshake_completed`: the client's Finished was verified.
    `application_bytes` are those the client sent.
    """

    end: ClientEnd
    alert: int | None = None
    certificate_sent: bool = False
    handshake_completed: bool = False
    application_bytes: int = 0
    seconds_after_flight: float = 0.0


class Outcome(StrEnum):
    """What one connection tells about trust."""

    TRUSTED = "trusted"
    DISTRUSTED = "distrusted"
    SUSPICION = "suspicion"
    """Left or stalled in the middle of the handshake, saying nothing."""
    WEAK_SUSPICION = "weak_suspicion"
    """Left at once after the handshake, with nothing sent."""
    STAYED = "stayed"
    """Completed the handshake and is idle: proves nothing, but others need not wait for it."""
    NEUTRAL = "neutral"


def classify(side: ClientSide) -> Outcome:
    """Tell what a connection says about trust. May be asked several times in its life; see `ClientEnd.OPEN`."""
    if side.application_bytes > 0:
        return Outcome.TRUSTED
    if not side.certificate_sent:
        return Outcome.NEUTRAL
    if side.alert is not None and side.alert != _CLOSE_NOTIFY:
        return Outcome.DISTRUSTED if side.alert in CERTIFICATE_ALERTS else Outcome.NEUTRAL
    match side.end:
        case ClientEnd.OPEN:
            return _still_open(side)
        case ClientEnd.FIN | ClientEnd.RST | ClientEnd.CLOSE_NOTIFY:
            return _left(side)
        case ClientEnd.ALERT | ClientEnd.UPSTREAM:
            return Outcome.NEUTRAL


def _still_open(side: ClientSide) -> Outcome:
    if side.handshake_completed:
        return Outcome.STAYED if side.seconds_after_flight >= SETTLED else Outcome.NEUTRAL
    return Outcome.SUSPICION if side.seconds_after_flight >= STALLED else Outcome.NEUTRAL


def _left(side: ClientSide) -> Outcome:
    if not side.handshake_completed:
        return Outcome.SUSPICION
    return Outcome.WEAK_SUSPICION if side.seconds_after_flight <= REACTION else Outcome.NEUTRAL
