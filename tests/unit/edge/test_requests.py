import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from lab.http1 import FLOW, RelayBench
from weir_sidecar.contract.config import Action, Match, Rule, SidecarConfig, VerifyAddress
from weir_sidecar.contract.flow import Protocol
from weir_sidecar.contract.http import Credential, Header, PathMatch, RequestAction, RequestMatch, RequestRule
from weir_sidecar.contract.request import RequestDecision, RequestError
from weir_sidecar.core.http_policy import RequestPolicy
from weir_sidecar.core.policy import Policy

OK = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 2\r\n\r\nok"
DENY = RequestAction.DENY


def get(path="/", host="a.test", *fields):
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{''.join(f'{one}\r\n' for one in fields)}\r\n".encode()


def config(*http, **more):
    api = Rule("api", Match(hosts=("a.test", "*.a.test")), Action.INTERCEPT, http=http)
    return SidecarConfig(rules=(api, Rule("evil", Match(hosts=("evil.test",)), Action.DENY)), **more)


def bench(*http, facts=FLOW, **more):
    return RelayBench(config(*http, **more), rule="api", facts=facts)


def test_a_denied_request_in_the_middle_leaves_the_others_alone():
    relay = bench(RequestRule("no", RequestMatch(paths=(PathMatch("/no"),)), DENY, status=451, body="not you"))
    assert relay.client(get("/a") + get("/no/x") + get("/b")) == get("/a") + get("/b")
    answers = relay.upstream(OK + OK)
    refusal = b"HTTP/1.1 451 Unavailable For Legal Reasons\r\nContent-Type: text/plain; charset=utf-8\r\n"
    assert answers == OK + refusal + b"Content-Length: 7\r\n\r\nnot you" + OK
    told = [(one.number, one.status, one.rule, one.decision) for one in relay.close()]
    assert told == [
        (1, 200, None, RequestDecision.ALLOW), (2, 451, "no", RequestDecision.DENY), (3, 200, None, RequestDecision.ALLOW),
    ]  # fmt: skip


def test_a_refused_head_gets_no_body():
    relay = bench(RequestRule("no", action=DENY))
    relay.client(b"HEAD / HTTP/1.1\r\nHost: a.test\r\n\r\n")
    assert relay.to_client().endswith(b"\r\n\r\n")


def test_header_fields_are_changed_and_no_others():
    rule = RequestRule(
        "r",
        set_request_headers=(Header("X-New", "1"),),
        remove_request_headers=("cookie",),
        set_response_headers=(Header("x-seen", "yes"),),
        remove_response_headers=("server",),
    )
    relay = bench(rule)
    sent = b"PUT /?q HTTP/1.1\r\nHost: a.test\r\nCookie: a\r\ncOOkie: b\r\nContent-Length: 3\r\nX-Odd:  z \r\n\r\nabc"
    assert relay.client(sent + get()) == (
        b"PUT /?q HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nX-Odd: z\r\nx-new: 1\r\n\r\nabc"
        b"GET / HTTP/1.1\r\nHost: a.test\r\nx-new: 1\r\n\r\n"
    )
    changed = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx-seen: yes\r\n\r\nok"
    assert relay.upstream(OK + OK) == changed + changed


def test_an_answer_that_would_have_to_be_changed_and_cannot_be_read_goes_nowhere():
    relay = bench(RequestRule("r", remove_response_headers=("server",)))
    relay.client(get())
    assert relay.upstream(b"HTTP/1.1 200 OK\nServer: x\n\n") == b""
    assert relay.aborted


def test_a_delayed_request_waits_and_holds_those_behind_it():
    relay = bench(RequestRule("slow", RequestMatch(paths=(PathMatch("/slow"),)), delay=1.5))
    assert relay.client(get("/a") + get("/slow") + get("/b")) == get("/a")
    assert relay.up.paused
    assert [timer.seconds for timer in relay.loop.timers] == [1.5]
    relay.surroundings.time += 1.5
    relay.loop.ring()
    assert relay.to_upstream() == get("/slow") + get("/b")
    assert not relay.up.paused
    relay.upstream(OK * 3)
    assert [one.duration_ms for one in relay.records] == [1500, 1500, 0]


def test_a_delay_ends_with_the_connection():
    relay = bench(RequestRule("slow", delay=1.5))
    relay.client(get())
    (record,) = relay.close()
    assert (record.error, record.status) == (RequestError.CLIENT_GONE, None)
    assert relay.loop.timers[0].cancelled


def test_an_abort_resets():
    relay = bench(RequestRule("off", abort=True))
    assert relay.client(get()) == b""
    assert relay.aborted
    (record,) = relay.close()
    assert (record.error, record.rule, record.status) == (RequestError.ABORTED_BY_RULE, "off", None)


def test_a_request_is_decided_by_the_policy_of_now():
    relay = bench()
    assert relay.client(get()) == get()
    now = config(RequestRule("no", action=DENY))
    relay.surroundings.context.adopt(now, Policy(now).decide, RequestPolicy(now))
    assert relay.client(get()) == b""
    closed = SidecarConfig(default_action=Action.DENY)
    relay.surroundings.context.adopt(closed, Policy(closed).decide, RequestPolicy(closed))
    relay.upstream(OK)
    assert relay.client(get()) == b""
    assert b"default action" in relay.to_client()


def test_another_host_of_the_connection_is_decided_anew():
    relay = bench(RequestRule("r", RequestMatch(paths=(PathMatch("/no"),)), DENY))
    assert relay.client(get("/", "other.test")) == get("/", "other.test")
    assert relay.client(get("/no", "other.test")) == get("/no", "other.test")
    assert relay.client(get("/no", "sub.a.test")) == b""
    assert relay.client(get("/", "EVIL.test.")) == b""
    relay.upstream(OK * 2)
    assert [(one.host, one.rule) for one in relay.records] == [
        ("other.test", None), ("other.test", None), ("sub.a.test", "r"), ("evil.test", "evil"),
    ]  # fmt: skip


def test_another_host_that_dns_never_gave_this_address_for_is_refused_where_that_counts():
    relay = bench(verify_address=VerifyAddress.DENY)
    assert relay.client(get("/", "other.test")) == b""
    relay.surroundings.context.names.learn("third.test", ["192.0.2.1"], 60, 1000.0)
    assert relay.client(get("/", "third.test")) == get("/", "third.test")


@pytest.fixture
def secret(tmp_path) -> Path:
    path = tmp_path / "secret"
    path.write_text("s3cret\n")
    return path


def credential(path, **more):
    return RequestRule("key", credential=Credential("authorization", str(path), **more))


def test_a_credential_is_added_and_told_to_nobody(secret):
    relay = bench(credential(secret, format="Bearer {}"))
    with_own = get("/", "a.test", "Authorization: mine")
    assert relay.client(with_own) == get("/", "a.test", "authorization: Bearer s3cret")
    relay.upstream(OK)
    assert "s3cret" not in repr(relay.records)
    secret.write_text("another")
    os.utime(secret, ns=(1, 1))
    assert b"Bearer another" in relay.client(get())


def test_a_placeholder_is_replaced_and_refused_elsewhere(secret):
    relay = bench(credential(secret, placeholder="PLACEHOLDER"))
    asked = get("/", "a.test", "Authorization: token PLACEHOLDER", "X: y")
    assert relay.client(asked) == get("/", "a.test", "X: y", "authorization: token s3cret")
    assert relay.client(get()) == get()
    relay.upstream(OK * 2)
    for elsewhere in (
        get("/PLACEHOLDER"),
        get("/", "a.test", "X: PLACEHOLDER"),
        get("/", "other.test", "Authorization: token PLACEHOLDER"),
    ):
        assert relay.client(elsewhere) == b""
    assert {one.error for one in relay.records[2:]} == {RequestError.PLACEHOLDER_MISUSED}
    assert len(relay.records) == 5


@pytest.mark.parametrize(
    ("facts", "host"),
    [
        (replace(FLOW, protocol=Protocol.HTTP), "a.test"),
        (replace(FLOW, host="evil2.test"), "a.test"),
        (FLOW, "sub.a.test"),
        (replace(FLOW, named_by_client=False), "a.test"),
    ],
)
def test_a_credential_goes_only_where_the_server_is_certainly_the_host(secret, facts, host):
    relay = bench(credential(secret), facts=facts)
    assert relay.client(get("/", host)) == b""
    assert [one.error for one in relay.records] == [RequestError.CREDENTIAL_MISDIRECTED]


@pytest.mark.parametrize("content", [None, "two\nlines", "", "x" * 20000, "nul\x00"])
def test_a_credential_that_cannot_be_had_is_an_error(secret, content):
    if content is None:
        secret.unlink()
    else:
        secret.write_text(content)
    relay = bench(credential(secret))
    assert relay.client(get()) == b""
    assert relay.to_client().startswith(b"HTTP/1.1 502 Bad Gateway")
    unreadable = RequestError.CREDENTIAL_MISSING if content is None else RequestError.CREDENTIAL_UNREADABLE
    assert [one.error for one in relay.records] == [unreadable]


def post(body, *fields):
    return f"POST / HTTP/1.1\r\nHost: a.test\r\n{''.join(f'{one}\r\n' for one in fields)}\r\n".encode() + body


@pytest.mark.parametrize(
    "sent",
    [
        post(b"token=PLACEHOLDER&x=1", "Content-Length: 21"),
        post(b"6\r\ntoken=\r\n5\r\nPLACE\r\n6;a=b\r\nHOLDER\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
        post(b"1\r\nx\r\n0\r\nX-Sum: PLACEHOLDER\r\n\r\n", "Transfer-Encoding: chunked"),
    ],
)
@pytest.mark.parametrize("size", [1, 4, 4096])
def test_a_placeholder_in_a_body_ends_the_connection_before_the_server_has_it(secret, sent, size):
    relay = bench(credential(secret, placeholder="PLACEHOLDER"))
    passed = b"".join(relay.client(sent[at : at + size]) for at in range(0, len(sent), size) if not relay.aborted)
    assert relay.aborted
    assert b"PLACEHOLDER" not in passed.replace(b"\r\n6;a=b\r\n", b"")
    assert [one.error for one in relay.close()] == [RequestError.PLACEHOLDER_MISUSED]


def test_a_body_without_it_goes_on_as_it_is(secret):
    relay = bench(credential(secret, placeholder="PLACEHOLDER"))
    sent = post(b"PLACEHOLDE", "Content-Length: 10")
    assert relay.client(sent) == sent
