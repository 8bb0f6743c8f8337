"""An application that does not trust the CA: its first pod loses a connection to each host, the next pod of it none."""

import pytest

from lab.place import Place
from lab.weir_cluster import within
from lab.workloads import caller, deployment

pytestmark = [pytest.mark.cluster, pytest.mark.pods, pytest.mark.timeout(600)]


@pytest.mark.parametrize("capture", ["TPROXY", "Redirect"])
def test_the_second_pod_loses_nothing(here: Place, web_hosts, capture, note):
    name = f"picky-{capture.lower()}"
    here.policy(name, name, capture={"mode": capture})
    here.start(deployment(name, here.fit(caller(name, *web_hosts, roots="/origin/ca.crt", pause=0.1))))
    here.weir.wait_rolled_out(here.namespace, name)
    first = here.pod_of(name)["metadata"]["name"]
    within(30, "the first pod gets through", lambda: through(here, first) == set(web_hosts))
    within(30, "all is learned", lambda: learned(here, name) >= set(web_hosts))
    lost = {host: [one for one in here.calls(first) if one["host"] == host and not one["ok"]] for host in web_hosts}
    assert {len(calls) for calls in lost.values()} == {1}

    here.weir.kubectl("scale", f"deployment/{name}", "-n", here.namespace, "--replicas=2")
    here.weir.wait_rolled_out(here.namespace, name)
    (second,) = {one["metadata"]["name"] for one in here.pods(name)} - {first}
    within(30, "calls of the second pod", lambda: len(here.calls(second)) >= 10 * len(web_hosts))
    calls = here.calls(second)
    assert [one for one in calls if not one["ok"] or one["weir"]] == []
    reasons = {(one["decision"], one["reason"]) for one in here.records(second) if one.get("protocol") == "tls"}
    assert reasons == {("passthrough", "client_distrusts_ca")}
    note.append(
        f"distrust, {here.mode}, {capture}: the first pod lost 1 connection to each of {len(lost)} hosts, the second 0"
    )
    here.weir.kubectl("delete", f"deployment/{name}", "-n", here.namespace, "--wait=false")


def through(here: Place, pod: str) -> set[str]:
    return {one["host"] for one in here.calls(pod) if one["ok"]}


def learned(here: Place, workload: str) -> set[str]:
    found = here.weir.get("trustexceptions.weir.dev", "-n", here.namespace)["items"]
    return {
        one["spec"]["host"]
        for one in found
        if one["spec"]["workload"] == {"kind": "Deployment", "name": workload}
        and one.get("status", {}).get("state") == "Bypassed"
    }
