"""The first packet, and the last: what is captured while a pod starts, that Jobs end, and that the sidecar outlives the
application's last request.
"""

import time

import pytest

from lab.node_hands import status_of
from lab.origin_pod import FAMILIES
from lab.place import Place
from lab.weir_cluster import within
from lab.workloads import caller, container, job, pod

pytestmark = [pytest.mark.cluster, pytest.mark.pods, pytest.mark.timeout(600)]

BURST = 3
"""Seconds."""


@pytest.mark.parametrize("capture", ["TPROXY", "Redirect"])
@pytest.mark.parametrize("failure_mode", ["Open", "Closed"])
def test_first_acts_are_captured_and_none_is_refused(here: Place, web_hosts, capture, failure_mode):
    name = f"first-{capture.lower()}-{failure_mode.lower()}"
    here.policy(name, name, capture={"mode": capture}, failureMode=failure_mode)
    hosts = ",".join(web_hosts)
    download = container("caller", hosts, "-", 0, 1, 0, name="download")
    here.start(here.fit(pod(name, container("caller", hosts, "-", 0, 1, 0), initContainers=[download])))
    here.weir.wait_phase(here.namespace, name, "Succeeded")
    for part in ("download", "app"):
        calls = [one for one in here.weir.told(here.namespace, name, part) if "at" in one]
        assert {one["host"] for one in calls} == set(web_hosts)
        assert [one for one in calls if not (one["ok"] and one["weir"])] == []
    flows = [one for one in here.records(name) if one.get("protocol") == "tls"]
    assert len([one for one in flows if one["decision"] == "intercept"]) == 2 * len(web_hosts)


@pytest.mark.parametrize("capture", ["TPROXY", "Redirect"])
def test_closed_leaks_not_one_packet_from_the_start(here: Place, origin, capture, mode, note):
    """Nothing is allowed, so no packet may arrive: whatever does was let by before the rules, or round them."""
    name, port = f"burst-{capture.lower()}", {"TPROXY": 20001, "Redirect": 20002}[capture]
    everything = {"mode": capture, "otherUDP": "Deny"}
    here.policy(name, name, capture=everything, failureMode="Closed", defaultAction="Deny")
    addresses = origin.addresses()
    arguments = (",".join(addresses.values()), port, BURST)
    first = container("burst", *arguments, name="first")
    here.start(here.fit(pod(name, container("burst", *arguments), initContainers=[first])))
    here.weir.wait_phase(here.namespace, name, "Succeeded")
    told = [one for part in ("first", "app") for one in here.weir.told(here.namespace, name, part)]
    assert len(told) == 2
    sent = sum(one["sent"] for one in told)
    assert sent
    assert origin.arrived(port) == {}
    families = " and ".join(FAMILIES[family] for family in addresses)
    note.append(
        f"start, {mode}, {capture}, Closed: {sent} attempts from the first moment on ({families}), 0 packets arrived"
    )


def test_what_is_not_captured_does_arrive(here: Place, origin):
    """So the test before would notice."""
    addresses = origin.addresses()
    here.start(here.fit(pod("uncaptured", container("burst", ",".join(addresses.values()), 20003, 0.5))))
    here.weir.wait_phase(here.namespace, "uncaptured", "Succeeded")
    arrived = origin.arrived(20003)
    assert {f"{family} {protocol}" for family in addresses for protocol in (6, 17)} == set(arrived)


@pytest.mark.parametrize("failure_mode", ["Open", "Closed"])
def test_with_startup_open_the_application_waits_for_nobody_and_loses_nothing(here: Place, web_hosts, failure_mode):
    name = f"eager-{failure_mode.lower()}"
    here.policy(name, name, startup="Open", failureMode=failure_mode)
    here.start(here.fit(caller(name, *web_hosts, count=50, pause=0.02)))
    calls = here.weir.all_calls(here.namespace, name)
    assert [one for one in calls if not one["ok"]] == []


def test_a_job_is_captured_and_its_pod_ends(here: Place, web_hosts):
    here.policy("once", "once")
    here.start(job("once", here.fit(caller("once", *web_hosts, count=1))))
    within(60, "the Job is complete", lambda: succeeded(here))
    (ended,) = here.pods("once")
    assert ended["status"]["phase"] == "Succeeded"
    assert status_of(ended, "weir-sidecar")["state"]["terminated"]["exitCode"] == 0
    calls = here.calls(ended["metadata"]["name"])
    assert [(one["ok"], one["weir"]) for one in calls] == [(True, True)] * len(web_hosts)


def succeeded(here: Place) -> bool:
    return here.weir.get("job", "once", "-n", here.namespace)["status"].get("succeeded") == 1


@pytest.mark.parametrize("failure_mode", ["Open", "Closed"])
def test_the_sidecar_outlives_the_applications_last_request(here: Place, web_hosts, failure_mode, mode, note):
    name = f"slow-{failure_mode.lower()}"
    here.policy(name, name, failureMode=failure_mode)
    slow = caller(name, *web_hosts, pause=0.05, linger=4, terminationGracePeriodSeconds=30, restartPolicy="Never")
    here.start(here.fit(slow))
    here.wait_calling(name, *web_hosts)
    with here.weir.follow(here.namespace, name) as lines:
        here.weir.kubectl("delete", "pod", name, "-n", here.namespace, "--timeout=60s")
    asked = next(one["asked_to_end"] for one in lines if "asked_to_end" in one)
    late = [one for one in lines if one.get("at", 0) > asked]
    assert any("ended" in one for one in lines)
    assert max(one["at"] for one in late) > asked + 3
    assert [one for one in late if not (one["ok"] and one["weir"])] == []
    note.append(f"termination, {mode}, {failure_mode}: {len(late)} requests after SIGTERM, 0 failed or direct")


def test_a_prestop_hook_still_has_the_sidecar(here: Place, web_hosts):
    here.policy("hooked", "hooked", failureMode="Closed")
    made = caller("hooked", *web_hosts, pause=0.05, terminationGracePeriodSeconds=30, restartPolicy="Never",
                  container={"lifecycle": {"preStop": {"exec": {"command": ["sleep", "3"]}}}})  # fmt: skip
    here.start(here.fit(made))
    here.wait_calling("hooked", *web_hosts)
    with here.weir.follow(here.namespace, "hooked") as lines:
        asked = time.time()
        here.weir.kubectl("delete", "pod", "hooked", "-n", here.namespace, "--timeout=60s")
    late = [one for one in lines if one.get("at", 0) > asked]
    assert len(late) > 10
    assert [one for one in late if not (one["ok"] and one["weir"])] == []
