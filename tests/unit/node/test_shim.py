"""The CNI plugin's program: what it sends, what it prints, and what it makes of an agent that is away or talks nonsense."""

import json
import socket
import struct
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.shim import COMPILER, SANITIZED, FakeAgent, Shim

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc) is here to compile cni/shim.c")
CONF = b'{"cniVersion": "1.0.0", "name": "net", "type": "weir-cni"}'
MEBIBYTE = 1024 * 1024


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Shim:
    return Shim(tmp_path_factory.mktemp("shim"), SANITIZED, seconds=1)


def answer(status: int, text: bytes) -> bytes:
    return struct.pack("!II", status, len(text)) + text


def _program_headers(elf: bytes) -> list[int]:
    """The types of a 64-bit little-endian file's program headers: elf(5)."""
    (start,), (size, count) = struct.unpack_from("<Q", elf, 32), struct.unpack_from("<HH", elf, 54)
    return [struct.unpack_from("<I", elf, start + number * size)[0] for number in range(count)]


def test_is_static_and_has_no_warnings(tmp_path: Path) -> None:
    made = Shim(tmp_path)
    dynamic, interpreter = 2, 3
    assert not {dynamic, interpreter} & set(_program_headers(made.path.read_bytes()))
    assert made(CONF, {"CNI_COMMAND": "VERSION"}).returncode == 0


def test_forwards_what_is_cnis_and_prints_the_answer(shim: Shim) -> None:
    before = time.monotonic_ns()
    with FakeAgent(shim.agent, answer(7, b'{"said": "this"}')) as agent:
        done = shim(CONF, {"CNI_COMMAND": "ADD", "CNI_IFNAME": "eth0", "SECRET": "x", "XCNI_A": "y"})
    assert (done.returncode, done.stdout, done.stderr) == (7, b'{"said": "this"}', b"")
    (asked,) = agent.asked
    length = int.from_bytes(asked[:4])
    began, *entries = asked[4 : 4 + length].split(b"\0")
    assert set(entries) == {b"CNI_COMMAND=ADD", b"CNI_IFNAME=eth0", b""}
    assert before < int(began.removeprefix(b"WEIR_BEGAN=")) < time.monotonic_ns()
    rest = asked[4 + length :]
    assert rest == struct.pack("!I", len(CONF)) + CONF


@pytest.mark.parametrize(("command", "code"), [("ADD", 11), ("CHECK", 11), ("GC", 11), ("STATUS", 50)])
@pytest.mark.parametrize("stale", [False, True])
def test_without_an_agent_the_runtime_is_told_to_try_again(shim: Shim, command: str, code: int, *, stale: bool) -> None:
    if stale:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(shim.agent))
    done = shim(CONF, {"CNI_COMMAND": command})
    shim.agent.unlink(missing_ok=True)
    said = json.loads(done.stdout)
    assert (done.returncode, said["code"], said["cniVersion"]) == (1, code, "1.0.0")
    assert "weir-node" in said["msg"]


def test_a_pod_that_starts_waits_for_an_agent_that_restarts(tmp_path: Path) -> None:
    patient = Shim(tmp_path, SANITIZED, seconds=60, away=50)
    starting = patient.start(CONF, {"CNI_COMMAND": "ADD"})
    with socket.socket(socket.AF_UNIX) as ending:
        ending.bind(str(patient.agent))
        ending.listen(8)
        ending.accept()[0].close()  # it has begun to ask; this one takes the request, and ends without an answer
    patient.agent.unlink()
    assert json.loads(patient(CONF, {"CNI_COMMAND": "STATUS"}).stdout)["code"] == 50  # only ADD waits
    with FakeAgent(patient.agent, answer(0, b"{}")):
        assert starting.communicate(timeout=30) == (b"{}", None)
    assert starting.returncode == 0


def test_without_an_agent_a_pod_can_be_taken_down(shim: Shim) -> None:
    done = shim(CONF, {"CNI_COMMAND": "DEL"})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("given_answer", [b"", b"\0\0", answer(0, b"12345")[:-1]])
def test_an_agent_that_ends_early_is_one_that_is_away(shim: Shim, given_answer: bytes) -> None:
    with FakeAgent(shim.agent, given_answer):
        done = shim(CONF, {"CNI_COMMAND": "ADD"})
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, 11)


@pytest.mark.parametrize("head", [struct.pack("!II", 0, MEBIBYTE + 1), struct.pack("!II", 126, 0), b"\xff" * 8])
def test_an_answer_that_is_none_is_an_error(shim: Shim, head: bytes) -> None:
    with FakeAgent(shim.agent, head):
        done = shim(CONF, {"CNI_COMMAND": "ADD"})
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, 6)


def test_an_agent_that_hangs_is_waited_for_so_long_and_no_longer(shim: Shim) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(shim.agent))
        silent.listen(1)
        done = shim(CONF, {"CNI_COMMAND": "ADD"})
    shim.agent.unlink()
    said = json.loads(done.stdout)
    assert (done.returncode, said["code"], "in time" in said["msg"]) == (1, 11, True)


def test_version_needs_no_agent_and_answers_in_the_version_asked(shim: Shim) -> None:
    said = json.loads(shim(b'{"cniVersion":"0.4.0"}', {"CNI_COMMAND": "VERSION"}).stdout)
    assert said["cniVersion"] == "0.4.0"
    assert {"1.0.0", "1.1.0"} <= set(said["supportedVersions"])


def test_what_no_runtime_sends_is_refused(shim: Shim) -> None:
    no_command = shim(CONF, {})
    assert (no_command.returncode, json.loads(no_command.stdout)["code"]) == (1, 4)
    long_input = shim(b" " * (MEBIBYTE + 1), {"CNI_COMMAND": "ADD"})
    assert (long_input.returncode, json.loads(long_input.stdout)["code"]) == (1, 6)


def test_the_longest_input_passes(shim: Shim) -> None:
    with FakeAgent(shim.agent, answer(0, b" " * MEBIBYTE)) as agent:
        done = shim(b" " * MEBIBYTE, {"CNI_COMMAND": "ADD"})
    assert (done.returncode, len(done.stdout)) == (0, MEBIBYTE)
    assert agent.asked[0].endswith(b"\0\x10\0\0" + b" " * MEBIBYTE)


_VERSION_LIKE = st.lists(
    st.sampled_from([b'"cniVersion"', b":", b" ", b'"', b"1.0.0", b".", b"9" * 20, b"\0", b"{", b"\xff", b"x"])
).map(b"".join)
_TEXT = st.binary(max_size=64).map(lambda data: data.replace(b"\0", b""))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stdin=_VERSION_LIKE | st.binary(max_size=4096), command=st.sampled_from([b"ADD", b"STATUS", b"VERSION"]) | _TEXT)
def test_whatever_comes_in_an_answer_that_is_json_goes_out(shim: Shim, stdin: bytes, command: bytes) -> None:
    done = shim(stdin, {"CNI_COMMAND": command})
    assert done.stderr == b""  # where the sanitizers speak
    assert done.returncode in {0, 1}
    if command != b"DEL":
        assert set(json.loads(done.stdout)) >= {"cniVersion"}
