"""Golden files of injected pods; WEIR_GOLDEN=write makes them anew, for a person to review."""

import os
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from golden.pod_cases import CASES, NAMESPACE, shown
from weir_operator.injection.inject import Injected, inject

GOLDEN = Path(__file__).parents[3] / "golden" / "pods"


def injected(name):
    pod, plan, settings = CASES[name]
    result = inject(pod, NAMESPACE, plan, settings)
    assert isinstance(result, Injected)
    return result


@pytest.mark.parametrize("name", CASES)
def test_golden(name):
    result = injected(name)
    text = "".join(f"# warning: {warning}\n" for warning in result.warnings) + shown(result.pod)
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("WEIR_GOLDEN") == "write":
        path.write_text(text)
    assert path.read_text() == text


def test_every_golden_file_has_its_case():
    assert {path.stem for path in GOLDEN.iterdir()} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_golden_pods_are_valid(name):
    pod = yaml.safe_load((GOLDEN / f"{name}.yaml").read_text())
    kubernetes_validate.validate(pod, "1.36", strict=True)


@pytest.mark.parametrize("name", CASES)
def test_a_second_call_changes_nothing(name):
    once = injected(name)
    again = inject(once.pod, NAMESPACE, *CASES[name][1:])
    assert again == once
