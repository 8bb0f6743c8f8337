"""What the agent asks the API server, over a connection that it keeps as long as that is good."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from lab.node_agent import Pods
from weir_sidecar.contract.config import Setup, SidecarConfig
from weir_sidecar.node import pods
from weir_sidecar.node.cni import CNIError, Sandbox
from weir_sidecar.node.pods import PodReader

SANDBOX = Sandbox("shop", "web-1", "u-1")
OWNER = "/apis/apps/v1/namespaces/weir-system/daemonsets/weir-node"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Pods]:
    served = Pods(tmp_path)
    served.add("shop/web-1", SidecarConfig(setup=Setup.CNI))
    yield served
    served.close()


@pytest.fixture
def read_by() -> Iterator[Callable[[int, Path], PodReader]]:
    made: list[PodReader] = []

    def make(port: int, account: Path) -> PodReader:
        made.append(PodReader("127.0.0.1", port, str(account)))
        return made[-1]

    yield make
    for reader in made:
        if reader._connection is not None:
            reader._connection.close()


@contextmanager
def counting(port: int) -> Iterator[tuple[int, list[socket.socket]]]:
    """A port before another one, and the connections that were made through it."""
    made: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                server = socket.create_connection(("127.0.0.1", port))
                made.extend((client, server))
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=_copy, args=(one, other), daemon=True).start()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1], made
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for one in made:
                one.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


def test_a_connection_is_kept_and_made_anew_when_the_server_has_ended_it(
    api: Pods, read_by: Callable[[int, Path], PodReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    with counting(api.port) as (port, made):
        reader = read_by(port, api.account)
        for _ in range(3):
            assert b"web" in reader.read(SANDBOX)
        assert len(made) == 2
        for one in made:
            with suppress(OSError):  # the other end's thread may have been faster
                one.shutdown(socket.SHUT_RDWR)
        assert b"web" in reader.read(SANDBOX)
        assert len(made) == 4
        monkeypatch.setattr(pods, "_KEEP_SECONDS", 0)  # it was idle for too long
        assert b"web" in reader.read(SANDBOX)
        assert len(made) == 6


def test_the_token_is_read_each_time(api: Pods, read_by: Callable[[int, Path], PodReader]) -> None:
    reader = read_by(api.port, api.account)
    reader.read(SANDBOX)
    (api.account / "token").write_text("another\n")
    reader.read(SANDBOX)
    assert api.authorized == ["Bearer the.agents.token", "Bearer another"]


def test_whether_the_daemonset_is_gone_may_be_unknown(api: Pods, read_by: Callable[[int, Path], PodReader]) -> None:
    assert read_by(api.port, api.account).is_gone(OWNER) is True
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    nobody = read_by(port, api.account)
    assert nobody.is_gone(OWNER) is None
    with pytest.raises(CNIError, match="does not answer"):
        nobody.read(SANDBOX)
