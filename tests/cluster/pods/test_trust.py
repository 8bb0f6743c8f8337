"""An application that does not trust the CA: noticed once, told to the other pods of its workload, and a person's to decide."""

import time

import pytest

from lab.weir_cluster import within
from lab.workloads import caller, deployment, policy

pytestmark = [pytest.mark.cluster, pytest.mark.pods]


def exceptions(weir, namespace):
    return weir.get("trustexceptions.weir.dev", "-n", namespace)["items"]


def test_the_second_replica_loses_nothing_and_a_word_acts_within_a_second(weir, origin, shop, note):
    weir.apply(policy("all", shop))
    picky = deployment("picky", caller("picky", origin.host, roots="/origin/ca.crt", pause=0.05))
    weir.apply({**picky, "metadata": {**picky["metadata"], "namespace": shop}})
    weir.wait_rolled_out(shop, "picky")
    (first,) = weir.pods(shop, "app=picky")
    name = first["metadata"]["name"]
    appeared = within(20, "a TrustException", lambda: exceptions(weir, shop))
    found = {one["spec"]["host"]: one for one in exceptions(weir, shop)}
    learned = found[origin.host]
    assert learned["spec"]["workload"] == {"kind": "Deployment", "name": "picky"}
    assert (learned["status"]["state"], learned["status"]["reason"]) == ("Bypassed", "client_distrusts_ca")
    weir.wait_calls(shop, name, lambda call: call["ok"])
    lost = [call for call in weir.calls(shop, name) if not call["ok"]]

    weir.kubectl("scale", "deployment/picky", "-n", shop, "--replicas=2")
    weir.wait_rolled_out(shop, "picky")
    (second,) = [pod["metadata"]["name"] for pod in weir.pods(shop, "app=picky") if pod["metadata"]["name"] != name]
    within(20, "ten calls of the second replica", lambda: len(weir.calls(shop, second)) >= 10)
    assert [call for call in weir.calls(shop, second) if not call["ok"]] == []
    assert {call["weir"] for call in weir.calls(shop, second)} == {False}

    delays = {}
    for decision, ok in (("Intercept", False), ("Passthrough", True)):
        said = time.time()
        weir.kubectl("patch", "trustexception", learned["metadata"]["name"], "-n", shop, "--type=merge",
                     f'--patch={{"spec":{{"decision":"{decision}"}}}}')  # fmt: skip
        patched = time.time()
        for pod in (name, second):
            weir.wait_calls(
                shop, pod, lambda call, ok=ok, said=said: call["at"] > said and call["ok"] is ok, seconds=10
            )
            first_call = next(c for c in weir.calls(shop, pod) if c["at"] > said and c["ok"] is ok)
            delays[decision, pod] = first_call["at"] - patched
        time.sleep(1)
        recent = [call for pod in (name, second) for call in weir.calls(shop, pod) if call["at"] > patched + 1]
        assert recent
        assert {call["ok"] for call in recent} == {ok}
    note.append(
        f"trust exception after {appeared:.1f} s, first replica lost {len(lost)}, second 0; decision to effect, s: "
        + ", ".join(f"{decision} {delay:+.2f}" for (decision, _), delay in delays.items())
    )


def test_a_pin_given_in_advance_loses_no_connection_at_all(weir, origin, shop):
    weir.apply(
        policy("all", shop),
        {
            "apiVersion": "weir.dev/v1alpha1",
            "kind": "TrustException",
            "metadata": {"name": "known", "namespace": shop},
            "spec": {"host": origin.host, "decision": "Passthrough"},
        },
    )
    pod = caller("careful", origin.host, roots="/origin/ca.crt", count=5)
    weir.apply({**pod, "metadata": {**pod["metadata"], "namespace": shop}})
    weir.wait_phase(shop, "careful", "Succeeded")
    assert {(call["ok"], call["weir"]) for call in weir.calls(shop, "careful")} == {(True, False)}
