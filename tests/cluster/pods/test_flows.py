"""What captured pods send, as the program shows it: the table, a filter, an archive, a curl command that can be run."""

import json

import pytest

from lab.collector import collector
from lab.running import wait_for
from lab.workloads import caller, policy

pytestmark = [pytest.mark.cluster, pytest.mark.pods]


@pytest.fixture
def caller_pod(weir, origin, shop):
    """A pod that sends requests until it is deleted, and whose first is recorded."""
    weir.apply(policy("all", shop, logging={"headers": "Redacted", "tracing": "Propagate"}))
    pod = caller("hello", origin.host, pause=1)
    weir.apply({**pod, "metadata": {**pod["metadata"], "namespace": shop}})
    weir.wait_phase(shop, "hello", "Running")
    wait_for("a flow with a request", lambda: len(flows(weir, shop, "--filter=is:request reason:*").splitlines()) > 1)
    return pod


def flows(weir, shop, *arguments):
    return weir.weir("flows", "-n", shop, "--pod", "hello", *arguments)


def test_requests_are_chosen_and_exported(weir, origin, shop, caller_pod):
    head, *rows = flows(weir, shop, f"--filter=is:request host:{origin.host} status:200 reason:*").splitlines()
    assert head.split()[:2] == ["TIME", "ID"]
    assert rows
    assert flows(weir, shop, "--filter=is:request status:>=400").splitlines() == [head]
    (entry, *_) = json.loads(flows(weir, shop, "--har", "-", "--filter=reason:*"))["log"]["entries"]
    assert entry["request"]["url"].startswith(f"https://{origin.host}")
    assert entry["request"]["headers"]
    assert entry["_weir"]["pod"] == "hello"


def test_a_request_is_repeated_by_the_command_for_it(weir, origin, shop, caller_pod):
    row = flows(weir, shop, "--filter=is:request reason:*", "--last", "1").splitlines()[1]
    command = flows(weir, shop, "--curl", row.split()[1])
    assert command.startswith("curl --http")
    assert f"{origin.host}:443:" in command.partition("--resolve ")[2]
    # In the pod, whose image has no curl: by what a shell makes of it.
    words = weir.kubectl(
        "exec", "hello", "-n", shop, "-c", "app", "--", "sh", "-c", f'curl() {{ echo "$@"; }}; {command}'
    )
    assert words.split()[1] == f"https://{origin.host}/"


def test_requests_are_sent_as_spans_of_the_pod(weir, origin, shop, caller_pod):
    chosen = "--filter=is:request status:200 reason:*"
    wait_for("two requests", lambda: len(flows(weir, shop, chosen).splitlines()) > 2)
    with collector() as target:
        words = flows(weir, shop, chosen, "--last", "2", "--otlp", target.url)
        assert "2 spans sent" in words
        told = [json.loads(line) for line in flows(weir, shop, "-o", "json", "--filter=is:request").splitlines()]
        traces = {one["trace"]["span_id"]: one["trace"]["trace_id"] for one in told}
        for one in target.spans:
            assert traces[one.span.span_id.hex()] == one.span.trace_id.hex()
            assert one.attributes["server.address"] == origin.host
            assert one.resource["service.name"] == one.resource["k8s.pod.name"] == "hello"
            assert one.resource["k8s.namespace.name"] == shop
