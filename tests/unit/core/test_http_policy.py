import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_sidecar.contract.config import Action, ConfigError, Match, Rule, SidecarConfig
from weir_sidecar.contract.http import (
    Credential,
    Header,
    HeaderMatch,
    PathKind,
    PathMatch,
    QueryMatch,
    RequestAction,
    RequestMatch,
    RequestRule,
)
from weir_sidecar.contract.request import RequestDecision, RequestError
from weir_sidecar.core.http_path import path_test, readings
from weir_sidecar.core.http_policy import ALLOWED, Edits, RequestFacts, RequestPolicy, RuleRequests

DENY = RequestAction.DENY


def facts(path="/", method="GET", query=None, fields=(), host="a.test"):
    return RequestFacts(method.encode(), host, path.encode(), query, fields)


def decided(match, facts, action=DENY):
    return RuleRequests([RequestRule("r", match, action)]).decide(facts) is not ALLOWED


def paths(value, kind=PathKind.PREFIX):
    return RequestMatch(paths=(PathMatch(value, kind),))


@pytest.mark.parametrize(
    ("kind", "value", "yes", "no"),
    [
        (PathKind.EXACT, "/a", ["/a"], ["/a/", "/ab", "/A", "/"]),
        (PathKind.PREFIX, "/a", ["/a", "/a/", "/a/b"], ["/ab", "/", "/b/a"]),
        (PathKind.PREFIX, "/a/", ["/a", "/a/b"], ["/ab"]),
        (PathKind.PREFIX, "/", ["/", "/a"], []),
        (PathKind.GLOB, "/a/*/c", ["/a/b/c", "/a//c"], ["/a/b/b/c", "/a/c"]),
        (PathKind.GLOB, "/a/**", ["/a/", "/a/b/c"], ["/a"]),
        (PathKind.GLOB, "/?.txt", ["/a.txt"], ["/ab.txt", "/atxt"]),
        (PathKind.REGEX, "/[0-9]+", ["/12"], ["/12/", "/a", "x/12"]),
    ],
)
def test_paths(kind, value, yes, no):
    test = path_test(PathMatch(value, kind))
    assert all(test(path.encode()) for path in yes)
    assert not any(test(path.encode()) for path in no)


@pytest.mark.parametrize(
    "spelt",
    [
        "/admin", "/%61dmin", "//admin", "/./admin", "/x/../admin", "/x/%2e%2e/admin", "/x/..%2fadmin", "/\\admin",
        "/admin;x=1", "/;/admin", "/x;/../admin", "/admin/..;/admin", "/../admin",
    ],
)  # fmt: skip
def test_spelling_does_not_lead_past_a_rule_that_denies(spelt):
    assert decided(paths("/admin"), facts(spelt))
    assert not decided(paths("/public"), facts(spelt))


@pytest.mark.parametrize(
    "spelt", ["/public/../admin", "/public/%2e%2e/admin", "/public;/../admin", "/public\\..\\admin"]
)
def test_spelling_does_not_lead_past_a_rule_that_allows(spelt):
    policy = RuleRequests([RequestRule("yes", paths("/public")), RequestRule("no", action=DENY)])
    assert policy.decide(facts("/public/x")).rule == "yes"
    assert policy.decide(facts(spelt)).rule == "no"


@given(st.text("/.%2eEfFab;\\", max_size=20).map(lambda text: f"/{text}".encode()))
def test_every_reading_but_the_first_is_plain(path):
    first, *others = readings(path)
    assert first == path
    for reading in others:
        assert reading.startswith(b"/")
        assert b"//" not in reading
        assert not {b".", b".."} & set(reading.split(b"/"))


@pytest.mark.parametrize(
    ("match", "holds"),
    [
        (RequestMatch(), True),
        (RequestMatch(methods=("POST", "GET")), True),
        (RequestMatch(methods=("get",)), False),
        (RequestMatch(headers=(HeaderMatch("x-a"),)), True),
        (RequestMatch(headers=(HeaderMatch("x-a", "2"),)), True),
        (RequestMatch(headers=(HeaderMatch("x-a", "3"),)), False),
        (RequestMatch(headers=(HeaderMatch("x-a"), HeaderMatch("x-b"))), False),
        (RequestMatch(query=(QueryMatch("q", "a b"),)), True),
        (RequestMatch(query=(QueryMatch("e"), QueryMatch("q"))), True),
        (RequestMatch(query=(QueryMatch("q", "a+b"),)), False),
        (RequestMatch(methods=("GET",), query=(QueryMatch("z"),)), False),
    ],
)
def test_all_parts_must_hold(match, holds):
    asked = facts(query=b"q=a+b&%65=", fields=((b"X-A", b"1"), (b"x-a", b"2")))
    assert decided(match, asked) is holds


def test_the_first_rule_that_matches_decides_and_none_lets_through():
    rules = RuleRequests([
        RequestRule("one", paths("/a"), DENY, status=451, body="no"),
        RequestRule("two", paths("/"), set_request_headers=(Header("X-B", "c"),), remove_response_headers=("server",)),
    ])  # fmt: skip
    denied = rules.decide(facts("/a/b"))
    assert (denied.decision, denied.rule, denied.status, denied.body) == (RequestDecision.DENY, "one", 451, b"no")
    edited = rules.decide(facts("/b"))
    assert edited.request_edits == Edits(frozenset([b"x-b"]), ((b"x-b", b"c"),))
    assert edited.response_edits == Edits(frozenset([b"server"]), ())
    assert not edited.untouched
    assert RuleRequests([RequestRule("x", paths("/x"), DENY)]).decide(facts()) is ALLOWED


def test_an_abort_is_a_refusal_without_an_answer():
    verdict = RuleRequests([RequestRule("x", abort=True)]).decide(facts())
    assert (verdict.decision, verdict.abort, verdict.error) == (
        RequestDecision.DENY,
        True,
        RequestError.ABORTED_BY_RULE,
    )


def test_edits_keep_what_they_do_not_name_in_its_order():
    edits = Edits(frozenset([b"a", b"b"]), ((b"b", b"2"),))
    assert edits.apply([(b"A", b"1"), (b"c", b"3"), (b"B", b"1"), (b"b", b"0"), (b"D", b"4")]) == [
        (b"c", b"3"), (b"D", b"4"), (b"b", b"2"),
    ]  # fmt: skip


def test_a_pattern_that_cannot_be_read_names_its_rule():
    bad = Rule("web", Match(), Action.INTERCEPT, http=(RequestRule("r", paths("(", PathKind.REGEX)),))
    with pytest.raises(ConfigError, match="rule 'web': '\\(' is not a regular expression"):
        RequestPolicy(SidecarConfig(rules=(bad,)))


CREDENTIAL = Credential("authorization", "/s", placeholder="PLACEHOLDER")
SAME_PLACEHOLDER = Credential("authorization", "/t", placeholder="PLACEHOLDER")


@pytest.mark.parametrize(
    ("asked", "credential", "misused"),
    [
        (facts(fields=((b"Authorization", b"Bearer PLACEHOLDER"),)), CREDENTIAL, False),
        (facts(fields=((b"Authorization", b"Bearer PLACEHOLDER"),)), SAME_PLACEHOLDER, False),
        (facts(fields=((b"Authorization", b"Bearer PLACEHOLDER"),)), None, True),
        (facts(fields=((b"X", b"PLACEHOLDER"),)), CREDENTIAL, True),
        (facts(fields=((b"PLACEHOLDER", b"x"),)), CREDENTIAL, True),
        (facts("/PLACEHOLDER"), CREDENTIAL, True),
        (facts("/%50LACEHOLDER"), CREDENTIAL, True),
        (facts(query=b"t=PLACEHOLDER"), CREDENTIAL, True),
        (facts(method="PLACEHOLDER"), CREDENTIAL, True),
        (facts(host="placeholder.evil.test"), CREDENTIAL, True),
        (facts("/x", fields=((b"X", b"y"),)), None, False),
    ],
)
def test_a_placeholder_belongs_in_its_own_field_alone(asked, credential, misused):
    rules = (RequestRule("r", credential=CREDENTIAL), RequestRule("s", credential=SAME_PLACEHOLDER))
    rule = Rule("web", Match(hosts=("a.test",)), Action.INTERCEPT, http=rules)
    assert RequestPolicy(SidecarConfig(rules=(rule,))).misused(asked, credential) is misused
