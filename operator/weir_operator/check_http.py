"""What the form of rules on requests cannot say: fields that contradict each other, and header fields that are not theirs."""

import re
from collections.abc import Iterator

from weir_operator.models import HTTPRule, Rule
from weir_sidecar.contract.config import Action
from weir_sidecar.contract.http import PathKind, RequestAction
from weir_sidecar.contract.pattern import PatternError, read_pattern

_FRAMING = frozenset((
    "host", "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "te", "trailer",
    "upgrade", "expect", "http2-settings",
))  # fmt: skip
"""Fields that say where a message ends, where it goes and what the connection is: no rule may touch them."""

_KEY = re.compile(r"(?!\.{1,2}$)(?!\.\.)[-._a-zA-Z0-9]{1,247}", re.ASCII)
"""A key of a Secret, as the API server has them; so long that the sidecar's suffixes fit."""

LONGEST_DELAY = 3600
"""Seconds; the sidecar takes no more."""

type _Found = tuple[str, str]
"""The path of a field below the rule, and what is wrong with it."""


def http_problems(rule: Rule) -> Iterator[_Found]:
    """All that is wrong with the rules on requests of one rule."""
    if rule.http and rule.action is not Action.INTERCEPT:
        yield (
            "http",
            f"found {rule.action}; rules on requests need the action {Action.INTERCEPT}, by which they are read",
        )
    names: dict[str, int] = {}
    for number, one in enumerate(rule.http):
        if one.name is not None and names.setdefault(one.name, number) != number:
            yield (
                f"http[{number}].name",
                f"found {one.name!r}, the name of http[{names[one.name]}] too; allowed: another",
            )
        for path, text in _rule_problems(one, has_hosts=rule.match.hosts is not None):
            yield f"http[{number}].{path}", text


def _rule_problems(rule: HTTPRule, *, has_hosts: bool) -> Iterator[_Found]:
    yield from _path_problems(rule)
    answers = {"status": rule.status is not None, "body": rule.body is not None}
    changes = {
        "setRequestHeaders": bool(rule.set_request_headers),
        "removeRequestHeaders": bool(rule.remove_request_headers),
        "setResponseHeaders": bool(rule.set_response_headers),
        "removeResponseHeaders": bool(rule.remove_response_headers),
        "credentialFrom": rule.credential_from is not None,
    }
    if rule.action is RequestAction.DENY or rule.abort:
        yield from _useless(changes, "a request that goes on", "Allow, without abort")
    if rule.action is RequestAction.ALLOW or rule.abort:
        yield from _useless(answers, "an answer of the sidecar's own", "Deny, without abort")
    if rule.delay is not None and rule.delay > LONGEST_DELAY:
        yield "delay", f"found {rule.delay:g} s; allowed: at most {LONGEST_DELAY} s"
    yield from _header_problems(rule)
    yield from _credential_problems(rule, has_hosts=has_hosts)


def _useless(fields: dict[str, bool], what: str, needed: str) -> Iterator[_Found]:
    for path, given in fields.items():
        if given:
            yield path, f"it is about {what}; allowed with action {needed}"


def _path_problems(rule: HTTPRule) -> Iterator[_Found]:
    for number, path in enumerate(rule.match.paths or ()):
        where = f"match.paths[{number}].value"
        if path.type is PathKind.REGEX:
            try:
                read_pattern(path.value)
            except PatternError as error:
                yield where, f"found {path.value!r}, which is not a regular expression: {error}"
        elif not path.value.startswith(("/", "*")):
            yield where, f"found {path.value!r}; allowed: a path that begins with a slash"
        elif "?" in path.value and path.type is not PathKind.GLOB:
            yield where, f"found {path.value!r}; allowed: a path without its query, which belongs in match.query"


def _header_problems(rule: HTTPRule) -> Iterator[_Found]:
    named = [
        *((f"setRequestHeaders[{n}].name", one.name) for n, one in enumerate(rule.set_request_headers)),
        *((f"removeRequestHeaders[{n}]", name) for n, name in enumerate(rule.remove_request_headers)),
        *((f"setResponseHeaders[{n}].name", one.name) for n, one in enumerate(rule.set_response_headers)),
        *((f"removeResponseHeaders[{n}]", name) for n, name in enumerate(rule.remove_response_headers)),
    ]
    if rule.credential_from is not None:
        named.append(("credentialFrom.header", rule.credential_from.header))
    for path, name in named:
        if name in _FRAMING:
            yield path, f"found {name!r}, by which the two ends understand each other; allowed: any other field"


def _credential_problems(rule: HTTPRule, *, has_hosts: bool) -> Iterator[_Found]:
    credential = rule.credential_from
    if credential is None:
        return
    if (credential.file is None) == (credential.secret is None):
        yield "credentialFrom", "allowed: exactly one of file, secret"
    if credential.file is not None and not credential.file.startswith("/"):
        yield "credentialFrom.file", f"found {credential.file!r}; allowed: an absolute path, as the sidecar sees it"
    if credential.secret is not None and not _KEY.fullmatch(credential.secret.key):
        text = f"found {credential.secret.key!r}; allowed: 1 to 247 letters, digits, dots, dashes and underscores"
        yield "credentialFrom.secret.key", text
    if credential.format.count("{}") != 1:
        yield "credentialFrom.format", f"found {credential.format!r}; allowed: text with one {{}}, for the secret"
    if credential.placeholder is not None and len(credential.placeholder) < 8:
        yield "credentialFrom.placeholder", "allowed: at least 8 characters, so that nothing else looks like it"
    if not has_hosts:
        yield "credentialFrom", "the rule above it needs match.hosts: a credential is for hosts that are named"
