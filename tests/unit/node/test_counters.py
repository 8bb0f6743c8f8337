"""What the agent's processes count together, and the page that tells it."""

import os
import re
from pathlib import Path

from weir_sidecar.node.cni import Code, Command
from weir_sidecar.node.counters import BUCKETS, Answered, Counters, Phase

DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"
ADD = Answered(Command.ADD, None, 0.02, {Phase.QUEUE: 0.001, Phase.POD: 0.004, Phase.RULES: 0.015})


def values(counters: Counters) -> dict[str, float]:
    lines = [line for line in counters.render().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_what_all_workers_counted_is_summed_up() -> None:
    counters = Counters(3)
    for worker in (0, 2, 2):
        counters.count(worker, ADD)
    counters.count(1, Answered(Command.ADD, Code.TRY_AGAIN_LATER, 70.0, {}))
    counters.turn(12.5, 7)
    found = values(counters)
    add = 'weir_cni_request_seconds_{}{{command="ADD"{}}}'
    assert found[add.format("count", "")] == 4
    assert found[add.format("sum", "")] == 3 * 0.02 + 70
    assert [found[add.format("bucket", f',le="{bound}"')] for bound in BUCKETS] == [0, 0] + [3] * (len(BUCKETS) - 2)
    assert found[add.format("bucket", ',le="+Inf"')] == 4
    assert found['weir_cni_phase_seconds_count{phase="rules"}'] == 3
    assert found['weir_cni_phase_seconds_bucket{phase="queue",le="0.005"}'] == 3
    assert found['weir_cni_errors_total{command="ADD",code="11"}'] == 1
    assert found["weir_node_pods"] == 7
    assert counters.turned == 12.5


def test_a_value_on_a_bound_is_within_it() -> None:
    counters = Counters(1)
    counters.count(0, Answered(Command.DEL, None, BUCKETS[3], {}))
    buckets = [values(counters)[f'weir_cni_request_seconds_bucket{{command="DEL",le="{bound}"}}'] for bound in BUCKETS]
    assert buckets == [0, 0, 0] + [1] * (len(BUCKETS) - 3)


def test_what_a_process_counted_outlives_it() -> None:
    counters = Counters(2)
    child = os.fork()
    if child == 0:
        counters.count(1, ADD)
        os._exit(0)
    os.waitpid(child, 0)
    assert values(counters)['weir_cni_request_seconds_count{command="ADD"}'] == 1


def test_every_metric_is_documented_and_no_other() -> None:
    shown = {line.split()[2] for line in Counters(1).render().decode().splitlines() if line.startswith("# TYPE")}
    documented = re.findall(r"^\| `(weir_(?:cni|node)_\w+)` \|", DOCS.read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(shown)
