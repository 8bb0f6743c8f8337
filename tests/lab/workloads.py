"""Applications for clusters that run pods, and the policies that select them.

Everything runs from Weir's own two images, which the nodes must have: the applications are the Python programs of
`lab/programs`, in the control image.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weir_sidecar import __version__

REGISTRY = os.environ.get("WEIR_TEST_REGISTRY", "").rstrip("/")
"""Where the images' names begin, if they are not those of `make images`."""
IMAGE = f"{REGISTRY or 'docker.io'}/weir/control:{__version__}"
SIDECAR_IMAGE = f"{REGISTRY or 'docker.io'}/weir/sidecar:{__version__}"
STRICT = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
RESTRICTED = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
"""What the level restricted of Pod Security asks of a container, and of a pod."""
_PROGRAMS = Path(__file__).with_name("programs")

type Object = dict[str, Any]


def container(program: str, *args: object, name: str = "app", **changes: Any) -> Object:
    """A container that runs one of the programs, and may know the origin's CA."""
    text = (_PROGRAMS / f"{program}.py").read_text()
    return {
        "name": name,
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", text, *map(str, args)],
        "volumeMounts": [{"name": "origin-ca", "mountPath": "/origin"}],
        **changes,
    }


def pod(name: str, *containers: Mapping[str, Any], **changes: Any) -> Object:
    """A pod with the label `app`, which runs once."""
    spec = {
        "containers": list(containers),
        "volumes": [{"name": "origin-ca", "configMap": {"name": "origin-ca", "optional": True}}],
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 2,
        **changes,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


def caller(
    name: str,
    *hosts: str,
    roots: str = "-",
    pause: float = 0.1,
    count: int = 0,
    linger: float = 0,
    **changes: Any,
) -> Object:
    """A pod that calls hosts again and again. `roots`: a file to verify them with; `-`: what the system has."""
    made = container("caller", ",".join(hosts), roots, pause, count, linger, **changes.pop("container", {}))
    return pod(name, made, **{"restartPolicy": "Never" if count else "Always", **changes})


def strict(made: Object) -> Object:
    """The same pod, as the level restricted of Pod Security wants it."""
    spec = made["spec"]
    hardened = {
        kind: [{**one, "securityContext": STRICT} for one in spec[kind]]
        for kind in ("initContainers", "containers")
        if kind in spec
    }
    return {**made, "spec": {**spec, **hardened, "securityContext": RESTRICTED}}


def deployment(name: str, made: Mapping[str, Any], replicas: int = 1) -> Object:
    """A Deployment of pods like `made`."""
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {**made["spec"], "restartPolicy": "Always"}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


def job(name: str, made: Mapping[str, Any]) -> Object:
    """A Job of one pod like `made`, which is tried once."""
    template = {"metadata": {"labels": {"app": name}}, "spec": made["spec"]}
    spec = {"template": template, "backoffLimit": 0}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


def policy(name: str, namespace: str, app: str | None = None, **spec: Any) -> Object:
    """An InterceptionPolicy for the pods of an application; None: for all of the namespace."""
    selector = {} if app is None else {"matchLabels": {"app": app}}
    return {
        "apiVersion": "weir.dev/v1alpha1",
        "kind": "InterceptionPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"podSelector": selector, **spec},
    }
