"""What the processes of a captured pod may do, and that nobody outside it can use its proxy."""

import pytest

from lab.node_hands import Hands
from lab.place import Mode, Place
from lab.weir_cluster import within
from lab.workloads import caller

pytestmark = [pytest.mark.cluster, pytest.mark.pods, pytest.mark.timeout(600)]

CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
NET_BIND_SERVICE, NET_RAW = 1 << 10, 1 << 13


@pytest.fixture(scope="module")
def guarded(here: Place, web_hosts):
    """A pod that calls, under the level restricted of Pod Security in CNI mode."""
    here.policy("guarded", "guarded", failureMode="Closed")
    here.start(here.fit(caller("guarded", *web_hosts)))
    here.wait_calling("guarded", *web_hosts)
    return here.pod("guarded")


def test_capabilities(hands: Hands, guarded, mode, note):
    sidecar = hands.processes(guarded, "weir-sidecar")
    assert sidecar
    for process in sidecar:
        assert set(process["Uid"].split()) == {"15801"}
        assert process["NoNewPrivs"] == "1"
    if mode is Mode.INIT:
        assert {int(process["CapEff"], 16) for process in sidecar} == {NET_RAW | NET_BIND_SERVICE}
        return
    everybody = [*sidecar, *hands.processes(guarded, "app")]
    assert {process[name] for process in everybody for name in CAPABILITIES} == {"0" * 16}
    for container in (*guarded["spec"]["initContainers"], *guarded["spec"]["containers"]):
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    note.append(f"restricted, {mode}: {', '.join(CAPABILITIES)} are 0 in all {len(everybody)} processes of the pod")


def test_nobody_outside_can_use_the_proxy(here: Place, origin, guarded):
    asks = (
        "import socket, sys\n"
        "try: print(socket.create_connection((sys.argv[1], 15801), 5).recv(1) or 'closed')\n"
        "except (ConnectionResetError, ConnectionRefusedError) as error: print(type(error).__name__)"
    )
    addresses = [one["ip"] for one in guarded["status"]["podIPs"]]
    for address in addresses:
        argv = ("deployment/origin", "-n", origin.namespace, "--", "python3", "-c", asks, address)
        said = here.weir.kubectl("exec", *argv).strip()
        assert said in {"closed", "ConnectionResetError", "ConnectionRefusedError"}

    def noticed() -> bool:
        records = [one for one in here.records("guarded") if one.get("reason") == "direct_to_proxy"]
        return {one["decision"] for one in records} == {"deny"} and len(records) == len(addresses)

    within(10, "a record of each attempt", noticed)
