"""The steps of the set-up, with the kernel played by a fake. tests/netns/test_podsetup.py has the real one."""

import datetime as dt
import errno
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from samples.provided_ca import CA, DAY, NOW, Secret, Shape, make
from weir_sidecar.certs.authority import Authority
from weir_sidecar.contract import config as contract
from weir_sidecar.contract.config import FailureMode, Setup, SidecarConfig, Trust, Upstream
from weir_sidecar.edge.privileges import Capability, PrivilegeError, Status
from weir_sidecar.netfilter.literals import RulesetError
from weir_sidecar.netsetup.errors import CaptureError
from weir_sidecar.podsetup import setup
from weir_sidecar.podsetup.errors import NoRulesError, SetupError

ALL = sum(1 << one for one in (Capability.NET_ADMIN, Capability.SETUID, Capability.SETGID))


def status(capabilities: int = ALL) -> Status:
    root = frozenset({0})
    return Status(root, root, root, 0, capabilities, capabilities, capabilities, 0, no_new_privs=False, threads=1)


@dataclass
class Pod:
    """The volumes of one pod, and what was done to it."""

    root: Path
    config: SidecarConfig = field(default_factory=SidecarConfig)
    now: dt.datetime = NOW
    done: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("info", "pod", "trust", "secret"):
            (self.root / name).mkdir()

    @property
    def run(self) -> Path:
        return self.root / "pod" / "run"

    @property
    def trust(self) -> Path:
        return self.root / "trust"

    def provide(self, secret: Secret | dict[str, bytes], **trust: float) -> None:
        for old in (self.root / "secret").iterdir():
            old.unlink()
        for name, data in (secret.data if isinstance(secret, Secret) else secret).items():
            (self.root / "secret" / name).write_bytes(data)
        self.config = SidecarConfig(trust=Trust(authority_dir=str(self.root / "secret"), **trust))

    def set_up(self, **edge: object) -> str:
        (self.root / "info" / "config.json").write_bytes(contract.encode(self.config))
        places = setup.Places(*(str(self.root / name) for name in ("info", "pod", "trust")))
        real = setup.Edge(
            apply=lambda _: self.done.append("apply"),
            check=lambda _: self.done.append("check") or (),
            answers=lambda _: self.done.append("ask") or True,
            claim=lambda key: self.done.append(f"claim {key.hex()}"),
            status=status,
            sleep=lambda _: self.done.append("wait"),
            drop=lambda uid, gid: self.done.append(f"drop {uid} {gid}"),
            now=lambda: self.now,
            warn=self.warnings.append,
        )
        return setup.run(places, msgspec.structs.replace(real, **edge))

    def signer(self) -> str:
        return Authority.load((self.run / "ca.key").read_bytes(), (self.run / "ca.crt").read_bytes()).fingerprint()

    def trusted(self) -> str:
        return (self.trust / "ca.crt").read_text()


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


def fingerprint(ca: CA) -> str:
    return Authority(ca.key, ca.certificate).fingerprint()


def raises(function, *arguments):
    def play(*_: object) -> None:
        raise function(*arguments)

    return play


def test_the_rules_come_first_and_files_after_the_drop(pod: Pod) -> None:
    said = pod.set_up(drop=lambda uid, gid: pod.done.append(f"drop {uid} {gid} {sorted(pod.root.glob('*/*'))}"))
    assert pod.done == ["apply", "check", f"drop 15801 15801 {[pod.root / 'info' / 'config.json']}"]
    assert sorted(path.name for path in pod.trust.iterdir()) == [
        "browsers.json",
        "bundle.crt",
        "ca.crt",
        "certs",
        "firefox.json",
        "truststore.jks",
    ]
    assert sorted(path.name for path in pod.run.iterdir()) == ["ca.crt", "ca.key", "config.json"]
    assert contract.decode((pod.run / "config.json").read_bytes()) == pod.config
    assert pod.signer()[:16] in said
    assert "made" in said


def test_again_it_gives_the_same_files_and_loads_the_rules(pod: Pod) -> None:
    pod.set_up()
    before = {path: path.read_bytes() for path in pod.root.rglob("*") if path.is_file()}
    pod.now += DAY
    assert "kept" in pod.set_up()
    assert {path: path.read_bytes() for path in pod.root.rglob("*") if path.is_file()} == before
    assert pod.done.count("apply") == 2
    assert pod.warnings == []


def test_a_ca_that_is_about_to_end_is_replaced_and_nothing_of_it_stays(pod: Pod) -> None:
    pod.set_up()
    first = pod.signer()
    pod.now += dt.timedelta(days=3650 - 1)
    assert "made" in pod.set_up()
    assert pod.signer() != first
    assert (pod.run / "ca.crt").read_text() == pod.trusted()
    assert len(list((pod.trust / "certs").iterdir())) == 2


def test_the_policys_roots_are_trusted_too(pod: Pod, tmp_path: Path) -> None:
    inline, mapped = make("Inline"), make("Mapped")
    (tmp_path / "mapped.pem").write_bytes(mapped.pem)
    files = (str(tmp_path / "mapped.pem"), str(tmp_path / "optional.pem"))
    upstream = Upstream(roots_pem=(inline.pem.decode(),), roots_files=files, system_roots=False)
    pod.config = SidecarConfig(trust=Trust(upstream=upstream))
    pod.set_up()
    bundle = (pod.trust / "bundle.crt").read_text()
    for ca in (inline, mapped):
        assert ca.pem.decode() in bundle
        assert ca.pem.decode() not in pod.trusted()
    assert pod.warnings == []


@pytest.mark.parametrize(
    "junk", [b"junk", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"\xff\x00"]
)
def test_a_root_that_cannot_be_read_is_left_out_and_told(pod: Pod, tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "junk.pem").write_bytes(junk)
    pod.config = SidecarConfig(trust=Trust(upstream=Upstream(roots_files=(str(tmp_path / "junk.pem"),))))
    pod.set_up()
    (warning,) = pod.warnings
    assert "junk.pem" in warning
    assert "left out" in warning


def test_a_secrets_ca_signs_and_all_of_its_cas_are_trusted(pod: Pod) -> None:
    old, new = make("Old"), make("New")
    pod.provide(Secret.of(old, trusted=(old, new)))
    assert "from the Secret" in pod.set_up()
    assert pod.signer() == fingerprint(old)
    assert pod.trusted() == (old.pem + new.pem).decode()
    assert ((pod.run / "ca.key").stat().st_mode & 0o777, (pod.run / "ca.crt").read_bytes()) == (0o600, old.pem)


def test_rotation_old_pods_keep_theirs_and_trust_both(pod: Pod) -> None:
    old, new = make("Old"), make("New")
    pod.provide(Secret.of(old))
    pod.set_up()
    pod.provide(Secret.of(new, trusted=(old, new)))
    assert "kept" in pod.set_up()
    assert pod.signer() == fingerprint(old)
    assert pod.trusted() == (old.pem + new.pem).decode()
    # The old one goes from the Secret; this pod's applications still need it.
    pod.provide(Secret.of(new))
    pod.set_up()
    assert pod.signer() == fingerprint(old)
    assert pod.trusted() == (old.pem + new.pem).decode()


@pytest.mark.parametrize(("left", "kept"), [(DAY - dt.timedelta(seconds=1), False), (2 * DAY, True)])
def test_a_ca_that_cannot_sign_leaves_of_full_length_any_more_is_replaced(
    pod: Pod, left: dt.timedelta, kept: bool
) -> None:
    old, new = make("Old", shape=Shape(ends=9 * DAY)), make("New")
    pod.provide(Secret.of(old))
    pod.set_up()
    pod.now = NOW + 9 * DAY - left
    pod.provide(Secret.of(new, trusted=(old, new)))
    pod.set_up()
    assert pod.signer() == fingerprint(old if kept else new)


def test_an_unusable_secret_ends_a_new_pod_and_not_one_that_has_a_ca(pod: Pod) -> None:
    root = make("Root")
    pod.provide(Secret.of(root).without("ca.crt"))
    with pytest.raises(SetupError, match=r"Secret at .*/secret cannot be used: ca.crt: the Secret has no such key"):
        pod.set_up()
    pod.provide(Secret.of(root))
    pod.set_up()
    pod.provide(Secret.of(root).but("tls.key", b"junk"))
    assert "kept" in pod.set_up()
    assert pod.signer() == fingerprint(root)
    assert pod.trusted() == root.pem.decode()
    (warning,) = pod.warnings
    assert "tls.key" in warning


def test_a_secret_that_is_not_mounted(pod: Pod) -> None:
    pod.config = SidecarConfig(trust=Trust(authority_dir=str(pod.root / "missing")))
    with pytest.raises(SetupError, match=r"missing: .*ca\.secretRef"):
        pod.set_up()


@pytest.mark.parametrize(
    ("edge", "said"),
    [
        ({"status": lambda: status(ALL & ~(1 << Capability.NET_ADMIN))}, "without the capabilities NET_ADMIN"),
        ({"status": lambda: status(0)}, "NET_ADMIN, SETUID, SETGID; this container must start as root"),
        (
            {"apply": raises(CaptureError, "nft -f -", "Could not process rule", "advice")},
            "nft -f -: Could not process",
        ),
        ({"apply": raises(RulesetError, "marks: two bits")}, "correct the policy"),
        ({"check": lambda _: ("nft table inet weir is missing",)}, "something else changes them"),
        ({"drop": raises(PrivilegeError, "may not become")}, "SETUID and SETGID"),
    ],
)
def test_what_goes_wrong_is_one_line_with_what_to_do(pod: Pod, edge: dict[str, object], said: str) -> None:
    with pytest.raises(SetupError) as caught:
        pod.set_up(**edge)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not pod.run.exists()


def test_a_config_that_cannot_be_read_is_named(pod: Pod) -> None:
    pod.set_up()
    places = setup.Places(*(str(pod.root / name) for name in ("info", "pod", "trust")))
    edge = setup.edge_of(lambda: NOW, pod.warnings.append)
    (pod.root / "info" / "config.json").write_text("{")
    with pytest.raises(SetupError, match=r"config\.json: .*annotation weir\.dev/config"):
        setup.run(places, edge)
    (pod.root / "info" / "config.json").unlink()
    with pytest.raises(SetupError, match=r"config\.json: No such file.*annotation"):
        setup.run(places, edge)


CNI = SidecarConfig(setup=Setup.CNI)


def as_the_proxy() -> Status:
    return msgspec.structs.replace(status(0), uids=frozenset((15801,)), gids=frozenset((15801,)))


def test_in_cni_mode_rules_are_asked_for_and_nothing_is_loaded(pod: Pod) -> None:
    pod.config = CNI
    assert pod.set_up(status=as_the_proxy).startswith("rules are there, CA ")
    key = (pod.run / "hand-over.key").read_bytes()
    assert pod.done == ["ask", "drop 15801 15801", f"claim {key.hex()}"]
    assert len(key) == 32
    assert (pod.run / "hand-over.key").stat().st_mode & 0o777 == 0o600
    assert (pod.run / "ca.key").exists()
    pod.set_up(status=as_the_proxy)
    assert pod.done[-1] == f"claim {key.hex()}"  # a container that runs again keeps it


def test_an_agent_that_takes_no_key_is_told(pod: Pod) -> None:
    pod.config = CNI
    claim = raises(OSError, errno.ECONNREFUSED, "Connection refused")
    assert pod.set_up(status=as_the_proxy, claim=claim).startswith("rules are there, CA ")
    assert "did not take the key of the hand-over (Connection refused)" in pod.warnings[0]


@pytest.mark.parametrize("failure_mode", FailureMode)
def test_in_cni_mode_a_pod_without_rules_starts_only_if_it_may(pod: Pod, failure_mode: FailureMode) -> None:
    pod.config = msgspec.structs.replace(CNI, failure_mode=failure_mode)
    edge = {"status": as_the_proxy, "answers": lambda _: False}
    if failure_mode is FailureMode.CLOSED:
        with pytest.raises(NoRulesError, match=r"weir-cni did not run.*does not start unguarded.*DaemonSet weir-node"):
            pod.set_up(**edge)
        assert not pod.run.exists()
        assert pod.done.count("wait") == 300
    else:
        assert pod.set_up(**edge).startswith("no rules, CA ")
        (warning,) = pod.warnings
        assert "starts all the same" in warning
        assert "wait" not in pod.done


def test_rules_that_come_while_the_pod_waits_let_it_start(pod: Pod) -> None:
    """A pod that is never restarted must not fail for a plugin that is away for a moment."""
    pod.config = msgspec.structs.replace(CNI, failure_mode=FailureMode.CLOSED)
    answers = iter([False, False, True])
    assert pod.set_up(status=as_the_proxy, answers=lambda _: next(answers)).startswith("rules are there now, CA ")
    assert pod.done[:-1] == ["wait", "wait", "drop 15801 15801"]
    assert pod.done[-1].startswith("claim ")


def test_in_cni_mode_only_the_proxys_user_is_answered(pod: Pod) -> None:
    pod.config = CNI
    with pytest.raises(SetupError, match=r"found uid 0; in CNI mode this container must run as 15801"):
        pod.set_up()


def test_volumes_that_are_missing_are_named(pod: Pod) -> None:
    pod.trust.rmdir()
    with pytest.raises(SetupError, match=r"/trust: .*must be a volume"):
        pod.set_up()
