import pytest

from weir_operator.check_http import http_problems
from weir_operator.models import (
    CredentialFrom,
    Header,
    HTTPMatch,
    HTTPRule,
    KeyRef,
    Match,
    PathMatch,
    Rule,
)
from weir_sidecar.contract.config import Action
from weir_sidecar.contract.http import PathKind, RequestAction

HOSTS = Match(hosts=("a.test",))
DENY = RequestAction.DENY


def found(*http, action=Action.INTERCEPT, match=HOSTS):
    return [f"{path}: {text}" for path, text in http_problems(Rule(action, match=match, http=http))]


def path(value, kind=PathKind.PREFIX):
    return HTTPRule(match=HTTPMatch(paths=(PathMatch(value, kind),)))


@pytest.mark.parametrize(
    "rule",
    [
        HTTPRule(),
        HTTPRule(action=DENY, status=404, body="", delay=3600),
        HTTPRule(action=DENY, abort=True),
        HTTPRule(abort=True, delay=1),
        HTTPRule(set_request_headers=(Header("x-a", "b"),), remove_response_headers=("server",)),
        HTTPRule(credential_from=CredentialFrom("authorization", "Bearer {}", file="/run/token", placeholder="PLACEHOLDER")),
        path("/a"), path("*", PathKind.EXACT), path("**/a?", PathKind.GLOB), path("(a|b)/.*", PathKind.REGEX),
    ],
)  # fmt: skip
def test_what_makes_sense_is_let_through(rule):
    assert found(rule) == []


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (path("a"), "match.paths[0].value: found 'a'; allowed: a path that begins with a slash"),
        (path("/a?b"), "belongs in match.query"),
        (path("(", PathKind.REGEX), "is not a regular expression"),
        (path(r"/(?=a).*", PathKind.REGEX), "at character 4, '=': allowed: RE2's syntax, which has no looking around"),
        (HTTPRule(status=404), "status: it is about an answer of the sidecar's own; allowed with action Deny"),
        (HTTPRule(action=DENY, abort=True, body="x"), "body: it is about an answer"),
        (
            HTTPRule(action=DENY, remove_request_headers=("a",)),
            "removeRequestHeaders: it is about a request that goes on",
        ),
        (HTTPRule(abort=True, set_response_headers=(Header("a", "b"),)), "setResponseHeaders: it is about"),
        (HTTPRule(set_request_headers=(Header("host", "b"),)), "setRequestHeaders[0].name: found 'host'"),
        (HTTPRule(remove_response_headers=("content-length",)), "removeResponseHeaders[0]: found 'content-length'"),
        (HTTPRule(delay=3601), "delay: found 3601 s; allowed: at most 3600 s"),
        (HTTPRule(credential_from=CredentialFrom("a")), "credentialFrom: allowed: exactly one of file, secret"),
        (
            HTTPRule(credential_from=CredentialFrom("a", file="/f", secret=KeyRef("s", "k"))),
            "credentialFrom: allowed: exactly one of file, secret",
        ),
        (HTTPRule(credential_from=CredentialFrom("a", file="f")), "allowed: an absolute path"),
        *(
            (HTTPRule(credential_from=CredentialFrom("a", secret=KeyRef("s", key))), "secret.key: found")
            for key in ("", ".", "..", "..data", "a/b", "k" * 248)
        ),
        (HTTPRule(credential_from=CredentialFrom("a", "{}{}", file="/f")), "allowed: text with one {}"),
        (HTTPRule(credential_from=CredentialFrom("a", file="/f", placeholder="x")), "at least 8 characters"),
        (HTTPRule(credential_from=CredentialFrom("te", file="/f")), "credentialFrom.header: found 'te'"),
    ],
)
def test_what_contradicts_itself_is_told(rule, says):
    (problem,) = found(rule)
    assert problem.startswith("http[0].")
    assert says in problem


def test_what_the_rule_above_needs():
    assert found(HTTPRule(), action=Action.DENY) == [
        "http: found Deny; rules on requests need the action Intercept, by which they are read"
    ]
    credential = HTTPRule(credential_from=CredentialFrom("a", file="/f"))
    assert "needs match.hosts" in found(credential, match=Match())[0]
    assert "the name of http[0] too" in found(HTTPRule(name="a"), HTTPRule(name="a"))[0]
