"""Requests: what is sent, and that everything that may go wrong is an ApiError."""

import asyncio
import socket
import ssl

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from lab.pki import Authority, LeafShape
from samples.fake_api import FakeApi, answer, configmap, listing, refusal, silence
from weir_operator.kube import client as client_module
from weir_operator.kube.client import Client, Patch
from weir_operator.kube.errors import ApiError, Reason
from weir_operator.kube.kubeconfig import Access, KubeconfigError


def ask(script, asking, **access):
    """The outcome of `asking(client)`, an ApiError as a value, and the requests that came."""

    async def main():
        async with FakeApi(*script) as api, api.client(**access) as client:
            try:
                return await asking(client), api.requests
            except ApiError as error:
                return error, api.requests

    return asyncio.run(main())


async def echo(request):
    return web.json_response({"body": (await request.read()).decode(), "type": request.headers.get("Content-Type")})


def test_what_is_sent():
    outcome, (request,) = ask([echo], lambda client: client.create("/api/v1/a", {"b": 1}), token="secret")
    assert outcome == {"body": '{"b":1}', "type": "application/json"}
    assert (request.method, request.path) == ("POST", "/api/v1/a")
    assert request.headers["Authorization"] == "Bearer secret"
    assert request.headers["Accept"] == "application/json"


@pytest.mark.parametrize(
    ("asking", "method", "kind"),
    [
        (lambda client: client.replace("/a", {}), "PUT", "application/json"),
        (lambda client: client.patch("/a", {}), "PATCH", "application/merge-patch+json"),
        (lambda client: client.patch("/a", [], Patch.JSON), "PATCH", "application/json-patch+json"),
        (
            lambda client: client.patch("/a", {}, Patch.APPLY, {"fieldManager": "weir"}),
            "PATCH",
            "application/apply-patch+yaml",
        ),
    ],
)
def test_changes(asking, method, kind):
    outcome, (request,) = ask([echo], asking)
    assert (request.method, outcome["type"]) == (method, kind)
    assert "Authorization" not in request.headers


def test_delete():
    outcome, (request,) = ask([answer({})], lambda client: client.delete("/a", {"preconditions": {"uid": "u"}}))
    assert outcome is None
    assert request.method == "DELETE"
    outcome, _ = ask([refusal(404, "NotFound")], lambda client: client.delete("/a"))
    assert outcome.reason is Reason.NOT_FOUND


def test_a_list_is_asked_for_in_pages_and_in_one_piece_if_that_took_too_long():
    one, two = configmap("x", 1), configmap("y", 2)
    outcome, requests = ask([listing(5, one, more="t"), listing(5, two)], lambda client: client.list("/a"))
    assert outcome == [one, two]
    outcome, requests = ask(
        [listing(5, one, more="t"), refusal(410, "Expired"), listing(9, two)],
        lambda client: client.list("/a", {"labelSelector": "b"}),
    )
    assert outcome == [two]
    assert dict(requests[2].query) == {"labelSelector": "b"}


@pytest.mark.parametrize(
    ("given", "status", "reason"),
    [
        (refusal(409, "Conflict"), 409, Reason.CONFLICT),
        (refusal(409, "AlreadyExists"), 409, Reason.ALREADY_EXISTS),
        (refusal(403, "Forbidden"), 403, Reason.FORBIDDEN),
        (refusal(410, "Expired"), 410, Reason.EXPIRED),
        (answer(b"no JSON", 503), 503, Reason.SERVICE_UNAVAILABLE),
        (answer(b"\xff", 418), 418, Reason.UNKNOWN),
        (refusal(422, "SomethingNew"), 422, Reason.INVALID),
        (answer([], 404), 404, Reason.NOT_FOUND),
        (answer(b"[]", 200), 0, Reason.UNREACHABLE),
        (answer(b"{", 200), 0, Reason.UNREACHABLE),
        (answer({}, 302), 302, Reason.UNKNOWN),
    ],
)
def test_failures_are_values(given, status, reason):
    error, _ = ask([given], lambda client: client.get("/a"))
    assert (error.status, error.reason) == (status, reason)
    assert str(reason) in str(error)


def test_what_may_succeed_later():
    def error(given):
        return ask([given], lambda client: client.get("/a"))[0]

    assert error(refusal(429, "TooManyRequests", retryAfterSeconds=3)).retry_after == 3
    assert error(refusal(429)).passing
    assert error(refusal(500)).passing
    assert error(refusal(410, "Gone")).gone
    assert not error(refusal(403)).passing
    assert not error(refusal(403)).gone


async def hang_up(request):
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize("script", [[hang_up, hang_up], [silence]])
def test_no_answer_is_an_error_too(script):
    error, _ = ask(script, lambda client: client.request("GET", "/a", seconds=0.2))
    assert (error.status, error.reason, error.passing) == (0, Reason.UNREACHABLE, True)
    assert "GET /a" in error.message


def test_nobody_there():
    async def main():
        async with FakeApi() as api:
            client = api.client()
        async with client:
            await client.get("/a")

    with pytest.raises(ApiError) as refused:
        asyncio.run(main())
    assert refused.value.reason is Reason.UNREACHABLE


def test_a_line_without_end_is_given_up(monkeypatch):
    monkeypatch.setattr(client_module, "MAX_LINE", 1000)

    async def read(client):
        return [line async for line in client.lines("/a", {}, silence=5)]

    error, _ = ask([answer(b"a\n" + b"b" * 1001)], read)
    assert "a line of more than 1000 bytes" in error.message
    assert ask([answer(b"a\n" + b"b" * 999 + b"\nc")], read)[0] == [b"a", b"b" * 999]


def test_a_token_file_is_read_again_after_a_minute_and_after_a_refusal(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(client_module.time, "monotonic", lambda: now[0])
    file = tmp_path / "token"
    file.write_text("one\n")
    sent = []

    async def note(request):
        sent.append(request.headers["Authorization"])
        return await (refusal(401) if len(sent) == 4 else answer({}))(request)

    async def asking(client):
        for text, seconds in (("one", 0), ("two", 59), ("two", 2), ("three", 0), ("three", 0)):
            file.write_text(text)
            now[0] += seconds
            try:
                await client.get("/a")
            except ApiError as error:
                assert error.reason is Reason.UNAUTHORIZED  # noqa: PT017

    ask([note] * 5, asking, token_file=file)
    assert sent == [f"Bearer {text}" for text in ("one", "one", "two", "two", "three")]


def test_a_token_file_that_is_gone_is_an_error(tmp_path):
    error, requests = ask([], lambda client: client.get("/a"), token_file=tmp_path / "token")
    assert error.reason is Reason.UNREACHABLE
    assert str(tmp_path) in error.message
    assert requests == []


AUTHORITY = Authority.root("cluster")


def tls_server(tmp_path, *names):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=AUTHORITY.issued.pem.decode())
    context.load_cert_chain(AUTHORITY.leaf(LeafShape(names)).write(tmp_path / "server.pem"))
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def credentials():
    issued = AUTHORITY.leaf(LeafShape(common_name="me", usage=ExtendedKeyUsageOID.CLIENT_AUTH))
    key = issued.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return {"certificate": issued.pem, "key": key}


@pytest.mark.parametrize(
    ("names", "access", "accepted"),
    [
        (("127.0.0.1",), {}, True),
        (("other.example",), {}, False),
        (("other.example",), {"server_name": "other.example"}, True),
        (("127.0.0.1",), {"authorities": Authority.root("another").issued.pem}, False),
        (("127.0.0.1",), {"authorities": None}, False),
        (("127.0.0.1",), {"certificate": None, "key": None}, False),
    ],
)
def test_both_sides_are_verified(tmp_path, names, access, accepted):
    async def main():
        async with FakeApi(answer({"a": 1}), tls=tls_server(tmp_path, *names)) as api:
            given = {"authorities": AUTHORITY.issued.pem, **credentials(), **access}
            async with api.client(**given) as client:
                return await client.get("/a")

    if accepted:
        assert asyncio.run(main()) == {"a": 1}
    else:
        with pytest.raises(ApiError) as refused:
            asyncio.run(main())
        assert refused.value.reason is Reason.UNREACHABLE


@pytest.mark.parametrize("access", [{"authorities": b"no"}, {**credentials(), "key": b"no"}])
def test_what_is_no_certificate_is_refused_before_anything_is_sent(access):
    with pytest.raises(KubeconfigError, match="https://a: the CA, or the client certificate"):
        Client(Access("https://a", **access))


def test_a_peer_that_is_gone_is_noticed():
    async def note(request):
        return web.json_response({})

    made = []

    async def main(monkeypatch):
        real = client_module._socket
        monkeypatch.setattr(client_module, "_socket", lambda address: made.append(real(address)) or made[-1])
        async with FakeApi(note) as api, api.client() as client:
            await client.get("/a")
            (connection,) = made
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15

    with pytest.MonkeyPatch.context() as monkeypatch:
        asyncio.run(main(monkeypatch))
