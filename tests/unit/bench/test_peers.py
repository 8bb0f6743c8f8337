"""Who takes part: what is installed, each in the mode that a work needs; Weir with the config of a real pod."""

import msgspec

from bench import weir
from bench.load import Work
from bench.peers import MODE, PEERS, Mode
from bench.site import HOST, within
from weir_sidecar.contract import config as contract
from weir_sidecar.contract.flow import Decision, Protocol
from weir_sidecar.core.policy import Policy
from weir_sidecar.core.verdict import FlowFacts


def decision(mode: Mode) -> Decision:
    facts = FlowFacts(Protocol.TLS, "198.18.88.1", 443, HOST, named_by_client=True)
    return Policy(weir.config(mode, "roots")).decide(facts).decision


def test_weir_intercepts_the_origin_or_passes_it_through_by_policy():
    assert decision(Mode.INTERCEPT) is Decision.INTERCEPT
    assert decision(Mode.PASSTHROUGH) is Decision.PASSTHROUGH


def test_weirs_config_is_one_that_the_sidecar_reads_and_trusts_the_origin_only():
    config = contract.decode(contract.encode(weir.config(Mode.INTERCEPT, "roots")))
    assert config.trust.upstream == contract.Upstream(roots_pem=("roots",), system_roots=False)


def test_every_work_has_a_mode_and_somebody_to_compare_with():
    assert set(MODE) == set(Work)
    assert set().union(*(peer.works for peer in PEERS)) == set(Work)


def test_a_program_that_is_not_there_is_not_found_and_one_that_is_tells_its_version():
    assert msgspec.structs.replace(PEERS[0], program="/nowhere/mitmdump").found() is None
    assert msgspec.structs.replace(PEERS[0], program="echo", version=("echo 1.0",)).found() == "echo 1.0"


def test_a_command_runs_on_its_core_in_its_namespace_as_its_user():
    assert " ".join(within("pod", 1, ["squid"], user=("--reuid=5",))) == (
        "ip netns exec pod taskset -c 1 setpriv --reuid=5 squid"
    )
    assert " ".join(within("pod", 0, ["wrk"])) == "ip netns exec pod taskset -c 0 wrk"
