"""The chart, through helm."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "weir"
HELM = shutil.which("helm")
NO_HELM = "no helm on PATH"


def helm(
    *args: str, home: Path, values: Mapping[str, Any] | None = None, kubeconfig: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """helm, whatever its end. `home` is where it keeps what it keeps; `values` are given as a file."""
    assert HELM
    argv = [HELM, *args]
    if values is not None:
        argv += ["--values", "-"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HELM_", "KUBE"))}
    environment |= {name: str(home) for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")}
    environment |= {"KUBECONFIG": str(kubeconfig or home / "none"), "KUBECACHEDIR": str(home)}
    given = yaml.safe_dump(dict(values or {}))
    return subprocess.run(argv, input=given, capture_output=True, text=True, check=False, env=environment, timeout=120)


def objects(manifests: str) -> Iterator[dict[str, Any]]:
    """The objects in the text that helm renders."""
    yield from (obj for obj in yaml.safe_load_all(manifests) if obj)
