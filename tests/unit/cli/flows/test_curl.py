"""A request as a curl command: what a shell makes of it is what was sent, and what was not recorded is said."""

import subprocess
import tempfile

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import records
from weir_cli.flows.curl import command, quoted
from weir_cli.flows.messages import ExportError
from weir_cli.text import printable
from weir_sidecar.contract.request import HTTPVersion, LoggedBody, LoggedMessage, MessageVersion, Scheme


def message(headers=(), body=None, version=MessageVersion.HTTP1_1):
    return LoggedMessage(version, tuple(headers), msgspec.UNSET if body is None else body)


def body(content, *, base64=False, truncated=False):
    return LoggedBody(content, base64, truncated, "text/plain", None)


def made(flow=None, **changes):
    return command(
        records.told(
            records.request(**{"path": "/", "request": message([("Accept", "*/*"), ("User-Agent", "x")]), **changes}),
            flow=flow,
        )
    )


def arguments(text, shell="bash"):
    """What a shell calls curl with, and what it gives it to read."""
    with tempfile.NamedTemporaryFile("w") as script:
        script.write(f"curl() {{ printf '%s\\0' $# \"$@\"; cat; }}\n{text}\n")
        script.flush()
        done = subprocess.run([shell, script.name], input=b"", capture_output=True, check=True)
    count, _, rest = done.stdout.partition(b"\0")
    *words, read = rest.split(b"\0", int(count))
    return [word.decode() for word in words], read


def argued(flow=None, **changes):
    return arguments(made(flow, **changes).text)[0]


OWN = ["--header", "Accept: */*", "--header", "User-Agent: x"]


def test_a_get():
    assert (
        made().text
        == "curl --http1.1 \\\n  https://example.com/ \\\n  --header 'Accept: */*' \\\n  --header 'User-Agent: x'"
    )
    assert made().missing == ()
    assert argued() == ["--http1.1", "https://example.com/", *OWN]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"protocol": HTTPVersion.HTTP2}, ["--http2", "https://example.com/"]),
        (
            {"protocol": HTTPVersion.HTTP2, "scheme": Scheme.HTTP, "port": 80},
            ["--http2-prior-knowledge", "http://example.com/"],
        ),
        ({"method": "HEAD"}, ["--http1.1", "--head", "https://example.com/"]),
        ({"method": "DELETE"}, ["--http1.1", "--request", "DELETE", "https://example.com/"]),
        ({"port": 8443}, ["--http1.1", "https://example.com:8443/"]),
        ({"host": "::1"}, ["--http1.1", "https://[::1]/"]),
        ({"path": "/a/../b"}, ["--http1.1", "https://example.com/a/../b", "--path-as-is"]),
        ({"path": "/[1-3]"}, ["--http1.1", "https://example.com/[1-3]", "--globoff"]),
        (
            {"path": "*", "method": "OPTIONS"},
            ["--http1.1", "--request", "OPTIONS", "https://example.com", "--request-target", "*"],
        ),
    ],
)
def test_how_it_is_asked(changes, words):
    assert argued(**changes) == [*words, *OWN]


def test_http_1_0():
    sent = message([("Accept", "*/*"), ("User-Agent", "x")], version=MessageVersion.HTTP1_0)
    assert argued(request=sent)[0] == "--http1.0"


@pytest.mark.parametrize(
    ("flow", "words"),
    [
        ({}, ["https://example.com/", "--resolve", "example.com:443:192.0.2.1"]),
        ({"address": "2001:db8::1"}, ["https://example.com/", "--resolve", "example.com:443:[2001:db8::1]"]),
        (
            {"sni": "front.example"},
            ["https://front.example/", "--resolve", "front.example:443:192.0.2.1", "--header", "Host: example.com"],
        ),
        ({"sni": None}, ["https://example.com/", "--resolve", "example.com:443:192.0.2.1"]),
    ],
)
def test_the_same_server_is_asked_by_the_same_name(flow, words):
    assert argued(records.flow(**flow)) == ["--http1.1", *words, *OWN]


def test_an_address_needs_no_name():
    assert argued(records.flow(sni=None), host="192.0.2.1") == ["--http1.1", "https://192.0.2.1/", *OWN]
    assert argued(records.flow(sni=None), host=None) == ["--http1.1", "https://192.0.2.1/", *OWN]


@pytest.mark.parametrize(
    ("changes", "words"), [({"host": None}, "names no host"), ({"method": "CONNECT"}, "does not send CONNECT")]
)
def test_what_cannot_be_repeated_is_said(changes, words):
    with pytest.raises(ExportError, match=words):
        made(**changes)


def test_what_was_not_recorded_is_a_placeholder_and_is_listed():
    sent = message([("Accept", "*"), ("User-Agent", "x"), ("Cookie", "*"), ("X-Key", None)])
    one = made(path="/s?q=*&page=1&t=*", request=sent, request_bytes=9, method="PUT")
    assert arguments(one.text)[0] == [
        "--http1.1", "--request", "PUT", "https://example.com/s?q=REDACTED&page=1&t=REDACTED", "--header", "Accept: *",
        "--header", "User-Agent: x", "--header", "Cookie: REDACTED", "--header", "X-Key: REDACTED",
        "--header", "content-type:", "--data-binary", "@BODY",
    ]  # fmt: skip
    assert one.missing == (
        "the body, 9 bytes: put it in a file named BODY", "the value of q in the URL", "the value of t in the URL",
        "the value of Cookie", "the value of X-Key",
    )  # fmt: skip


def test_parts_of_a_url_that_were_not_recorded_are_placeholders():
    fields = [("Accept", "*/*"), ("User-Agent", "x"), ("Referer", "https://*@a.example/?q=*&p=1*&r=*#*"), ("X", "a=*")]
    one = made(request=message(fields))
    assert arguments(one.text)[0][-3:] == [
        "Referer: https://REDACTED@a.example/?q=REDACTED&p=1*&r=REDACTED#REDACTED", "--header", "X: a=*",
    ]  # fmt: skip
    assert one.missing == ("parts of the value of Referer",)


def test_without_header_fields_that_is_said():
    one = made(request=msgspec.UNSET)
    assert one.text == "curl --http1.1 \\\n  https://example.com/"
    assert one.missing == ("the header fields, none of which is recorded",)
    told = LoggedMessage(MessageVersion.HTTP1_1, body=body("hi"))
    assert argued(request=told, request_bytes=2, method="POST") == [
        "--http1.1", "https://example.com/", "--header", "Content-Type: text/plain", "--data-raw", "hi",
    ]  # fmt: skip


def test_fields_are_sent_as_they_were_and_no_others():
    sent = message([
        ("Host", "example.com"), ("Content-Length", "2"), ("Connection", "keep-alive"), ("Accept-Encoding", "gzip"),
        ("X-Empty", ""), ("Content-Type", "a/b"),
    ])  # fmt: skip
    assert argued(request=sent, request_bytes=2, method="POST") == [
        "--http1.1", "https://example.com/", "--header", "Accept-Encoding: gzip", "--header", "X-Empty;",
        "--header", "Content-Type: a/b", "--header", "user-agent:", "--header", "accept:", "--compressed",
        "--data-binary", "@BODY",
    ]  # fmt: skip


def test_an_upgrade_says_that_it_is_one():
    sent = message([("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Accept", "a"), ("User-Agent", "x")])
    words = argued(request=sent, status=101, request_bytes=900)
    assert words == [
        "--http1.1", "https://example.com/", "--header", "Connection: Upgrade", "--header", "Upgrade: websocket",
        "--header", "Accept: a", "--header", "User-Agent: x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("logged", "read"),
    [(body("AP8K", base64=True), b"\x00\xff\n"), (body("x" * 200_000), b"x" * 200_000), (body("a\0b"), b"a\0b")],
)
def test_a_body_that_is_no_argument_comes_by_a_pipe(logged, read):
    one = made(request=message(body=logged), request_bytes=len(read), method="POST")
    words, got = arguments(one.text)
    assert words[-2:] == ["--data-binary", "@-"]
    assert got == read


def test_a_body_that_was_cut_is_not_recorded():
    one = made(request=message(body=body("beg", truncated=True)), request_bytes=900, method="POST")
    assert "--data-binary @BODY" in one.text
    assert one.missing[0].startswith("the body, 900 bytes")


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@settings(max_examples=60, deadline=None)
@given(texts)
def test_a_word_comes_out_of_the_shell_as_it_went_in_and_steers_no_terminal(text):
    word = quoted(text)
    assert all(printable(line) == line for line in word.split("\n"))
    assert arguments(f"curl {word}")[0] == [text]


@settings(max_examples=30, deadline=None)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20))
def test_what_is_plain_is_plain_for_every_shell(text):
    assert arguments(f"curl {quoted(text)}", "sh")[0] == [text]
