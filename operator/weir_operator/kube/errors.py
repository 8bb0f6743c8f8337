"""What the API server answers instead of what was asked for, as a value: status, reason, message.

https://github.com/kubernetes/apimachinery/blob/master/pkg/apis/meta/v1/types.go, StatusReason
"""

from enum import StrEnum

import msgspec


class Reason(StrEnum):
    """`reason` of a metav1.Status; of an answer that has none, what its HTTP status says."""

    BAD_REQUEST = "BadRequest"
    UNAUTHORIZED = "Unauthorized"
    FORBIDDEN = "Forbidden"
    NOT_FOUND = "NotFound"
    METHOD_NOT_ALLOWED = "MethodNotAllowed"
    ALREADY_EXISTS = "AlreadyExists"
    CONFLICT = "Conflict"
    GONE = "Gone"
    EXPIRED = "Expired"
    INVALID = "Invalid"
    REQUEST_ENTITY_TOO_LARGE = "RequestEntityTooLarge"
    UNSUPPORTED_MEDIA_TYPE = "UnsupportedMediaType"
    TOO_MANY_REQUESTS = "TooManyRequests"
    INTERNAL_ERROR = "InternalError"
    SERVICE_UNAVAILABLE = "ServiceUnavailable"
    SERVER_TIMEOUT = "ServerTimeout"
    TIMEOUT = "Timeout"
    UNREACHABLE = "Unreachable"
    """Ours: no answer, or not a whole one. `status` is 0, and whether the request was carried out is not known."""
    UNKNOWN = "Unknown"


_BY_STATUS = {
    400: Reason.BAD_REQUEST,
    401: Reason.UNAUTHORIZED,
    403: Reason.FORBIDDEN,
    404: Reason.NOT_FOUND,
    405: Reason.METHOD_NOT_ALLOWED,
    409: Reason.CONFLICT,
    410: Reason.GONE,
    413: Reason.REQUEST_ENTITY_TOO_LARGE,
    415: Reason.UNSUPPORTED_MEDIA_TYPE,
    422: Reason.INVALID,
    429: Reason.TOO_MANY_REQUESTS,
    500: Reason.INTERNAL_ERROR,
    503: Reason.SERVICE_UNAVAILABLE,
    504: Reason.TIMEOUT,
}
_MAX_MESSAGE = 1000
_LATER = frozenset({Reason.UNREACHABLE, Reason.TOO_MANY_REQUESTS, Reason.SERVER_TIMEOUT, Reason.TIMEOUT})


class ApiError(Exception):
    """A request that failed. `status` is the HTTP status, 0 where there was no answer; `message` is for people."""

    def __init__(self, status: int, reason: Reason, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{reason} ({status}): {message}" if status else f"{reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        """Seconds after which the server wants to be asked again."""

    @property
    def gone(self) -> bool:
        """A resource version or a page is too old: list again."""
        return self.reason in (Reason.GONE, Reason.EXPIRED)

    @property
    def passing(self) -> bool:
        """The same request may succeed later: nothing is wrong with it."""
        return self.reason in _LATER or self.status >= 500


class _Details(msgspec.Struct, frozen=True, rename="camel"):
    retry_after_seconds: float | None = None


class _Status(msgspec.Struct, frozen=True):
    """The part of a metav1.Status that is looked at."""

    reason: str | None = None
    message: str | None = None
    code: int | None = None
    details: _Details | None = None


def error_of(status: int, body: bytes | msgspec.Raw) -> ApiError:
    """The error that an answer with this HTTP status, or an ERROR event of a watch, stands for."""
    try:
        told = msgspec.json.decode(body, type=_Status)
    except (msgspec.MsgspecError, UnicodeError):
        told = _Status(message=bytes(body)[:_MAX_MESSAGE].decode(errors="replace"))
    code = told.code or status
    words = frozenset(Reason)
    reason = Reason(told.reason) if told.reason in words else _BY_STATUS.get(code, Reason.UNKNOWN)
    after = told.details.retry_after_seconds if told.details else None
    return ApiError(code, reason, (told.message or "no message")[:_MAX_MESSAGE], after)
