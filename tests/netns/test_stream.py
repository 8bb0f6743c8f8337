"""A pod's sidecar and its control plane, with the real rules: what comes by the stream counts, and nothing disturbs flows."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from lab.pki import Authority
from netns.capture_lab import Pod
from netns.pod_sidecar import TOKEN_GROUP, PodSidecar, eventually
from weir_sidecar.contract.config import Action, FailureMode
from weir_sidecar.contract.stream import Exceptions, NewConfig
from weir_sidecar.contract.trust import Said, Told, Word

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]


@pytest.fixture(scope="module")
def namespaces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    with Pod(tmp_path_factory.mktemp("stream"), f"wsc{os.getpid()}") as made:
        yield made


@pytest.fixture
def sidecar(namespaces: Pod) -> Iterator[PodSidecar]:
    with PodSidecar(namespaces) as made:
        yield made


def took(began: float) -> str:
    return f"{(time.monotonic() - began) * 1000:.0f} ms"


def test_it_runs_as_the_proxy_with_two_capabilities_and_the_tokens_group(sidecar: PodSidecar) -> None:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{sidecar.pid}/status").read_text().splitlines())
    assert status["Uid"].split() == ["15801"] * 4
    assert status["Groups"].split() == [str(TOKEN_GROUP)]
    assert int(status["CapEff"], 16) == 1 << 13 | 1 << 10
    assert sidecar.control.wait_told("hello")["revision"] == "first"


@pytest.mark.parametrize("mode", FailureMode)
def test_probes_from_outside_are_answered_while_everything_is_captured(namespaces: Pod, mode: FailureMode) -> None:
    with PodSidecar(namespaces, failure_mode=mode) as sidecar:
        for version in (4, 6):
            assert [sidecar.probe(path, version) for path in ("/healthz", "/readyz", "/metrics")] == [200] * 3
            assert [sidecar.probe(path, version) for path in ("/config", "/trust", "/flows")] == [404] * 3
        assert sidecar.issuer() == "weir"


def test_a_new_config_counts_for_the_next_connection_and_for_the_next_start(
    sidecar: PodSidecar, note: list[str]
) -> None:
    assert sidecar.issuer() == "weir"
    sidecar.control.wait_told("hello")
    new = msgspec.structs.replace(
        sidecar.config, revision="second", default_action=Action.PASSTHROUGH, failure_mode=FailureMode.CLOSED
    )
    began = time.monotonic()
    sidecar.control.send(NewConfig(new))
    applied = sidecar.control.wait_told("applied")
    eventually(lambda: sidecar.issuer() == "origin")
    note.append(f"a new config counts after {took(began)}")
    assert applied == {"type": "applied", "revision": "second", "problem": None, "afterRestart": ["failureMode"]}

    sidecar.stop(signal.SIGKILL)
    sidecar.start()
    hello = sidecar.control.wait_told("hello", 2)
    assert (hello["revision"], hello["kernelRevision"]) == ("second", "first")
    assert sidecar.issuer() == "origin"


def test_a_bad_config_leaves_the_last_good_one(sidecar: PodSidecar) -> None:
    sidecar.control.wait_told("hello")
    new = msgspec.to_builtins(sidecar.config) | {"revision": "bad", "defaultAction": "Nonsense"}
    sidecar.control.send(msgspec.json.encode({"type": "config", "config": new}) + b"\n")
    assert "defaultAction" in sidecar.control.wait_told("applied")["problem"]
    assert sidecar.issuer() == "weir"


def test_a_control_plane_that_breaks_and_comes_back_disturbs_no_flow(sidecar: PodSidecar, note: list[str]) -> None:
    sidecar.control.wait_told("hello")
    with sidecar.connect() as tls:

        def exchange() -> None:
            data = os.urandom(1 << 18)
            tls.sendall(data[: 1 << 16])
            got = b""
            while len(got) < 1 << 16:
                got += tls.recv(65536)
            assert got == data[: 1 << 16]

        exchange()
        sidecar.control.cut()
        exchange()
        sidecar.control.wait_told("hello", 2)
        sidecar.control.__exit__()
        for _ in range(20):
            exchange()
        assert sidecar.issuer() == "weir"
        began = time.monotonic()
        sidecar.control = sidecar.control_plane().__enter__()
        sidecar.control.wait_told("hello")
        note.append(f"the stream is back {took(began)} after its server")
        exchange()
    eventually(lambda: len(sidecar.records) == 2)  # they come at the ends of their flows, on standard output
    assert {record["decision"] for record in sidecar.records} == {"intercept"}


def test_strangers_are_not_believed(sidecar: PodSidecar) -> None:
    denied = NewConfig(msgspec.structs.replace(sidecar.config, revision="evil", default_action=Action.DENY))
    for name, authority in (("10.77.0.1", Authority.root("stranger")), ("other.test", sidecar.control_ca)):
        sidecar.control.__exit__()
        sidecar.control = sidecar.control_plane(name, authority)
        sidecar.control.greeting = [denied]
        sidecar.control.__enter__()
        eventually(lambda: "it is not who it should be" in sidecar.log)
        time.sleep(1)  # attempts follow, of which the log tells no more
        assert sidecar.control.requests == []
    assert sidecar.issuer() == "weir"


def test_what_one_pod_learned_saves_the_next_its_first_connection(sidecar: PodSidecar) -> None:
    """And it is not told back: only what a pod saw itself is."""
    sidecar.control.wait_told("trust")
    assert sidecar.issuer(distrust=True) == "SSLCertVerificationError"
    told = eventually(
        lambda: [e for m in sidecar.control.all_told("trust") for e in m["entries"] if e["state"] == "bypassed"]
    )
    learned = msgspec.convert(told[0], Told)
    assert (learned.host, learned.alert) == ("origin.test", 48)

    sidecar.stop()
    sidecar.make_directories()  # another pod of the workload
    sidecar.control.greeting = [Exceptions(learned=(learned,))]
    count = len(sidecar.control.told)
    sidecar.start()
    eventually(lambda: sidecar.metric('weir_trust_entries{state="bypassed"}') == 1)
    assert sidecar.issuer(distrust=True) == "origin"
    eventually(lambda: sidecar.records[-1]["reason"] == "client_distrusts_ca")
    assert [e for m in sidecar.control.told[count:] for e in m.get("entries", ())] == []


def test_pin_and_approve_act_at_once(sidecar: PodSidecar, note: list[str]) -> None:
    sidecar.control.wait_told("hello")
    for word, issuer in ((Word.PIN, "origin"), (Word.APPROVE, "weir"), (None, "weir"), (Word.PIN, "origin")):
        began = time.monotonic()
        sidecar.control.send(Exceptions(said=() if word is None else (Said("origin.test", word),)))
        eventually(lambda issuer=issuer: sidecar.issuer() == issuer)
        note.append(f"{word} acts after {took(began)}")
    sidecar.control.__exit__()
    eventually(lambda: "pinned" in sidecar.trust_file())
    sidecar.stop(signal.SIGKILL)
    sidecar.start()
    assert sidecar.issuer() == "origin"  # words are kept while there is nobody to say them again
    sidecar.control = sidecar.control_plane()
    sidecar.control.greeting = [Exceptions()]
    sidecar.control.__enter__()
    eventually(lambda: sidecar.issuer() == "weir")


def test_a_restart_finds_what_a_killed_one_left(sidecar: PodSidecar) -> None:
    assert sidecar.issuer() == "weir"
    authority = (sidecar.directory / "pod" / "run" / "ca.crt").read_bytes()
    for _ in range(2):
        sidecar.stop(signal.SIGKILL)
        sidecar.start()
        assert sidecar.issuer() == "weir"
    assert (sidecar.directory / "pod" / "run" / "ca.crt").read_bytes() == authority


def test_without_a_control_plane_a_pod_starts_and_works(sidecar: PodSidecar) -> None:
    sidecar.control.__exit__()
    sidecar.stop()
    sidecar.make_directories()
    sidecar.start()
    assert sidecar.issuer() == "weir"
    assert "it cannot be reached" in eventually(lambda: sidecar.log)
    sidecar.control = sidecar.control_plane().__enter__()


def test_idle_memory(sidecar: PodSidecar, note: list[str]) -> None:
    sidecar.control.wait_told("trust")
    time.sleep(1)
    rollup = Path(f"/proc/{sidecar.pid}/smaps_rollup").read_text()
    facts = dict(line.split(":", 1) for line in rollup.splitlines()[1:])
    note.append("idle, stream open: " + ", ".join(f"{n} {facts[n].strip()}" for n in ("Rss", "Pss", "Private_Dirty")))
