from datetime import UTC, datetime

from samples.worlds import exception, pod, policy, world
from weir_operator.operate.metrics import Metrics
from weir_operator.operate.pods import tally
from weir_operator.operate.statuses import statuses


def lines(metrics):
    return {
        line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in metrics.text().splitlines() if line[0] != "#"
    }


def test_before_the_first_run_all_is_nought():
    metrics = Metrics()
    assert not metrics.ran
    assert lines(metrics)['weir_pods_missed{reason="WebhookMissed"}'] == 0


def test_a_run_is_told():
    metrics = Metrics()
    seen = world(policy(), exception(status={"state": "Bypassed"}), pods=[pod("a"), pod("b", captured=True)])
    tallies = tally(seen)
    metrics.observe(seen, tallies, statuses(seen, tallies, datetime(2027, 1, 1, tzinfo=UTC)))
    metrics.reconciled(0.5, 2)
    metrics.wrote("InterceptionPolicy")
    metrics.certificates({"ca": 1800000000.0})
    found = lines(metrics)
    assert metrics.ran
    assert found["weir_pods_captured"] == 1
    assert found['weir_pods_missed{reason="WebhookMissed"}'] == 1
    assert found['weir_policies{kind="InterceptionPolicy",condition="Degraded",status="True"}'] == 1
    assert found['weir_trust_exceptions{state="bypassed"}'] == 1
    assert found["weir_reconcile_seconds_sum"] == 0.5
    assert found["weir_reconcile_errors_total"] == 2
    assert found['weir_status_writes_total{kind="InterceptionPolicy"}'] == 1
    assert found['weir_certificate_expiry_seconds{certificate="ca"}'] == 1800000000


def test_each_family_says_what_it_is_before_its_samples():
    text = Metrics().text()
    for line in text.splitlines():
        if line[0] != "#":
            name = line.split("{")[0].split(" ")[0]
            assert text.index(f"# TYPE {name} ") < text.index(f"\n{line}")
