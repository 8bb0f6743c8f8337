"""Our two containers and their volumes.

Both start as root, which is the only way that a container of a pod gets capabilities, and become the proxy's own user. In
CNI mode they are that user from the start.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from weir_operator.cluster.facts import CONFIG_ANNOTATION, INIT, SIDECAR
from weir_operator.compile import AUTHORITY_DIR, ROOTS_DIR, Injection
from weir_operator.injection import ours
from weir_operator.injection.shape import pod_security
from weir_sidecar.contract import pod as paths
from weir_sidecar.contract.config import Identity, Port, Setup, Startup, Stream
from weir_sidecar.contract.http import CA_SUFFIX, HOSTS_SUFFIX
from weir_sidecar.contract.stream import AUDIENCE

METRICS_PORT = "weir-metrics"
"""The name of the port with /metrics, for who scrapes pods."""

# Seconds. A sidecar is ready in well under one; nodes that pull images, or are busy, may take long.
_STARTUP_PERIOD = 1
_STARTUP_FAILURES = 120
_LIVENESS_PERIOD = 10
_LIVENESS_FAILURES = 6
_READABLE = 0o444
# Half its life before a token ends the kubelet has written a new one.
_TOKEN_SECONDS = 3600


class Settings(msgspec.Struct, frozen=True):
    """What the installation says about every captured pod. Resources as a container has them: limits, requests."""

    image: str
    pull_policy: str | None = None
    image_pull_secrets: tuple[str, ...] = ()
    init_resources: Mapping[str, Any] = {}
    sidecar_resources: Mapping[str, Any] = {}
    stream: Stream | None = None
    probe_port: Port = 15804
    api_server: tuple[str, Port] | None = None
    """Where pods find the API server."""
    setup: Setup | msgspec.UnsetType = msgspec.UNSET
    """CNI: the nodes have agents that load the rules, and no container of ours needs a capability."""


def init_container(pod: Mapping[str, Any], injection: Injection, settings: Settings) -> dict[str, Any]:
    """What loads the rules, makes the CA and writes the trust files, and ends."""
    return {
        **_common(INIT, settings),
        "command": ["python", "-m", "weir_sidecar.podsetup"],
        "resources": dict(settings.init_resources),
        # What went wrong is then in the pod's status too.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": _security(pod, settings, {"runAsUser": 0}, ["NET_ADMIN", "SETUID", "SETGID"]),
        "volumeMounts": [*_mounts(injection), _mount(ours.TRUST, paths.TRUST)],
    }


def sidecar_container(
    pod: Mapping[str, Any], injection: Injection, settings: Settings, startup: Startup
) -> dict[str, Any]:
    """The proxy: a native sidecar, so that it starts before and ends after the application, and Jobs end."""
    # A pod whose containers all name one user gets its token readable by that user alone, which is not the proxy's. So
    # none is named, unless the pod names one for all and the image's root has to be asked for.
    user = {"runAsUser": 0} if "runAsUser" in pod_security(pod) else {}
    return {
        **_common(SIDECAR, settings),
        "command": ["python", "-m", "weir_sidecar"],
        "args": _arguments(pod),
        "restartPolicy": "Always",
        "env": [
            {"name": "WEIR_POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "WEIR_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "ports": [{"name": METRICS_PORT, "containerPort": settings.probe_port, "protocol": "TCP"}],
        "resources": dict(settings.sidecar_resources),
        **_probes(settings.probe_port, startup),
        "securityContext": _security(pod, settings, user, ["NET_RAW", "NET_BIND_SERVICE", "SETUID", "SETGID"]),
        "volumeMounts": [
            *_mounts(injection),
            _mount(ours.TRUST, paths.TRUST, read_only=True),
            _mount(ours.TOKEN, paths.TOKEN_DIR, read_only=True),
            *([_mount(ours.CREDENTIALS, paths.CREDENTIALS, read_only=True)] if injection.credentials else ()),
        ],
    }


def volumes(injection: Injection) -> list[dict[str, Any]]:
    """What our containers mount. A ConfigMap that is missing holds no roots; without the CA's Secret the pod waits."""
    annotation = {"fieldPath": f"metadata.annotations['{CONFIG_ANNOTATION}']"}
    token = {"audience": AUDIENCE, "expirationSeconds": _TOKEN_SECONDS, "path": paths.TOKEN.rpartition("/")[2]}
    made: list[dict[str, Any]] = [
        {"name": ours.POD, "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
        {"name": ours.TRUST, "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
        {
            "name": ours.INFO,
            "downwardAPI": {"items": [{"path": paths.CONFIG.rpartition("/")[2], "fieldRef": annotation}]},
        },
        {"name": ours.TOKEN, "projected": {"sources": [{"serviceAccountToken": token}]}},
    ]
    if injection.secret is not None:
        made.append({"name": ours.AUTHORITY, "secret": {"secretName": injection.secret}})
    if injection.credentials:
        made.append(_credentials(injection))
    made += [
        {"name": ours.roots_volume(number), "configMap": {"name": name, "optional": True}}
        for number, name in enumerate(injection.config_maps)
    ]
    return made


def _credentials(injection: Injection) -> dict[str, Any]:
    """Of each Secret the key, and what its owner says of it. What is missing may come later; requests wait for none of it.

    Kubernetes gives no file of a Secret to one user: who may read it is who has it mounted, and that is the sidecar.
    """
    keys: dict[str, dict[str, None]] = {}
    for name, key in injection.credentials:
        keys.setdefault(name, {}).update(dict.fromkeys((key, key + HOSTS_SUFFIX, key + CA_SUFFIX)))
    sources = [
        {
            "secret": {
                "name": name,
                "optional": True,
                "items": [{"key": one, "path": f"{name}/{one}"} for one in wanted],
            }
        }
        for name, wanted in keys.items()
    ]
    return {"name": ours.CREDENTIALS, "projected": {"sources": sources, "defaultMode": _READABLE}}


def _common(name: str, settings: Settings) -> dict[str, Any]:
    pull = {} if settings.pull_policy is None else {"imagePullPolicy": settings.pull_policy}
    return {"name": name, "image": settings.image, **pull}


def _arguments(pod: Mapping[str, Any]) -> list[str]:
    group = pod_security(pod).get("fsGroup")
    return [
        *("--run-dir", paths.RUN_DIR, "--state-dir", paths.RUN_DIR, "--record", "-"),
        *("--started-config", paths.CONFIG, "--token-file", paths.TOKEN),
        *(() if group is None else ("--group", str(group))),
    ]


def _probes(port: int, startup: Startup) -> dict[str, Any]:
    liveness = {
        "httpGet": {"path": "/healthz", "port": port},
        "periodSeconds": _LIVENESS_PERIOD,
        "failureThreshold": _LIVENESS_FAILURES,
    }
    if startup is Startup.OPEN:
        return {"livenessProbe": liveness}
    # The kubelet starts no later container before a native sidecar has passed this.
    ready = {
        "httpGet": {"path": "/readyz", "port": port},
        "periodSeconds": _STARTUP_PERIOD,
        "failureThreshold": _STARTUP_FAILURES,
    }
    return {"startupProbe": ready, "livenessProbe": liveness}


def _security(
    pod: Mapping[str, Any], settings: Settings, user: Mapping[str, int], capabilities: list[str]
) -> dict[str, Any]:
    # A pod's AppArmor profile is made for its application. Where the pod names none, a node may have no AppArmor at all,
    # and would refuse a container that names one.
    app_armor = {"appArmorProfile": {"type": "RuntimeDefault"}} if "appArmorProfile" in pod_security(pod) else {}
    proxy = Identity()
    if settings.setup is Setup.CNI:
        # What the Pod Security level "restricted" asks for.
        who: dict[str, Any] = {"runAsUser": proxy.uid, "runAsGroup": proxy.gid, "runAsNonRoot": True}
        rights: dict[str, Any] = {"drop": ["ALL"]}
    else:
        who, rights = {**user, "runAsNonRoot": False}, {"drop": ["ALL"], "add": capabilities}
    return {
        **who,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": rights,
        "seccompProfile": {"type": "RuntimeDefault"},
        **app_armor,
    }


def _mounts(injection: Injection) -> list[dict[str, Any]]:
    """The mounts of both."""
    mounts = [_mount(ours.POD, paths.PRIVATE), _mount(ours.INFO, paths.INFO, read_only=True)]
    if injection.secret is not None:
        mounts.append(_mount(ours.AUTHORITY, AUTHORITY_DIR, read_only=True))
    mounts += [
        _mount(ours.roots_volume(number), f"{ROOTS_DIR}/{name}", read_only=True)
        for number, name in enumerate(injection.config_maps)
    ]
    return mounts


def _mount(volume: str, path: str, *, read_only: bool = False) -> dict[str, Any]:
    return {"name": volume, "mountPath": path, **({"readOnly": True} if read_only else {})}
