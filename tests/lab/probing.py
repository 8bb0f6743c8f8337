"""Runs probes on the lab's machine, with Weir or without, and gathers what they saw and what Weir recorded."""

import itertools
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lab.lab import ROOT, Lab, Run
from lab.policy import Policy

_number = itertools.count()


@dataclass(frozen=True)
class Probe:
    """One probe: a kind of `lab.probe.KINDS` and its arguments."""

    id: str
    kind: str
    args: dict[str, Any] = field(default_factory=dict)
    alone: bool = False


@dataclass(frozen=True)
class Probed:
    """What the probes saw, and the records of the flows they made."""

    results: dict[str, dict[str, Any]]
    records: list[dict[str, Any]]
    record_file: Path | None

    def outcome(self, probe: str) -> Any:
        return self.results[probe]["outcome"]

    def seconds(self, probe: str) -> float:
        return self.results[probe]["seconds"]

    def records_of(self, **wanted: Any) -> list[dict[str, Any]]:
        return [record for record in self.records if all(record[name] == value for name, value in wanted.items())]


def run_probes(lab: Lab, probes: list[Probe], policy: Policy | None, **options: Any) -> Probed:
    """Run all probes in one go: directly, or under `weir run` with `policy`."""
    number = next(_number)
    probes_file, results_file = lab.directory / f"probes-{number}.json", lab.directory / f"results-{number}.json"
    probes_file.write_text(json.dumps([asdict(probe) for probe in probes]))
    python = str(ROOT / ".venv" / "bin" / "python")
    argv = [python, "-m", "lab.probe", str(probes_file), str(results_file)]
    done: Run = lab.run_weir(argv, policy, **options) if policy else lab.run_direct(argv, **options)
    if done.status:
        raise AssertionError(f"the probes ended with status {done.status}: {done.stderr}")
    return Probed(json.loads(results_file.read_text()), done.records, done.record_file)
