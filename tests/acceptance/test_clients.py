"""Real clients, with TLS 1.2 and 1.3: one that trusts, one that does not, and one that policy never touches.

All commands of one column run under one `weir run`; what each test looks at is one cell. The direct run, and those of
clients that are not to trust Weir's CA, are given the lab's root by the client's own option, and nothing else.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from lab.clients import CLIENTS, Client
from lab.lab import ROOT, Lab
from lab.policy import Policy

pytestmark = [pytest.mark.netns, pytest.mark.timeout(300)]

VERSIONS = {"tls12": "1.2", "tls13": "1.3"}
ATTEMPTS = 4
"""Two may fail, the third must work; one more tells a slow start from a lost cause."""

each_client = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
each_version = pytest.mark.parametrize("version", VERSIONS)


@dataclass(frozen=True)
class Column:
    """What happened to every client in one of the ways of running them."""

    label: str
    attempts: dict[str, list[dict[str, Any]]]
    records: list[dict[str, Any]]

    def of(self, client: Client, version: str) -> list[dict[str, Any]]:
        if reason := client.missing():
            pytest.skip(f"client {client.name}: {reason} (scripts/test-clients installs it)")
        return self.attempts[f"{client.name}-{version}"]

    def records_of(self, client: Client, version: str) -> list[dict[str, Any]]:
        host = _host(client, version, self.label)
        return [r for r in self.records if r["protocol"] == "tls" and r["host"] == host]


def _host(client: Client, version: str, label: str) -> str:
    return f"{client.name}-{label}.{version}.weir.test"


def _run_column(lab: Lab, label: str, *, own_trust: bool, run: Callable[[list[str]], Any]) -> Column:
    jobs = []
    for client in (client for client in CLIENTS if not client.missing()):
        for version in VERSIONS:
            host = _host(client, version, label)
            command = client.build(host, lab.pki if own_trust else None, lab.directory)
            job = {"id": f"{client.name}-{version}", "argv": command.argv, "env": command.env}
            jobs.append({**job, "attempts": ATTEMPTS, "timeout": 20})
    jobs_file, results_file = lab.directory / f"{label}-jobs.json", lab.directory / f"{label}-results.json"
    jobs_file.write_text(json.dumps(jobs))
    python = str(ROOT / ".venv" / "bin" / "python")
    done = run([python, "-m", "lab.driver", str(jobs_file), str(results_file)])
    assert done.status == 0, done.stderr
    return Column(label, json.loads(results_file.read_text()), done.records)


@pytest.fixture(scope="module")
def direct(lab: Lab) -> Column:
    return _run_column(lab, "direct", own_trust=True, run=lambda argv: lab.run_direct(argv, timeout=200))


@pytest.fixture(scope="module")
def trusted(weir_lab: Lab) -> Column:
    def run(argv: list[str]):
        return weir_lab.run_weir(argv, Policy(root=weir_lab.pki.ca_file), timeout=200)

    return _run_column(weir_lab, "trusted", own_trust=False, run=run)


@pytest.fixture(scope="module")
def distrusting(weir_lab: Lab) -> Column:
    def run(argv: list[str]):
        return weir_lab.run_weir(argv, Policy(root=weir_lab.pki.ca_file), timeout=250)

    return _run_column(weir_lab, "distrusting", own_trust=True, run=run)


@pytest.fixture(scope="module")
def pinned(weir_lab: Lab) -> Column:
    hosts = tuple(_host(client, version, "pinned") for client in CLIENTS for version in VERSIONS)
    policy = Policy(root=weir_lab.pki.ca_file, never_intercept=hosts)

    def run(argv: list[str]):
        return weir_lab.run_weir(argv, policy, timeout=200)

    return _run_column(weir_lab, "pinned", own_trust=True, run=run)


def _answer(attempts: list[dict[str, Any]]) -> str:
    """What the client printed in the end. It must have succeeded."""
    last = attempts[-1]
    assert last["status"] == 0, f"failed {len(attempts)} times; the last: {last['stderr'][-1000:]}"
    return last["stdout"]


@each_version
@each_client
def test_works_without_weir(direct: Column, client: Client, version: str) -> None:
    attempts = direct.of(client, version)
    assert _answer(attempts)
    assert len(attempts) == 1


@each_version
@each_client
def test_a_client_that_trusts_is_intercepted(direct: Column, trusted: Column, client: Client, version: str) -> None:
    attempts = trusted.of(client, version)
    assert _answer(attempts) == _answer(direct.of(client, version))
    assert len(attempts) == 1, attempts[0]["stderr"][-1000:]
    records = trusted.records_of(client, version)
    assert records
    for record in records:
        assert (record["decision"], record["reason"]) == ("intercept", "default")
        assert record["tls"]["client_version"] == record["tls"]["upstream_version"] == VERSIONS[version]


@each_version
@each_client
def test_a_client_that_distrusts_fails_at_most_twice(
    direct: Column, distrusting: Column, client: Client, version: str
) -> None:
    attempts = distrusting.of(client, version)
    assert _answer(attempts) == _answer(direct.of(client, version))
    failed = len(attempts) - 1
    assert failed <= 2, attempts
    passed = [r for r in distrusting.records_of(client, version) if r["decision"] == "passthrough"]
    assert passed
    assert {r["reason"] for r in passed} <= {"client_distrusts_ca", "app_distrusts_ca"}


@each_version
@each_client
def test_a_host_that_policy_pins_is_never_touched(direct: Column, pinned: Column, client: Client, version: str) -> None:
    # The client trusts the origin's root alone: that it worked at once says that it saw the origin's own certificate.
    attempts = pinned.of(client, version)
    assert _answer(attempts) == _answer(direct.of(client, version))
    assert len(attempts) == 1, attempts[0]["stderr"][-1000:]
    records = pinned.records_of(client, version)
    assert records
    assert {(r["decision"], r["reason"]) for r in records} == {("passthrough", "never_intercept")}


def test_the_distrusting_column_starts_with_interception(distrusting: Column, note: list[str]) -> None:
    """Guards the column above: a Weir that intercepts nothing would pass it."""
    assert any(record["decision"] == "intercept" for record in distrusting.records)
    failed = (f"{name} {len(attempts) - 1}" for name, attempts in sorted(distrusting.attempts.items()))
    note.append(f"attempts that failed before passthrough: {', '.join(failed)}")
