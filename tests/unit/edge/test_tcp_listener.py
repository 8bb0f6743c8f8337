import asyncio
import socket

import pytest

from lab.dns_server import until
from lab.edge import Surroundings
from lab.loopback import PATIENCE, no_more_files, open_files, run
from weir_sidecar.contract.config import Capture, CaptureMode, Limits, Ports, SidecarConfig
from weir_sidecar.contract.flow import Decision, Reason
from weir_sidecar.edge.tcp_listener import TCPListeners


class Bench:
    """Listeners of one family without capture: what is accepted was meant for the listener's own address."""

    def __init__(self, flows: int = 100, own_port: bool = False) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.listener.setblocking(False)
        self.address = self.listener.getsockname()
        port = self.address[1] if own_port else 15801
        config = SidecarConfig(
            limits=Limits(flows=flows), ports=Ports(tcp=port), capture=Capture(mode=CaptureMode.TPROXY)
        )
        self.surroundings = Surroundings(config)
        self.started: list[socket.socket] = []
        self.cancelled = 0
        loop = asyncio.get_running_loop()
        self.listeners = TCPListeners(loop, self.surroundings.context, None, self._flow, None)
        self.listeners.serve(self.listener)

    async def _flow(self, client: socket.socket, peer, destination, _dial) -> None:
        assert destination == self.address
        assert peer[0] == "127.0.0.1"
        assert not client.getblocking()
        self.started.append(client)
        try:
            await asyncio.get_running_loop().sock_recv(client, 1)
        except asyncio.CancelledError:
            self.cancelled += 1
        finally:
            client.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=PATIENCE)

    async def until(self, count: int) -> None:
        await until(lambda: len(self.started) >= count)


def test_every_connection_is_started_once() -> None:
    async def main() -> None:
        bench = Bench(flows=1000)
        clients = [bench.connect() for _ in range(200)]
        await bench.until(200)
        assert bench.listeners.open_flows == 200
        for client in clients:
            client.close()
        await until(lambda: not bench.listeners.open_flows)
        bench.listeners.close()
        with pytest.raises(ConnectionRefusedError):
            bench.connect()
        assert bench.surroundings.records == []

    before = open_files()
    run(main)
    assert open_files() == before


def test_one_too_many_is_reset_and_recorded() -> None:
    async def main() -> None:
        bench = Bench(flows=1)
        first = bench.connect()
        await bench.until(1)
        second = bench.connect()
        second.setblocking(False)
        with pytest.raises(ConnectionResetError):
            await asyncio.get_running_loop().sock_recv(second, 1)
        (record,) = bench.surroundings.records
        assert (record.decision, record.reason) == (Decision.DENY, Reason.OVERLOADED)
        assert (record.client.uid, record.address, record.port) == (1000, *bench.address)
        first.close()
        second.close()
        bench.listeners.close()
        await bench.listeners.drain(1)

    run(main)


def test_the_proxys_own_port_is_refused() -> None:
    async def main() -> None:
        bench = Bench(own_port=True)
        client = bench.connect()
        client.setblocking(False)
        with pytest.raises(ConnectionResetError):
            await asyncio.get_running_loop().sock_recv(client, 1)
        (record,) = bench.surroundings.records
        assert (record.decision, record.reason) == (Decision.DENY, Reason.DIRECT_TO_PROXY)
        client.close()
        bench.listeners.close()

    run(main)


def test_without_descriptors_the_backlog_waits() -> None:
    async def main() -> None:
        bench = Bench()
        client = socket.socket()
        client.setblocking(False)
        connected = asyncio.ensure_future(asyncio.get_running_loop().sock_connect(client, bench.address))
        with no_more_files():
            await connected
            await asyncio.sleep(0.05)
            assert not bench.started
        await bench.until(1)
        client.close()
        bench.listeners.close()
        await bench.listeners.drain(1)

    run(main)


def test_draining_waits_and_then_ends_what_is_left() -> None:
    async def main() -> None:
        bench = Bench()
        soon, late = bench.connect(), bench.connect()
        await bench.until(2)
        bench.listeners.close()
        soon.close()
        await bench.listeners.drain(0.05)
        assert bench.cancelled == 1
        assert bench.listeners.open_flows == 0
        late.close()

    run(main)
