import asyncio
import datetime as dt
import gc
import socket

import pytest
from OpenSSL import SSL

from lab.edge import INTERCEPT
from lab.flow_bench import HOST, LAB, LEAF, echo, flows, lab_client, weir_client
from lab.loopback import Wire, client_context, hello_of, no_more_files, open_files, run, server_context
from lab.pki import Authority as Lab
from lab.pki import LeafShape
from weir_sidecar.contract.config import FailOpen, Limits, OnInvalidCertificate, SidecarConfig
from weir_sidecar.contract.flow import Decision, FlowError, Protocol, Reason
from weir_sidecar.core.verdict import FlowFacts, Verdict

TLS12, TLS13 = SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION
PASS = Verdict(Decision.PASSTHROUGH, Reason.RULE, "pass")
DENY = Verdict(Decision.DENY, Reason.RULE, "no")
DAY = dt.timedelta(days=1)


def deny_named(facts: FlowFacts) -> Verdict:
    return DENY if facts.protocol is not Protocol.TCP else INTERCEPT


async def dialogue(wire: Wire) -> str:
    """Says something and hears it back; returns who vouched for the server."""
    await wire.handshake()
    await wire.send(b"hello")
    assert await wire.recv() == b"hello"
    wire.end()
    assert await wire.recv() == b""
    wire.close()
    return wire.tls.get_peer_certificate(as_cryptography=True).issuer.rfc4514_string()


async def failed(wire: Wire) -> SSL.Error:
    with pytest.raises(SSL.Error) as failure:
        await wire.handshake()
    wire.close()
    return failure.value


@pytest.mark.parametrize("upstream", [TLS12, TLS13])
@pytest.mark.parametrize("client", [TLS12, TLS13, None])
def test_intercepts_and_mirrors_version_and_protocol(upstream: int, client: int | None) -> None:
    async def main() -> None:
        origin = server_context(LEAF, alpn=(b"echo", b"http/1.1"), version=upstream)
        async with flows(echo, origin) as bench:
            wire, flow = bench.flow(weir_client(version=client, alpn=(b"http/1.1", b"echo")))
            if client in {None, upstream}:
                assert "Weir" in await dialogue(wire)
                await flow
                (record,) = bench.records
                version = {TLS12: "1.2", TLS13: "1.3"}[upstream]
                assert (record.decision, record.reason, record.error) == (Decision.INTERCEPT, Reason.DEFAULT, None)
                assert (record.tls.client_version, record.tls.upstream_version) == (version, version)
                assert (record.alpn, record.host, record.sni) == ("echo", HOST, HOST)
                assert (record.bytes_up, record.bytes_down) == (5, 5)
                assert record.client.ja4.startswith("t13d" if client != TLS12 else "t12d")
            else:
                await failed(wire)
                await flow
                assert bench.records[0].tls is not None

    run(main)


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_a_client_that_distrusts_is_refused_once_and_then_passed_through(version: int) -> None:
    async def main() -> None:
        async with flows() as bench:
            wire, flow = bench.flow(lab_client(version=version))
            await failed(wire)
            await flow
            wire, flow = bench.flow(lab_client(version=version))
            assert "root of the flow tests" in await dialogue(wire)
            await flow
            lost, passed = bench.records
            assert (lost.decision, lost.error, lost.tls.client_alert) == (
                Decision.INTERCEPT, FlowError.CLIENT_TLS_FAILED, 48,
            )  # fmt: skip
            assert (passed.decision, passed.reason) == (Decision.PASSTHROUGH, Reason.CLIENT_DISTRUSTS_CA)
            assert passed.tls is None

    run(main)


def test_without_fail_open_distrust_stays_an_error() -> None:
    async def main() -> None:
        async with flows(fail_open=FailOpen(enabled=False)) as bench:
            for _ in range(3):
                wire, flow = bench.flow(lab_client())
                await failed(wire)
                await flow
            assert {record.decision for record in bench.records} == {Decision.INTERCEPT}

    run(main)


BAD = {
    "expired": (lambda: LAB.leaf(LeafShape((HOST,), not_before=-9 * DAY, not_after=-DAY)), 10),
    "wrong-host": (lambda: LAB.leaf(LeafShape(("b.test",))), 62),
    "cn-only": (lambda: LAB.leaf(LeafShape((), common_name=HOST)), 62),
    "unknown-root": (lambda: Lab.root("somebody").leaf(LeafShape((HOST,))), 20),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_a_bad_upstream_never_gets_a_trusted_leaf(kind: str, version: int) -> None:
    make, number = BAD[kind]

    async def main() -> None:
        async with flows(echo, server_context(make(), version=version)) as bench:
            wire, flow = bench.flow(weir_client())
            assert "alert" in str(await failed(wire))
            await flow
            (record,) = bench.records
            assert (record.decision, record.reason) == (Decision.DENY, Reason.UPSTREAM_CERTIFICATE_INVALID)
            assert (record.error, record.tls.verify_error) == (FlowError.UPSTREAM_CERTIFICATE_INVALID, number)

    run(main)


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_upstream_is_shown_to_the_client_where_the_policy_says_so(kind: str) -> None:
    async def main() -> None:
        issued = BAD[kind][0]()
        async with flows(echo, issued, on_invalid=OnInvalidCertificate.PASSTHROUGH) as bench:
            wire, flow = bench.flow(client_context(None))
            await wire.handshake()
            assert wire.tls.get_peer_certificate(as_cryptography=True) == issued.certificate
            wire.close()
            await flow
            (record,) = bench.records
            assert (record.decision, record.reason) == (Decision.PASSTHROUGH, Reason.UPSTREAM_CERTIFICATE_INVALID)

    run(main)


@pytest.mark.parametrize(("names", "good"), [(("127.0.0.1",), True), ((HOST,), True), (("127.0.0.2",), False)])
def test_without_sni_the_address_or_what_dns_said_must_be_named(names: tuple[str, ...], good: bool) -> None:
    async def main() -> None:
        async with flows(echo, LAB.leaf(LeafShape(names))) as bench:
            bench.surroundings.context.names.learn(HOST, ("127.0.0.1",), 600, asyncio.get_running_loop().time())
            wire, flow = bench.flow(weir_client(), sni=None)
            if good:
                assert "Weir" in await dialogue(wire)
            else:
                await failed(wire)
            await flow
            (record,) = bench.records
            assert (record.decision is Decision.INTERCEPT, record.sni) == (good, None)

    run(main)


@pytest.mark.parametrize("version", [TLS12, TLS13])
@pytest.mark.parametrize("mine", [True, False])
def test_a_request_for_client_certificates_is_passed_on_and_remembered_if_the_host_itself_asks(
    version: int, mine: bool
) -> None:
    async def main() -> None:
        origin = server_context(LEAF if mine else LAB.leaf(LeafShape(("evil.test",))), version=version)
        origin.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
        async with flows(echo, origin) as bench:
            wire, flow = bench.flow(lab_client())
            if version == TLS12 or not mine:
                await failed(wire)
            else:
                await wire.handshake()
                wire.close()
            await flow
            remembered = [entry.reason for entry in bench.cache.entries(0.0)]
            expected = Reason.CLIENT_CERTIFICATE_REQUESTED if mine else Reason.UPSTREAM_CERTIFICATE_INVALID
            assert bench.records[0].reason is expected
            assert remembered == ([Reason.CLIENT_CERTIFICATE_REQUESTED] if mine else [])

    run(main)


def test_an_upstream_that_fails_is_met_by_the_client_itself() -> None:
    async def refuse(wire: Wire) -> None:
        await wire.recv()
        await wire.send(b"\x15\x03\x03\x00\x02\x02\x28")
        wire.sock.shutdown(socket.SHUT_WR)
        await wire.recv()

    async def main() -> None:
        async with flows(refuse, None) as bench:
            wire, flow = bench.flow(weir_client())
            assert "handshake failure" in str(await failed(wire))
            await flow
            (record,) = bench.records
            assert (record.decision, record.reason) == (Decision.PASSTHROUGH, Reason.UPSTREAM_TLS_FAILED)
            assert bench.connections == 2

    run(main)


def test_a_plain_server_behind_a_tls_client_is_passed_through() -> None:
    async def banner(wire: Wire) -> None:
        await wire.recv()
        await wire.send(b"what?\r\n")

    async def main() -> None:
        async with flows(banner, None) as bench:
            wire, flow = bench.flow(weir_client())
            await failed(wire)
            await flow
            assert bench.records[0].reason is Reason.UPSTREAM_TLS_FAILED

    run(main)


def test_a_server_that_speaks_first_is_heard() -> None:
    async def banner(wire: Wire) -> None:
        await wire.send(b"220 hello\r\n")
        assert await wire.recv() == b"QUIT\r\n"
        wire.end()

    async def main() -> None:
        async with flows(banner, None, decide=lambda _: PASS) as bench:
            wire, flow = bench.flow()
            assert await wire.recv() == b"220 hello\r\n"
            await wire.send(b"QUIT\r\n")
            assert await wire.recv() == b""
            wire.close()
            await flow
            (record,) = bench.records
            assert (record.reason, record.protocol) == (Reason.SERVER_SPEAKS_FIRST, Protocol.TCP)
            assert (record.bytes_up, record.bytes_down) == (6, 11)

    run(main)


@pytest.mark.parametrize(
    ("data", "protocol"), [(b"EHLO x\r\n", Protocol.TCP), (b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", Protocol.HTTP)]
)
def test_other_protocols_are_relayed_unread(data: bytes, protocol: Protocol) -> None:
    async def main() -> None:
        async with flows(echo, None, decide=lambda _: PASS) as bench:
            wire, flow = bench.flow()
            await wire.send(data)
            wire.end()
            assert await wire.read_all() == data
            wire.close()
            await flow
            (record,) = bench.records
            assert (record.protocol, record.decision, record.rule) == (protocol, Decision.PASSTHROUGH, "pass")
            assert (record.bytes_up, record.bytes_down, record.error) == (len(data), len(data), None)

    run(main)


def test_denied_tls_is_told_with_an_alert() -> None:
    async def main() -> None:
        async with flows(decide=deny_named) as bench:
            wire, flow = bench.flow(weir_client())
            assert "access denied" in str(await failed(wire))
            await flow
            (record,) = bench.records
            assert (record.decision, record.rule, record.host) == (Decision.DENY, "no", HOST)

    run(main)


def test_denied_http_is_told_with_a_response() -> None:
    async def main() -> None:
        async with flows(decide=lambda _: DENY) as bench:
            wire, flow = bench.flow()
            await wire.send(b"POST / HTTP/1.1\r\nHost: a.test\r\n\r\n" + bytes(100_000))
            answer = await wire.read_all()
            assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
            assert b"Denied by policy: no\n" in answer
            wire.close()
            await flow
            assert bench.records[0].decision is Decision.DENY
            assert bench.connections == 0

    run(main)


def test_denied_bytes_are_told_with_a_reset() -> None:
    async def main() -> None:
        async with flows(decide=lambda _: DENY) as bench:
            wire, flow = bench.flow()
            await wire.send(b"EHLO x\r\n")
            with pytest.raises(ConnectionResetError):
                await wire.recv()
            wire.close()
            await flow
            assert bench.connections == 0

    run(main)


def test_silence_where_nothing_may_pass_is_denied_in_the_end() -> None:
    async def main() -> None:
        limits = SidecarConfig(limits=Limits(peek_timeout=0.05))
        async with flows(decide=lambda _: DENY, config=limits) as bench:
            wire, flow = bench.flow()
            with pytest.raises(ConnectionResetError):
                await wire.recv()
            wire.close()
            await flow
            assert bench.records[0].decision is Decision.DENY

    run(main)


@pytest.mark.parametrize("speaks", [b"", b"EHLO x\r\n", hello_of()[0]])
def test_a_refused_upstream_resets_the_client(speaks: bytes) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as gone:
            nobody = gone.getsockname()
        async with flows() as bench:
            wire, flow = bench.flow(destination=nobody)
            if speaks:
                await wire.send(speaks)
            with pytest.raises(ConnectionResetError):
                await wire.recv()
            wire.close()
            await flow
            assert bench.records[0].error is FlowError.UPSTREAM_REFUSED

    run(main)


@pytest.mark.parametrize("say", [b"", b"\x16\x03\x01"])
def test_a_client_that_resets_early_has_its_record(say: bytes) -> None:
    async def main() -> None:
        async with flows(echo, None) as bench:
            wire, flow = bench.flow()
            if say:
                await wire.send(say)
            await asyncio.sleep(0.01)
            wire.reset()
            await flow
            assert bench.records[0].error is FlowError.CLIENT_RESET

    run(main)


def test_a_handshake_that_stalls_is_ended() -> None:
    async def main() -> None:
        async with flows(handshake_timeout=0.1) as bench:
            wire, flow = bench.flow()
            await wire.send(hello_of(HOST)[0])
            await flow
            wire.close()
            (record,) = bench.records
            assert (record.decision, record.error) == (Decision.INTERCEPT, FlowError.CLIENT_TIMED_OUT)

    run(main)


def test_an_upstream_that_never_answers_a_hello_is_left_to_the_client() -> None:
    async def mute(wire: Wire) -> None:
        while await wire.recv():
            pass

    async def main() -> None:
        async with flows(mute, None, handshake_timeout=0.1) as bench:
            wire, flow = bench.flow()
            await wire.send(hello_of(HOST)[0])
            await asyncio.sleep(0.3)
            wire.end()
            assert await wire.read_all() == b""
            wire.close()
            await flow
            assert bench.records[0].reason is Reason.UPSTREAM_TLS_FAILED

    run(main)


@pytest.mark.parametrize("stage", ["peek", "relay", "tls-relay", "client-handshake", "canary"])
def test_stopping_ends_a_flow_with_a_reset_and_its_record(stage: str) -> None:
    async def main() -> None:
        async with flows(echo, LEAF if "tls" in stage or stage in {"canary", "client-handshake"} else None) as bench:
            wire, flow = bench.flow(weir_client() if stage in {"tls-relay", "canary"} else None)
            moved = 0
            if stage in {"canary", "client-handshake"}:
                await (wire.handshake() if stage == "canary" else wire.send(hello_of(HOST)[0]))
                await asyncio.sleep(0.05)
            if stage == "canary":
                held, flow = bench.flow()
                await held.send(hello_of(HOST)[0])
                wire.close()
                wire = held
                await asyncio.sleep(0.02)
            elif stage == "tls-relay":
                await wire.handshake()
                await wire.send(b"hello")
                assert await wire.recv() == b"hello"
                moved = 5
            elif stage == "relay":
                await wire.send(b"EHLO x\r\n")
                assert await wire.recv() == b"EHLO x\r\n"
                moved = 8
            await asyncio.sleep(0.01)
            flow.cancel()
            await flow
            wire.close()
            record = bench.records[-1]
            assert (record.error, record.bytes_up, record.bytes_down) == (FlowError.PROXY_STOPPING, moved, moved)
            assert len({id(record) for record in bench.records}) == len(bench.records)

    before = open_files()
    run(main)
    assert open_files() == before


def test_a_fault_of_our_own_is_a_record_too_and_is_not_hidden() -> None:
    def broken(_: FlowFacts) -> Verdict:
        raise ZeroDivisionError

    async def main() -> None:
        async with flows(decide=broken) as bench:
            wire, flow = bench.flow()
            await wire.send(b"EHLO x\r\n")
            with pytest.raises(ConnectionResetError):
                await wire.recv()
            with pytest.raises(ZeroDivisionError):
                await flow
            wire.close()
            assert [record.error for record in bench.records] == [FlowError.INTERNAL]

    run(main)


def test_without_descriptors_the_client_is_told_and_there_is_a_record() -> None:
    async def main() -> None:
        async with flows(echo, None) as bench:
            wire, flow = bench.flow()
            with no_more_files():
                await wire.send(b"EHLO x\r\n")
                with pytest.raises(ConnectionResetError):
                    await wire.recv()
                await flow
            wire.close()
            assert len(bench.records) == 1
            assert bench.records[0].error is not None

    run(main)


@pytest.mark.parametrize("trusts", [True, False])
def test_flows_leave_no_descriptors_and_no_garbage(trusts: bool) -> None:
    def alive() -> int:
        return sum(type(item).__name__ in {"TCPFlow", "Session", "TLSWay"} for item in gc.get_objects())

    async def main() -> int:
        async with flows(fail_open=FailOpen(enabled=False)) as bench:

            async def one() -> None:
                wire, flow = bench.flow(weir_client() if trusts else lab_client())
                await (dialogue(wire) if trusts else failed(wire))
                await flow

            await one()
            gc.collect()
            others = alive()
            gc.disable()
            try:
                for _ in range(5):
                    await one()
                return alive() - others
            finally:
                gc.enable()

    before = open_files()
    assert run(main) == 0
    assert open_files() == before


def test_a_burst_of_distrusting_clients_loses_one() -> None:
    async def main() -> None:
        async with flows() as bench:

            async def attempt() -> bool:
                wire, flow = bench.flow(lab_client())
                try:
                    await dialogue(wire)
                except SSL.Error:
                    return False
                else:
                    return True
                finally:
                    wire.close()
                    await flow

            results = await asyncio.gather(*(attempt() for _ in range(50)))
            assert results.count(False) <= 2
            assert len(bench.records) == 50

    run(main)


def test_a_dead_upstream_does_not_hold_up_flows_to_others() -> None:
    """A canary is sent out only when its upstream is there."""

    async def main() -> None:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            await asyncio.sleep(0.05)
            async with flows() as bench:
                stuck, waiting = bench.flow(destination=full.getsockname())
                await stuck.send(hello_of(HOST)[0])
                await asyncio.sleep(0.05)
                wire, flow = bench.flow(weir_client())
                async with asyncio.timeout(0.8):
                    await dialogue(wire)
                    await flow
                waiting.cancel()
                stuck.close()
            for filler in fillers:
                filler.close()

    run(main)
