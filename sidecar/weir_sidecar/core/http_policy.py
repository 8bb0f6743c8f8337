"""What the rules on requests say of one HTTP request. Pure; compiled once for each config.

The flow's own rule says which rules on requests are asked. The first that matches decides; none: let through.
"""

from collections.abc import Sequence

import msgspec

from weir_sidecar.contract.config import Action, ConfigError, SidecarConfig
from weir_sidecar.contract.http import Credential, Header, QueryMatch, RequestAction, RequestMatch, RequestRule
from weir_sidecar.contract.request import RequestDecision, RequestError
from weir_sidecar.contract.request_log import Tracing
from weir_sidecar.core.http_path import PathTest, path_test, readings, unescape
from weir_sidecar.core.request_log import Fields, LogRules, parameter


class RequestFacts(msgspec.Struct, frozen=True, gc=False):
    """What rules look at. `path` is what comes before the query, of a target in any form; of CONNECT it is empty.

    `host` is what the request names: a DNS name in lower case without port and final dot, an address, or None.
    """

    method: bytes
    host: str | None
    path: bytes
    query: bytes | None
    fields: Fields
    protocol: bytes = b""
    """What an extended CONNECT of HTTP/2 asks for (RFC 8441)."""


class Edits(msgspec.Struct, frozen=True):
    """Changes of header fields; names in lower case."""

    remove: frozenset[bytes]
    """All fields of these names go, those that are set included."""
    add: tuple[tuple[bytes, bytes], ...]

    def apply(self, fields: Fields) -> list[tuple[bytes, bytes]]:
        """The fields after the change: what stays keeps its order, what is set comes last."""
        remove = self.remove
        return [*(field for field in fields if field[0].lower() not in remove), *self.add]


class RequestVerdict(msgspec.Struct, frozen=True):
    """What to do with a request. In this order: delay it; abort it; refuse it with `status` and `body`; or edit it.

    An `error` is why it was refused where no rule says so. What an edge hands out has its credential among the edits.
    """

    decision: RequestDecision
    rule: str | None = None
    status: int = 403
    body: bytes = b""
    request_edits: Edits | None = None
    response_edits: Edits | None = None
    delay: float = 0.0
    abort: bool = False
    credential: Credential | None = None
    error: RequestError | None = None

    @property
    def untouched(self) -> bool:
        """Whether the request and its answer go through as they are, at once."""
        return self is ALLOWED or not (
            self.decision is RequestDecision.DENY
            or self.abort
            or self.delay
            or self.request_edits
            or self.response_edits
            or self.credential
        )


ALLOWED = RequestVerdict(RequestDecision.ALLOW)


class _Rule:
    """A rule ready to be asked."""

    __slots__ = ("_denies", "_headers", "_methods", "_paths", "_query", "verdict")

    def __init__(self, rule: RequestRule) -> None:
        match: RequestMatch = rule.match
        self._denies = rule.action is RequestAction.DENY or rule.abort
        self._methods = frozenset(method.encode() for method in match.methods)
        self._paths: tuple[PathTest, ...] = tuple(path_test(path) for path in match.paths)
        self._headers = tuple((one.name.lower().encode(), _encoded(one.value)) for one in match.headers)
        self._query = match.query
        self.verdict = _verdict(rule)

    def matches(self, facts: RequestFacts, paths: tuple[bytes, ...]) -> bool:
        return (
            (not self._methods or facts.method in self._methods)
            and (not self._paths or self._matches_path(paths))
            and (not self._headers or all(_has(facts.fields, name, value) for name, value in self._headers))
            and (not self._query or all(_asks(facts.query or b"", one) for one in self._query))
        )

    def _matches_path(self, paths: tuple[bytes, ...]) -> bool:
        found = (any(test(path) for test in self._paths) for path in paths)
        return any(found) if self._denies else all(found)


class RuleRequests:
    """The rules on requests of one rule on flows."""

    __slots__ = ("_rules",)

    def __init__(self, rules: Sequence[RequestRule]) -> None:
        """Raises ValueError for a pattern that cannot be read."""
        self._rules = tuple(_Rule(rule) for rule in rules)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def decide(self, facts: RequestFacts) -> RequestVerdict:
        """The first rule that matches decides."""
        if not self._rules:
            return ALLOWED
        paths = readings(facts.path)
        for rule in self._rules:
            if rule.matches(facts, paths):
                return rule.verdict
        return ALLOWED


_NO_RULES = RuleRequests(())


class RequestPolicy:
    """The rules on requests of a config, compiled once. Raises `ConfigError` for a pattern that cannot be read."""

    __slots__ = ("_rules", "asks", "governs", "log", "placeholders", "traces")

    def __init__(self, config: SidecarConfig) -> None:
        self.governs = config.default_action is Action.DENY or any(
            rule.action is Action.DENY or rule.http for rule in config.rules
        )
        """Whether anything is ever refused or changed. If not, what cannot be read may pass unread."""
        self.log = LogRules(config.logging)
        """What records tell of requests."""
        self.traces = self.log.tracing is not Tracing.NONE
        self.asks = self.log.captures or self.traces or any(rule.http for rule in config.rules)
        """Whether anybody looks at header fields."""
        self._rules: dict[str, RuleRequests] = {}
        given = (one.credential for rule in config.rules for one in rule.http if one.credential is not None)
        self.placeholders = tuple(dict.fromkeys(one.placeholder.encode() for one in given if one.placeholder))
        """What must not be sent anywhere but where a credential takes its place; several may have the same."""
        for rule in config.rules:
            if rule.http:
                try:
                    # A rule for several apps became several of one name, which say the same about requests.
                    self._rules.setdefault(rule.name, RuleRequests(rule.http))
                except ValueError as error:
                    raise ConfigError(f"sidecar config: rule {rule.name!r}: {error}") from error

    def for_rule(self, name: str | None) -> RuleRequests:
        """The rules on requests of the rule on flows that has this name; None is the default action, which has none."""
        return _NO_RULES if name is None else self._rules.get(name, _NO_RULES)

    def misused(self, facts: RequestFacts, credential: Credential | None) -> bool:
        """Whether a placeholder is where it may not be: anywhere but in the field where `credential` replaces it."""
        replaced = own = None
        if credential is not None and credential.placeholder:
            replaced, own = credential.placeholder.encode(), credential.header.lower().encode()
        return any(_misuses(facts, one, own if one == replaced else None) for one in self.placeholders)


def denied(
    text: str, error: RequestError | None = None, *, rule: str | None = None, status: int = 403
) -> RequestVerdict:
    """Refuse a request with one sentence."""
    return RequestVerdict(RequestDecision.DENY, rule, status, f"{text}\n".encode(), error=error)


def _misuses(facts: RequestFacts, placeholder: bytes, own: bytes | None) -> bool:
    if (
        placeholder in unescape(facts.path)
        or placeholder in parameter(facts.query or b"")
        or placeholder in facts.method
    ):
        return True
    if facts.host is not None and placeholder.decode().lower() in facts.host:
        return True
    return any(placeholder in name or (placeholder in value and name.lower() != own) for name, value in facts.fields)


def _verdict(rule: RequestRule) -> RequestVerdict:
    if rule.action is RequestAction.DENY:
        body = f"Denied by policy: {rule.name}\n" if rule.body is None else rule.body
        return RequestVerdict(
            RequestDecision.DENY, rule.name, rule.status, body.encode(), delay=rule.delay, abort=rule.abort
        )
    if rule.abort:
        return RequestVerdict(
            RequestDecision.DENY, rule.name, delay=rule.delay, abort=True, error=RequestError.ABORTED_BY_RULE
        )
    return RequestVerdict(
        RequestDecision.ALLOW,
        rule.name,
        request_edits=_edits(rule.set_request_headers, rule.remove_request_headers),
        response_edits=_edits(rule.set_response_headers, rule.remove_response_headers),
        delay=rule.delay,
        credential=rule.credential,
    )


def _edits(to_set: tuple[Header, ...], to_remove: tuple[str, ...]) -> Edits | None:
    if not to_set and not to_remove:
        return None
    names = (*(header.name for header in to_set), *to_remove)
    return Edits(
        frozenset(name.lower().encode() for name in names),
        tuple((header.name.lower().encode(), header.value.encode()) for header in to_set),
    )


def _encoded(value: str | None) -> bytes | None:
    return None if value is None else value.encode()


def _has(fields: Fields, name: bytes, value: bytes | None) -> bool:
    return any(found.lower() == name and (value is None or got == value) for found, got in fields)


def _asks(query: bytes, wanted: QueryMatch) -> bool:
    name, value = wanted.name.encode(), _encoded(wanted.value)
    for pair in query.split(b"&"):
        found, _, got = pair.partition(b"=")
        if parameter(found) == name and (value is None or parameter(got) == value):
            return True
    return False
