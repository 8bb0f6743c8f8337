"""What a new config may change while a pod runs, and what waits for its next start."""

from typing import Any

import msgspec
import pytest

from weir_sidecar.contract import config as contract
from weir_sidecar.contract.config import Action, Match, Rule, SidecarConfig, Stream
from weir_sidecar.contract.http import Credential, RequestRule
from weir_sidecar.core.held import hold

STARTED = SidecarConfig(workload="shop/Deployment/web", revision="a", stream=Stream("s:443", "PEM"))


def changed(**parts: Any) -> SidecarConfig:
    """A config with other values, as it would come: through JSON."""
    whole = msgspec.to_builtins(STARTED)
    merge(whole, parts)
    return contract.decode(msgspec.json.encode(whole))


def merge(whole: dict[str, Any], parts: dict[str, Any]) -> None:
    for name, value in parts.items():
        if isinstance(value, dict):
            merge(whole[name], value)
        else:
            whole[name] = value


HELD: dict[str, dict[str, Any]] = {
    "capture.mode": {"capture": {"mode": "Redirect"}},
    "capture.ports": {"capture": {"ports": [{"first": 80, "last": 80}]}},
    "capture.exclude": {"capture": {"exclude": {"cidrs": ["10.0.0.0/8"]}}},
    "capture.dns.capture": {"capture": {"dns": {"capture": False}}},
    "capture.quic": {"capture": {"quic": "Allow"}},
    "capture.otherUDP": {"capture": {"otherUdp": "Deny"}},
    "capture.otherProtocols": {"capture": {"otherProtocols": False}},
    "capture.connectFirst": {"capture": {"connectFirst": False}},
    "capture.beforeNat": {"capture": {"beforeNat": True}},
    "failureMode": {"failureMode": "Closed"},
    "startup": {"startup": "Open"},
    "setup": {"setup": "CNI"},
    "trust.authorityDir": {"trust": {"authorityDir": "/run/weir/ca"}},
    "ports": {"ports": {"admin": 16000}},
    "identity": {"identity": {"uid": 77}},
    "heartbeat": {"heartbeat": {"interval": 0.1}},
    "marks": {"marks": {"table": 99}},
}


@pytest.mark.parametrize("name", HELD)
def test_what_the_kernel_has_stays_and_is_named(name: str) -> None:
    new = msgspec.structs.replace(changed(**HELD[name]), revision="b", default_action=Action.DENY)
    kept, after_restart = hold(new, STARTED)
    assert after_restart == (name,)
    assert kept == msgspec.structs.replace(STARTED, revision="b", default_action=Action.DENY)


def test_everything_else_counts_at_once() -> None:
    new = changed(
        revision="b", generation=3, defaultAction="Deny", verifyAddress="Deny",
        rules=[{"name": "r", "match": {}, "action": "Deny"}],
        capture={"dns": {"cache": True, "server": "10.0.0.1"}},
        trust={"neverIntercept": ["a.test"], "failOpen": {"enabled": False}},
        stream={"server": "other:443"},
    )  # fmt: skip
    assert hold(new, STARTED) == (new, ())


def test_several_are_named_in_one_order() -> None:
    new = changed(failureMode="Closed", capture={"mode": "Redirect", "dns": {"capture": False}})
    assert hold(new, STARTED)[1] == ("capture.mode", "capture.dns.capture", "failureMode")


def test_a_config_for_no_pod_in_particular_is_for_this_one() -> None:
    kept, after_restart = hold(msgspec.structs.replace(STARTED, workload="", stream=None, revision="b"), STARTED)
    assert (kept.workload, kept.stream, after_restart) == (STARTED.workload, STARTED.stream, ())


def test_every_field_is_known_to_be_held_or_not() -> None:
    """A field that is new must be thought about here."""
    free = {
        "version",
        "generation",
        "revision",
        "workload",
        "default_action",
        "verify_address",
        "rules",
        "logging",
        "capture",
        "trust",
    }
    held = {"failure_mode", "startup", "setup", "ports", "identity", "heartbeat", "marks"}
    assert set(SidecarConfig.__struct_fields__) == free | held | {"stream", "limits"}
    assert set(contract.Capture.__struct_fields__) == {
        "mode", "ports", "exclude", "dns", "quic", "other_udp", "connect_first", "other_protocols",
        "before_nat",
    }  # fmt: skip


def keyed(*files: str) -> tuple[Rule, ...]:
    http = tuple(RequestRule(file, credential=Credential("authorization", file)) for file in files)
    return (Rule("api", Match(hosts=("api.test",)), Action.INTERCEPT, http=http),)


def test_a_secret_that_is_not_mounted_is_named_and_its_rule_counts() -> None:
    started = msgspec.structs.replace(STARTED, rules=keyed("/run/weir/credentials/a/token"))
    new = msgspec.structs.replace(
        STARTED, rules=keyed("/run/weir/credentials/a/token", "/run/weir/credentials/b/token", "/etc/token")
    )
    assert hold(new, started) == (new, ("credentialFrom.secret b/token",))
    assert hold(started, new) == (started, ())
