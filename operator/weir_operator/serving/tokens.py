"""Who opens a config stream: the pod that its token was made for. The API server reviews each token (TokenReview).

https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/
"""

import asyncio
import base64
import hashlib
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from weir_operator.kube.client import Client
from weir_operator.serving.metrics import Metrics
from weir_sidecar.contract.stream import AUDIENCE

PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
KEPT_SECONDS = 60.0
"""How long the API server's word on a token holds."""
REFUSAL_KEPT_SECONDS = 10.0
AT_ONCE = 16
"""Reviews under way at a time: after a replica's end thousands of sidecars come at once."""
_MOST_KEPT = 10_000
_ACCOUNT = "system:serviceaccount:"


class Refusal(StrEnum):
    """Why a stream is refused or ended; the `cause` in log and metrics."""

    NO_TOKEN = "no_token"  # noqa: S105 - a cause
    INVALID_TOKEN = "invalid_token"  # noqa: S105
    EXPIRED_TOKEN = "expired_token"  # noqa: S105
    OTHER_AUDIENCE = "other_audience"
    NOT_A_PODS_TOKEN = "not_a_pods_token"  # noqa: S105
    OTHER_POD = "other_pod"
    NO_SUCH_POD = "no_such_pod"
    NOT_CAPTURED = "not_captured"
    POD_GONE = "pod_gone"
    REPLACED = "replaced"
    BAD_HELLO = "bad_hello"
    SILENT = "silent"
    NOT_READING = "not_reading"
    LINE_TOO_LONG = "line_too_long"
    API_UNAVAILABLE = "api_unavailable"
    NOT_READY = "not_ready"
    STOPPING = "stopping"


STATUS = {
    Refusal.NO_TOKEN: 401,
    Refusal.INVALID_TOKEN: 401,
    Refusal.EXPIRED_TOKEN: 401,
    Refusal.OTHER_AUDIENCE: 401,
    Refusal.NOT_A_PODS_TOKEN: 403,
    Refusal.OTHER_POD: 403,
    Refusal.NO_SUCH_POD: 404,
    Refusal.NOT_CAPTURED: 404,
    Refusal.API_UNAVAILABLE: 503,
    Refusal.NOT_READY: 503,
    Refusal.STOPPING: 503,
}
"""The answer to a stream that is refused before it begins."""


class Caller(msgspec.Struct, frozen=True):
    """The pod that a token was made for."""

    namespace: str
    pod: str
    uid: str


class _Claims(msgspec.Struct, frozen=True):
    """What a token says of itself, unverified: how long the API server's word on it may be kept, and why it said no."""

    exp: float = 0.0
    aud: tuple[str, ...] = ()


def claims(token: str) -> _Claims:
    """The claims of a JWT (RFC 7519); none for what is no JWT."""
    parts = token.split(".")
    if len(parts) != 3:
        return _Claims()
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)), type=_Claims)
    except (msgspec.MsgspecError, ValueError):  # ValueError: no base64, or not even ASCII
        return _Claims()


def caller_of(status: Mapping[str, Any], about: _Claims, now: float) -> Caller | Refusal:
    """What a TokenReview's status comes to."""
    if not status.get("authenticated"):
        if about.exp and about.exp <= now:
            return Refusal.EXPIRED_TOKEN
        return Refusal.OTHER_AUDIENCE if about.aud and AUDIENCE not in about.aud else Refusal.INVALID_TOKEN
    if AUDIENCE not in (status.get("audiences") or ()):  # an API server that knows no audiences names none
        return Refusal.OTHER_AUDIENCE
    user = status.get("user") or {}
    extra = user.get("extra") or {}
    name, uid = ((extra.get(f"authentication.kubernetes.io/{key}") or [None])[0] for key in ("pod-name", "pod-uid"))
    account = user.get("username") or ""
    if not account.startswith(_ACCOUNT) or not name or not uid:
        return Refusal.NOT_A_PODS_TOKEN
    return Caller(account.removeprefix(_ACCOUNT).partition(":")[0], name, uid)


class TokenReviewer:
    """Asks the API server about tokens, and keeps its word for a while: by the token's hash, never the token."""

    def __init__(self, client: Client, clock: Callable[[], float], metrics: Metrics) -> None:
        self._client = client
        self._clock = clock
        self._metrics = metrics
        self._kept: dict[bytes, tuple[float, Caller | Refusal]] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def review(self, token: str) -> Caller | Refusal:
        """Whose token it is, or why it is refused. Raises `ApiError` if the API server cannot be asked."""
        digest = hashlib.sha256(token.encode(errors="replace")).digest()
        kept = self._kept.get(digest)
        if kept and self._clock() < kept[0]:
            return kept[1]
        async with self._slots:
            body = {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenReview",
                "spec": {"token": token, "audiences": [AUDIENCE]},
            }
            reviewed = await self._client.create(PATH, body)
        now, about = self._clock(), claims(token)
        found = caller_of(reviewed.get("status") or {}, about, now)
        self._metrics.token_reviews.add(found if isinstance(found, Refusal) else "accepted")
        until = now + REFUSAL_KEPT_SECONDS if isinstance(found, Refusal) else min(now + KEPT_SECONDS, about.exp)
        self._keep(digest, until, found)
        return found

    def _keep(self, digest: bytes, until: float, found: Caller | Refusal) -> None:
        if len(self._kept) >= _MOST_KEPT:
            now = self._clock()
            self._kept = {key: kept for key, kept in self._kept.items() if now < kept[0]}
        if len(self._kept) < _MOST_KEPT:
            self._kept[digest] = (until, found)
