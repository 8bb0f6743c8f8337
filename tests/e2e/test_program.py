"""What `kubectl weir` tells of a captured pod: each row of the README's table."""

import json

import pytest

from lab.place import Place
from lab.workloads import caller

pytestmark = [pytest.mark.cluster, pytest.mark.pods, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def asked(here: Place, names) -> Place:
    """A namespace with a pod that calls one host and may not call another, and distrusts a third."""
    (roles, *_) = names.values()
    denied = {"name": "no", "match": {"hosts": [roles["denied"]["host"]]}, "action": "Deny"}
    here.policy("asked", "asked", rules=[denied])
    here.start(here.fit(caller("asked", roles["web"]["host"])))
    here.wait_calling("asked", roles["web"]["host"])
    return here


def weir(here: Place, *args: str) -> str:
    return here.weir.weir(*args, "-n", here.namespace)


def test_flows(asked, names):
    (roles, *_) = names.values()
    lines = weir(asked, "flows", "--pod", "asked", "--last", "100", "-o", "json").splitlines()
    flows = [one for one in map(json.loads, lines) if one.get("protocol") == "tls"]
    assert {(one["pod"], one["host"], one["decision"]) for one in flows} == {
        ("asked", roles["web"]["host"], "intercept")
    }
    assert roles["web"]["host"] in weir(asked, "flows", "-l", "app=asked")


def test_status(asked):
    (row,) = [line.split() for line in weir(asked, "status").splitlines() if "/asked" in line]
    assert row[0] == f"InterceptionPolicy/{asked.namespace}/asked"
    assert row[1:] == ["True", "True", "1", "1", "1", "0"]


def test_explain(asked, names):
    (roles, *_) = names.values()
    for role, decision in (("web", "intercept"), ("denied", "deny")):
        said = json.loads(weir(asked, "explain", "--pod", "asked", "--host", roles[role]["host"], "-o", "json"))
        assert said["decision"] == decision


def test_a_person_decides_in_advance(asked, names):
    (roles, *_) = names.values()
    host = roles["pinned"]["host"]
    asked.policy("pinned", "pinned")
    weir(asked, "exceptions", "pin", host)
    assert decisions(asked) == {host: "Passthrough"}
    asked.start(asked.fit(caller("pinned", host, roots="/origin/ca.crt", count=3)))
    calls = asked.weir.all_calls(asked.namespace, "pinned")
    assert [(one["ok"], one["weir"]) for one in calls] == [(True, False)] * 3
    reasons = {(one["decision"], one["reason"]) for one in asked.records("pinned") if one.get("protocol") == "tls"}
    assert reasons == {("passthrough", "pinned")}
    weir(asked, "exceptions", "forget", host)
    assert host not in decisions(asked)


def decisions(here: Place) -> dict[str, str]:
    found = json.loads(weir(here, "exceptions", "list", "-o", "json"))
    return {one["spec"]["host"]: one["spec"]["decision"] for one in found}


def test_the_doctor_finds_nothing(asked):
    found = [line.split(maxsplit=1) for line in asked.weir.weir("doctor", "--cluster").splitlines()]
    assert {"weir-operator", "weir-serving"} <= {word.rstrip(":") for _, text in found for word in text.split()}
    assert [text for verdict, text in found if verdict != "ok"] == []
