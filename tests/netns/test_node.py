"""CNI mode on the real kernel: the real plugin asks the real agent, which captures a pod, and its sidecar has no capability."""

import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from lab.node_agent import PREVIOUS, WORKERS, Node
from lab.shim import COMPILER
from netns.capture_lab import FAMILY, FAR, Pod, acting_as, inside
from netns.pod_sidecar import PodSidecar, eventually
from weir_sidecar.contract import handover
from weir_sidecar.contract.config import FailureMode, Setup, SidecarConfig
from weir_sidecar.edge import handed_over
from weir_sidecar.edge.rules_answer import has_rules
from weir_sidecar.netsetup import capture

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc) is here to compile cni/shim.c"),
]
NAME = f"wn{os.getpid()}"
HOME = str(Path("/proc/self/ns/net").readlink())
CNI = SidecarConfig(setup=Setup.CNI)
PROXY = 15801
KEY, OTHER = bytes(32), bytes(range(32))


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with tempfile.TemporaryDirectory(prefix="wn-", dir="/tmp") as directory, Node(Path(directory)) as made:
        yield made


@pytest.fixture
def netns(node: Node) -> Iterator[str]:
    """An empty pod's namespace, as a path; the pods and records of the test before are gone."""
    node.api.pods.clear()
    subprocess.run(["ip", "netns", "add", NAME], check=True)
    yield f"/run/netns/{NAME}"
    subprocess.run(["ip", "netns", "del", NAME], capture_output=True, check=False)
    for container in node.records():
        assert node.ask("DEL", container=container).returncode == 0


def error(done: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    assert done.returncode == 1
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["cniVersion"] == "1.0.0"
    return said


def missing(config: SidecarConfig) -> tuple[str, ...]:
    with inside(NAME):
        return capture.check(config)


def is_handed_over() -> bool:
    """Whether somebody listens in the pod's namespace."""
    with inside(NAME):
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with probe:
        return probe.connect_ex(handover.ADDRESS) == 0


def test_captures_a_pod_and_leaves_the_result_as_it_was(node: Node, netns: str) -> None:
    node.api.add("shop/web-1", CNI)
    for _ in ("once", "twice"):
        done = node.ask("ADD", netns)
        assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, PREVIOUS, b"")
        assert missing(CNI) == ()
        eventually(is_handed_over)
    assert node.api.authorized[-1] == "Bearer the.agents.token"
    assert node.records() == {"c1"}
    assert node.ask("CHECK", netns).returncode == 0


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_the_result_goes_on_as_it_came(node: Node, netns: str, version: str) -> None:
    """Whatever is in it: a later specification's fields, spaces, escapes, numbers that no float holds."""
    result = (
        f'{{"cniVersion" : "{version}", "interfaces":[ {{"name":"eth0","mtu":1500,"socketPath":"","pciID":""}}],'
        '"ips":[{"address":"10.77.0.2\\/24","interface":0}],"x.example\\u002fnew":[1e400,12345678901234567890,1.10,null] }'
    )
    stdin = f'{{"cniVersion":"{version}","name":"n\\u00e4t","type":"weir-cni", "prevResult" : {result}}}'.encode()
    node.api.add("shop/web-1", CNI)
    for _ in range(2):
        done = node.ask("ADD", netns, stdin=stdin)
        assert (done.returncode, done.stdout.decode(), done.stderr) == (0, result, b"")
    assert node.ask("CHECK", netns, stdin=stdin).returncode == 0
    assert (node.ask("DEL", netns, stdin=stdin).returncode, node.records()) == (0, set())


@pytest.mark.parametrize(
    ("stdin", "code"),
    [
        (b"", 6),
        (b"{", 6),
        (b"[]", 6),
        (b"\xff\xfe", 6),
        (b"[" * 200_000, 6),
        (b'{"cniVersion":"1.0.0","prevResult":' + b'{"a":' * 150_000, 6),
        (b'{"cniVersion":1}', 6),
        (b'{"cniVersion":"1.0.0","prevResult":{},"pad":"' + b"x" * (1 << 20) + b'"}', 6),
        (b'{"cniVersion":"9.9.9","prevResult":{}}', 1),
        (b"{}", 7),
        (b'{"cniVersion":"1.0.0"}', 7),
        (b'{"cniVersion":"1.0.0","prevResult":null}', 6),
    ],
)
def test_malformed_input_is_answered_and_the_agent_goes_on(node: Node, netns: str, stdin: bytes, code: int) -> None:
    node.api.add("shop/web-1", CNI)
    before = node.children()
    done = node.ask("ADD", netns, stdin=stdin)
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, code)
    assert node.records() == set()
    assert node.children() == before
    assert node.ask("ADD", netns).returncode == 0


def test_many_pods_at_once_queue_and_are_all_captured(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    count = 100
    names = [f"{NAME}-{number}" for number in range(count)]
    batch("netns add", names)
    try:
        for name in names:
            node.api.add(f"shop/{name}", CNI)
        before = counted(node)
        whole = {"cniVersion": "1.0.0", "name": "net", "type": "weir-cni", "prevResult": PREVIOUS}
        running = [
            node.shim.start(
                json.dumps(whole).encode(), node.environment("ADD", f"/run/netns/{name}", name, f"shop/{name}")
            )
            for name in names
        ]
        answers = [(one.communicate(timeout=60)[0], one.returncode) for one in running]
        assert answers == [(json.dumps(PREVIOUS).encode(), 0)] * count
        assert node.records() == set(names)
        eventually(lambda: counted(node)["pods"] - before["pods"] == count)
        added = {what: number - before[what] for what, number in counted(node).items()}
        assert added == dict.fromkeys(("ADD", "queue", "pod", "rules", "pods"), count)
        for name in names[::20]:
            with inside(name):
                assert capture.check(CNI) == ()
    finally:
        batch("netns del", names)
        for container in node.records():
            node.ask("DEL", container=container)
    with capsys.disabled():
        print(f"\n{count} ADDs at once: {timing(node.log, count)}")


def batch(command: str, names: list[str]) -> None:
    subprocess.run(["ip", "-batch", "-"], input="".join(f"{command} {name}\n" for name in names), text=True, check=True)


_COUNT = re.compile(r'^(?:weir_cni_(?:request|phase)_seconds_count{\w+="(\w+)"}|weir_node_(pods)) (\d+)$', re.MULTILINE)


def counted(node: Node) -> dict[str, int]:
    status, text = node.page("/metrics")
    assert status == 200
    found = {one or other: int(number) for one, other, number in _COUNT.findall(text)}
    return {name: found[name] for name in ("ADD", "queue", "pod", "rules", "pods")}


def timing(log: str, count: int) -> str:
    rows = [list(map(int, row)) for row in re.findall(r" in (\d+) ms: queue (\d+), pod (\d+), rules (\d+)", log)]
    columns = [sorted(column) for column in zip(*rows[-count:], strict=True)]
    words = ("whole", "queue", "API server", "rules")
    return "; ".join(
        f"{word} p50 {times[count // 2]} p99 {times[int(count * 0.99)]} max {times[-1]} ms"
        for word, times in zip(words, columns, strict=True)
    )


def test_workers_keep_nothing_of_a_pod_and_are_started_anew(node: Node, netns: str) -> None:
    node.api.add("shop/web-1", CNI)
    for _ in range(2 * WORKERS):
        assert node.ask("ADD", netns).returncode == 0
    eventually(lambda: [namespaces_of(one) for one in node.children()] == [{HOME}] * 5)
    before = node.children()
    for worker in before:
        os.kill(worker, signal.SIGKILL)
    # Who asks meanwhile waits.
    assert node.ask("ADD", netns).returncode == 0
    eventually(lambda: len(set(node.children()) - set(before)) == len(before))
    eventually(lambda: node.page("/readyz")[0] == 200)
    assert [namespaces_of(one) for one in node.children()] == [{HOME}] * 5


def test_workers_run_first_where_the_kernel_lets_them(node: Node) -> None:
    allowed = subprocess.run(["chrt", "--rr", "1", "true"], capture_output=True, check=False).returncode == 0
    workers = [one for one in node.children() if capabilities(one)["CapEff"]]
    policy = os.SCHED_RR | os.SCHED_RESET_ON_FORK if allowed else os.SCHED_OTHER
    eventually(lambda: {os.sched_getscheduler(one) for one in workers} == {policy})
    assert ("no real-time priority" in node.log) is not allowed
    assert {os.sched_getscheduler(one) for one in set(node.children()) - set(workers)} == {os.SCHED_OTHER}


def namespaces_of(pid: int) -> set[str]:
    """The network namespaces that a process is in or could go to."""
    links = [Path(f"/proc/{pid}/ns/net"), *Path(f"/proc/{pid}/fd").iterdir()]
    found = set()
    for link in links:
        with suppress(FileNotFoundError):
            found.add(str(link.readlink()))
    return {one for one in found if one.startswith("net:")}


def test_the_agent_is_probed_by_asking_it(node: Node, netns: str) -> None:
    assert [node.page(path)[0] for path in ("/healthz", "/readyz", "/metrics", "/other")] == [200, 200, 200, 404]
    workers = [one for one in node.children() if any(capabilities(one)[name] for name in ("CapEff", "CapPrm"))]
    assert (len(workers), len(node.children())) == (WORKERS, WORKERS + 1)  # the one that listens has no capability
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    try:
        assert node.page("/healthz") == (200, "ok\n")  # a restart would not cure a slow API server, which looks alike
        assert node.page("/readyz")[0] == 503
    finally:
        for worker in workers:
            os.kill(worker, signal.SIGCONT)
    eventually(lambda: node.page("/readyz")[0] == 200)


def test_only_the_proxys_user_finds_that_rules_are_there(node: Node, netns: str) -> None:
    def found(uid: int) -> bool:
        with inside(NAME), acting_as(uid):
            return has_rules(CNI)

    assert not found(PROXY)
    node.api.add("shop/web-1", CNI)
    assert node.ask("ADD", netns).returncode == 0
    assert (found(PROXY), found(0), found(1000)) == (True, False, False)


@pytest.mark.parametrize("config", [None, SidecarConfig()], ids=["not captured", "sets itself up"])
def test_other_pods_are_left_alone(node: Node, netns: str, config: SidecarConfig | None) -> None:
    node.api.add("shop/web-1", config)
    done = node.ask("ADD", netns)
    assert (done.returncode, json.loads(done.stdout)) == (0, PREVIOUS)
    assert node.records() == set()
    assert missing(SidecarConfig()) != ()
    assert node.ask("CHECK", netns).returncode == 0
    assert node.ask("DEL", netns).returncode == 0


def test_del_without_add_and_with_the_namespace_gone(node: Node, netns: str) -> None:
    assert node.ask("DEL", netns, container="never-added").returncode == 0
    node.api.add("shop/web-1", CNI)
    assert node.ask("ADD", netns).returncode == 0
    subprocess.run(["ip", "netns", "del", NAME], check=True)
    for _ in ("once", "twice"):
        done = node.ask("DEL", netns)
        assert (done.returncode, done.stdout) == (0, b"")
    assert node.ask("DEL", "").returncode == 0
    assert node.records() == set()


def test_check_finds_what_is_gone(node: Node, netns: str) -> None:
    node.api.add("shop/web-1", CNI)
    assert "was started without" in error(node.ask("CHECK", netns))["msg"]
    assert node.ask("ADD", netns).returncode == 0
    with inside(NAME):
        capture.remove(CNI)
    said = error(node.ask("CHECK", netns))
    assert said["code"] == 100
    assert "pod shop/web-1" in said["msg"]
    assert "nft table inet weir is missing" in said["msg"]


def test_gc_forgets_what_is_in_use_no_more(node: Node, netns: str) -> None:
    node.api.add("shop/web-1", CNI)
    for container in ("c1", "c2"):
        if container == "c2":
            subprocess.run(["ip", "netns", "del", NAME], check=True)
            subprocess.run(["ip", "netns", "add", NAME], check=True)
        assert node.ask("ADD", netns, container=container).returncode == 0
    valid = [{"containerID": "c2", "ifname": "eth0"}]
    done = node.ask("GC", cniVersion="1.1.0", prevResult=None, **{"cni.dev/valid-attachments": valid})
    assert (done.returncode, done.stdout) == (0, b"")
    assert node.records() == {"c2"}
    assert node.ask("STATUS", cniVersion="1.1.0", prevResult=None).returncode == 0
    said = json.loads(node.ask("GC", cniVersion="1.1.0", prevResult=None).stdout)
    assert (said["code"], node.records()) == (7, {"c2"})


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"pod": "shop/nobody"}, 11, "answered 404"),
        ({"uid": "another"}, 11, "another pod by now"),
        ({"netns": "/run/netns/none"}, 4, "no network namespace"),
        ({"netns": "/etc/passwd"}, 4, "no network namespace"),
        ({"netns": "/proc/self/ns/net"}, 4, "the node's own"),
        ({"netns": "relative"}, 4, "must be a path"),
        ({"container": "../../etc/x"}, 4, "CNI_CONTAINERID"),
        ({"container": ""}, 4, "CNI_CONTAINERID"),
        ({"prevResult": None}, 7, "prevResult is missing"),
        ({"prevResult": [1]}, 6, "prevResult cannot be read"),
        ({"prevResult": 7}, 6, "prevResult cannot be read"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    node: Node, netns: str, change: dict[str, Any], code: int, words: str
) -> None:
    node.api.add("shop/web-1", CNI)
    said = error(node.ask("ADD", **{"netns": netns, **change}))
    assert said["code"] == code
    assert words in said["msg"]
    assert node.records() == set()


def test_a_pod_that_only_claims_to_be_captured_is_not_started(node: Node, netns: str) -> None:
    node.api.add("shop/web-1", CNI)
    node.api.pods["shop/web-1"]["spec"] = {"containers": [{"name": "app", "securityContext": {"runAsUser": PROXY}}]}
    said = error(node.ask("ADD", netns))
    assert (said["code"], "not as Weir makes pods" in said["msg"]) == (7, True)
    assert missing(CNI) != ()


def test_a_config_that_no_rule_can_say(node: Node, netns: str) -> None:
    node.api.add("shop/web-1", CNI)
    node.api.pods["shop/web-1"]["metadata"]["annotations"]["weir.dev/config"] = '{"setup": "CNI", "bogus": 1}'
    assert "weir.dev/config" in error(node.ask("ADD", netns))["msg"]
    node.api.add("shop/web-1", SidecarConfig(setup=Setup.CNI, capture={"exclude": {"interfaces": ['"; drop']}}))  # type: ignore[arg-type]
    assert "rules that cannot be" in error(node.ask("ADD", netns))["msg"]
    assert missing(CNI) != ()


def test_a_pod_waits_while_the_agent_restarts_and_is_then_served_again(node: Node, netns: str) -> None:
    node.api.add("shop/web-1", CNI)
    assert node.ask("ADD", netns).returncode == 0
    eventually(is_handed_over)
    node.stop(signal.SIGKILL)
    assert error(node.ask("ADD", netns, container="c2"))["code"] == 11
    assert node.ask("DEL", container="c9").returncode == 0
    assert not is_handed_over()
    node.start()
    eventually(is_handed_over)
    assert node.ask("CHECK", netns).returncode == 0


def test_the_agent_forgets_pods_that_ended_while_it_was_away(node: Node, netns: str) -> None:
    node.api.add("shop/web-1", CNI)
    assert node.ask("ADD", netns).returncode == 0
    node.stop()
    subprocess.run(["ip", "netns", "del", NAME], check=True)
    node.start()
    eventually(lambda: node.records() == set())


def asked(request: handover.Request, key: bytes = KEY, uid: int = PROXY, namespace: str = NAME) -> str:
    """How many sockets a process of the pod is given, or the error."""
    with inside(namespace), acting_as(uid):
        try:
            given = handed_over._ask(request, key, 5)
        except OSError as error:
            return errno.errorcode[error.errno]
    for one in given:
        one.close()
    return f"{len(given)} sockets"


def test_another_user_is_given_nothing(node: Node, netns: str) -> None:
    node.api.add("shop/web-1", CNI)
    assert node.ask("ADD", netns).returncode == 0
    eventually(is_handed_over)
    for uid in (0, 1000):
        for request in (handover.Claim(KEY), handover.Listeners()):
            assert asked(request, uid=uid) == "ECONNRESET"
    assert asked(handover.Claim(KEY)) == "0 sockets"
    assert asked(handover.Listeners()) == "4 sockets"


def test_the_proxys_user_without_the_key_is_given_nothing(node: Node, netns: str) -> None:
    """A container whose image says `USER 15801`, which no spec shows."""
    node.api.add("shop/web-1", CNI)
    assert node.ask("ADD", netns).returncode == 0
    eventually(is_handed_over)
    assert asked(handover.Listeners()) == "ENOKEY"
    assert asked(handover.Claim(KEY), key=OTHER) == "EKEYREJECTED"  # it does not prove that it has what it claims
    assert asked(handover.Claim(KEY)) == "0 sockets"
    wanted = (handover.Listeners(), handover.Tap(), handover.Unreachable(), handover.Reply("192.0.2.7", 53))
    for request in (handover.Claim(OTHER), *wanted):
        assert asked(request, OTHER) == "EKEYREJECTED"
    assert "a process with the proxy's user that has not the key" in node.log
    # Nor does it help to wait until the agent has restarted, or to have the pod set up once more.
    node.stop(signal.SIGKILL)
    node.start()
    eventually(is_handed_over)
    assert node.ask("ADD", netns).returncode == 0
    assert asked(handover.Claim(OTHER), OTHER) == "EKEYREJECTED"
    assert [asked(request) for request in (handover.Claim(KEY), *wanted)] == [f"{n} sockets" for n in (0, 4, 2, 2, 1)]


def test_who_takes_the_agents_place_learns_no_key(node: Node, netns: str) -> None:
    with inside(NAME), acting_as(PROXY):
        posing = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        posing.bind(handover.ADDRESS)
        posing.listen()
    with posing:
        assert asked(handover.Claim(KEY)) == "EPERM"
        connection, _ = posing.accept()
        with connection:
            assert connection.recv(100) == b""


# In a user namespace of its own, with the pod's network namespace; asks for listeners as the user whose number it reads.
_OTHER_USERS = f"""
import errno, os, socket, sys
from weir_sidecar.contract import handover
from weir_sidecar.edge import handed_over
os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWNET)
print("made", flush=True)
uid = int(sys.stdin.readline())
os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
given = []
try:
    for request in (handover.Claim({KEY!r}), handover.Listeners()):
        given = handed_over._ask(request, {KEY!r}, 5)
except ConnectionResetError:
    pass
print(len(given), [one.getsockopt(socket.SOL_IP, socket.IP_TRANSPARENT) for one in given[::2]], flush=True)
"""


@pytest.mark.parametrize(("uid", "given"), [(PROXY, "4 [1, 1]"), (0, "0 []"), (1000, "0 []")])
def test_a_pod_with_users_of_its_own(node: Node, tmp_path: Path, uid: int, given: str) -> None:
    """`hostUsers: false`: UIDs are the pod's, for the rules and for who may have sockets."""
    program = [sys.executable, "-I", "-c", _OTHER_USERS]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as pod:
        assert pod.stdin
        assert pod.stdout
        assert pod.stdout.readline() == "made\n"
        for kind in ("uid", "gid"):
            Path(f"/proc/{pod.pid}/{kind}_map").write_text("0 100000 65536\n")
        netns = tmp_path / "netns"
        netns.touch()
        subprocess.run(["mount", "--bind", f"/proc/{pod.pid}/ns/net", str(netns)], check=True)
        try:
            node.api.add("shop/web-1", CNI)
            done = node.ask("ADD", str(netns), container=f"users-{uid}")
            assert done.returncode == 0, done.stdout
            # The agent listens once it has heard of it.
            assert node.ask("CHECK", str(netns), container=f"users-{uid}").returncode == 0
            pod.stdin.write(f"{uid}\n")
            pod.stdin.flush()
            assert pod.stdout.readline() == f"{given}\n", node.log
        finally:
            subprocess.run(["umount", str(netns)], check=True)
            node.ask("DEL", container=f"users-{uid}")


class BareSidecar(PodSidecar):
    """A sidecar that starts as the proxy's user, with no capability."""

    limits = ()
    program = (str(Path(__file__).parent / "bare_sidecar.py"),)

    def __init__(self, pod: Pod, node: Node, **config: Any) -> None:
        super().__init__(pod, setup=Setup.CNI, **config)
        self.node = node

    def make_directories(self) -> None:
        super().make_directories()
        (self.directory / "token").chmod(0o644)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        assert self.node.ask("DEL", container="c-sidecar").returncode == 0

    @property
    def key(self) -> bytes:
        """The one that it made for the hand-over."""
        return (self.directory / "pod" / "run" / "hand-over.key").read_bytes()

    def load_rules(self) -> None:
        """The agent does."""
        self.pod.config = self.config
        self.set_up()

    def set_up(self) -> None:
        self.node.api.add("shop/web-1", self.config)
        done = self.node.ask("ADD", f"/run/netns/{self.pod.pod}", container="c-sidecar")
        assert done.returncode == 0, done.stdout


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    with Pod(tmp_path) as made:
        yield made


def capabilities(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line[:6]: int(line.split()[1], 16) for line in lines if line.startswith("Cap")}


@pytest.mark.parametrize("failure_mode", FailureMode)
def test_a_sidecar_without_any_capability_serves(node: Node, pod: Pod, failure_mode: FailureMode) -> None:
    with BareSidecar(pod, node, failure_mode=failure_mode) as sidecar:
        assert set(capabilities(sidecar.pid).values()) == {0}
        assert sidecar.issuer() == "weir"
        assert sidecar.metric("weir_held_syns_lost_total") == 0
        for version in (4, 6):
            assert pod.udp(version, 123) == "far"
            assert pod.tcp(version, 80) == "far"
            assert pod.tcp(version, 81) == "ConnectionRefusedError"
            assert pod.udp(version, 999) == "ConnectionRefusedError"
        # It gets its sockets again, also when it dies.
        for number in (signal.SIGTERM, signal.SIGKILL):
            sidecar.stop(number)
            sidecar.start()
            assert sidecar.issuer() == "weir"
        # And goes on while the agent is away, with what it has.
        assert pod.udp(4, 123) == "far"
        node.stop(signal.SIGKILL)
        assert sidecar.issuer() == "weir"
        assert pod.udp(4, 123) == "far"
        node.start()
        assert sidecar.issuer() == "weir"


@contextmanager
def resolv_conf(namespace: str, text: str) -> Iterator[None]:
    """What `ip netns exec` puts in the place of the machine's (ip-netns(8))."""
    directory = Path("/etc/netns") / namespace
    directory.mkdir(parents=True)
    (directory / "resolv.conf").write_text(text)
    try:
        yield
    finally:
        shutil.rmtree(directory)


def dns_sources(pid: int) -> set[str]:
    """Addresses, as /proc/net/udp writes them, that sockets are bound to at port 53 in a process's network namespace."""
    lines = [line for name in ("udp", "udp6") for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]]
    return {local[:-5] for local in (line.split()[1] for line in lines) if local.endswith(":0035")}


def test_a_sidecar_has_sockets_for_its_pods_resolvers_before_anybody_asks(node: Node, pod: Pod) -> None:
    servers = ("192.0.2.53", "2001:db8::53")
    text = "nameserver 192.0.2.53\nnameserver 2001:db8::53\nnameserver bogus\nsearch example\n"
    with resolv_conf(pod.pod, text), BareSidecar(pod, node) as sidecar:
        packed = [socket.inet_pton(socket.AF_INET6 if ":" in one else socket.AF_INET, one) for one in servers]
        words = [[int.from_bytes(one[i : i + 4], sys.byteorder) for i in range(0, len(one), 4)] for one in packed]
        assert dns_sources(sidecar.pid) == {"".join(f"{word:08X}" for word in one) for one in words}


def test_while_the_agent_is_away_those_that_were_foreseen_are_at_hand(node: Node, netns: str) -> None:
    node.api.add("shop/web-1", CNI)
    assert node.ask("ADD", netns).returncode == 0
    eventually(is_handed_over)
    assert asked(handover.Claim(KEY)) == "0 sockets"
    told: list[str] = []
    sidecar = handed_over.HandedOver(CNI, KEY, told.append)
    foreseen, other = ("192.0.2.53", 53), ("192.0.2.54", 53)

    def source_of(address: tuple[str, int]) -> object:
        with inside(NAME), acting_as(PROXY):
            try:
                made = sidecar.reply(address)
            except OSError as error:
                return error.errno
        with made:
            return made.getsockname()

    with inside(NAME), acting_as(PROXY):
        sidecar.foresee([foreseen, ("not an address", 53)])
    assert len(told) == 1
    assert "not an address" in told[0]
    node.stop(signal.SIGKILL)
    try:
        # Again and again: who uses one closes it, and others of the pod's servers may have pushed it out.
        assert [source_of(foreseen), source_of(foreseen)] == [foreseen, foreseen]
        assert [source_of(other), source_of(other)] == [errno.EHOSTDOWN] * 2
    finally:
        node.start()
    eventually(lambda: source_of(other) == other)
    for kept in sidecar._kept.values():
        kept.close()


def test_a_pod_without_rules_that_fails_open_runs_uncaptured_and_ready(node: Node, pod: Pod) -> None:
    class Missed(BareSidecar):
        def set_up(self) -> None:
            """Nobody does."""

    with Missed(pod, node) as sidecar:
        assert "this pod is not captured" in sidecar.log
        assert sidecar.probe("/readyz") == 200
        assert sidecar.issuer() == "origin"
        assert pod.udp(4, 53) == "far"


def test_what_is_handed_over_sends_nothing_from_other_addresses(node: Node, pod: Pod) -> None:
    with BareSidecar(pod, node) as sidecar:
        for version, source in ((4, "192.0.2.7"), (6, "2001:db8::7")):
            with inside(pod.pod), acting_as(PROXY, PROXY):
                (spoofing,) = handed_over._ask(handover.Reply(source, 53), sidecar.key, 5)
            with spoofing, pod.wire() as frames:
                assert spoofing.family == FAMILY[version]
                with pytest.raises(PermissionError):
                    spoofing.sendto(b"not from here", (FAR[version], 9))
            assert not [frame for frame in frames if b"not from here" in frame]
