"""The init container's process on the real kernel: with the capabilities it has in a pod, and volumes as the kubelet makes."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from netns.capture_lab import inside, sh
from samples.provided_ca import Secret, Shape, make
from weir_sidecar.certs.authority import Authority
from weir_sidecar.contract import config as contract
from weir_sidecar.contract.config import FailureMode, SidecarConfig, Trust
from weir_sidecar.edge import clocks
from weir_sidecar.netsetup import capture

pytestmark = pytest.mark.netns
NAME = f"wk{os.getpid()}-init"
CAPABILITIES = "+net_admin,+setuid,+setgid"
PROXY = 15801


class Pod:
    """A network namespace, and volumes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name, mode in (("info", 0o755), ("pod", 0o777), ("trust", 0o777), ("secret", 0o755)):
            (root / name).mkdir()
            (root / name).chmod(mode)
        self.new_sandbox()

    def new_sandbox(self) -> None:
        self.end()
        sh("ip", "netns", "add", NAME)

    def end(self) -> None:
        subprocess.run(["ip", "netns", "del", NAME], capture_output=True, check=False)

    def give(self, config: SidecarConfig) -> None:
        (self.root / "info" / "config.json").write_bytes(contract.encode(config))

    def init(self, capabilities: str = CAPABILITIES, *before: str) -> subprocess.CompletedProcess[str]:
        places = [part for name in ("info", "pod", "trust") for part in (f"--{name}-dir", str(self.root / name))]
        drop = ["setpriv", f"--bounding-set=-all,{capabilities}", "--inh-caps=-all", "--no-new-privs"]
        program = [sys.executable, "-I", "-m", "weir_sidecar.podsetup", *places]
        command = ["ip", "netns", "exec", NAME, *before, *drop, *program]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def pod() -> Iterator[Pod]:
    # Not pytest's directory, which is closed to the proxy's user.
    with tempfile.TemporaryDirectory(prefix="wk-init-", dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        made = Pod(Path(directory))
        yield made
        made.end()


def test_sets_up_a_pod_again_and_again_and_in_a_new_sandbox(pod: Pod) -> None:
    config = SidecarConfig(failure_mode=FailureMode.CLOSED)
    pod.give(config)
    first = pod.init()
    assert (first.returncode, first.stderr) == (0, "")
    assert re.fullmatch(
        r"ready in \d+\.\d\d s: rules loaded in \d\.\d\d s, CA [0-9a-f]{16} made, bundle of \d+ certificates\n",
        first.stdout,
    )
    files = {path: path.read_bytes() for path in pod.root.rglob("*") if path.is_file()}
    for new in (False, True):
        if new:
            pod.new_sandbox()
        again = pod.init()
        assert (again.returncode, again.stderr) == (0, "")
        assert " kept," in again.stdout
        assert {path: path.read_bytes() for path in pod.root.rglob("*") if path.is_file()} == files
        with inside(NAME):
            assert capture.check(config) == ()


def test_files_are_the_proxys_and_applications_may_read_those_of_trust(pod: Pod) -> None:
    # With an fsGroup the kubelet makes volumes set-group-ID.
    for name in ("pod", "trust"):
        os.chown(pod.root / name, 0, 2000)
        (pod.root / name).chmod(0o2777)
    pod.give(SidecarConfig())
    assert pod.init().returncode == 0
    modes = {
        str(path.relative_to(pod.root)): (path.stat().st_uid, path.stat().st_mode & 0o7777)
        for name in ("pod", "trust")
        for path in (pod.root / name).rglob("*")
        if path.parent.name != "certs"
    }
    public, secret = (PROXY, 0o644), (PROXY, 0o600)
    assert modes == {
        "pod/run": (PROXY, 0o700),
        "pod/run/ca.crt": public,
        "pod/run/ca.key": secret,
        "pod/run/config.json": secret,
        "trust/certs": (PROXY, 0o755),
        **{
            f"trust/{name}": public
            for name in ("bundle.crt", "ca.crt", "truststore.jks", "browsers.json", "firefox.json")
        },
    }
    assert all(
        path.stat().st_uid == PROXY for path in (pod.root / "trust" / "certs").iterdir() if not path.is_symlink()
    )


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o644])
def test_a_secrets_ca_is_read_as_root_and_belongs_to_the_proxy_afterwards(pod: Pod, mode: int) -> None:
    now = clocks.utc()
    root = make("Root", now=now)
    signer = make("Signer", root, key=rsa.generate_private_key(65537, 2048), shape=Shape(), now=now)
    version = pod.root / "secret" / "..1"
    version.mkdir()
    for name, data in Secret.of(signer, trusted=(root,)).data.items():
        (version / name).write_bytes(data)
        (version / name).chmod(mode)
        (pod.root / "secret" / name).symlink_to(f"..data/{name}")
    (pod.root / "secret" / "..data").symlink_to("..1")
    pod.give(SidecarConfig(trust=Trust(authority_dir=str(pod.root / "secret"))))
    done = pod.init()
    assert (done.returncode, done.stderr) == (0, "")
    assert " from the Secret," in done.stdout
    run = pod.root / "pod" / "run"
    authority = Authority.load((run / "ca.key").read_bytes(), (run / "ca.crt").read_bytes())
    assert authority.intermediates == (signer.certificate,)
    assert (pod.root / "trust" / "ca.crt").read_bytes() == root.pem


def failed(done: subprocess.CompletedProcess[str], *said: str) -> bool:
    (line,) = done.stderr.splitlines()
    return done.returncode == 1 and done.stdout == "" and all(words in line for words in ("weir-init: ", *said))


@pytest.mark.parametrize(
    ("capabilities", "missing"),
    [("+setuid,+setgid", "NET_ADMIN"), ("+net_admin,+setgid", "SETUID"), ("-all", "NET_ADMIN, SETUID, SETGID")],
)
def test_capabilities_that_are_missing_are_named(pod: Pod, capabilities: str, missing: str) -> None:
    pod.give(SidecarConfig())
    assert failed(pod.init(capabilities), missing, "capabilities.add [NET_ADMIN, SETUID, SETGID]")


@pytest.mark.parametrize("name", ["pod", "trust"])
def test_a_read_only_volume_is_named(pod: Pod, name: str) -> None:
    pod.give(SidecarConfig())
    mount = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    done = pod.init(CAPABILITIES, "unshare", "--mount", "sh", "-c", mount, str(pod.root / name))
    assert failed(done, f"{pod.root / name}/", "Read-only file system", "may write")


def test_a_link_in_the_place_of_its_directory_is_refused(pod: Pod) -> None:
    pod.give(SidecarConfig())
    (pod.root / "pod" / "run").symlink_to("/tmp")
    assert failed(pod.init(), "/pod/run", "no link")
