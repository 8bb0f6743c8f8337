"""The pod with Weir in it. Pure, and idempotent: what an earlier call did is undone first."""

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

import msgspec
from msgspec.structs import replace

from weir_operator.cluster.facts import CAPTURED_LABEL, CONFIG_ANNOTATION, INJECT_LABEL, is_windows, workload_of
from weir_operator.cluster.policies import Plan
from weir_operator.compile import Injection
from weir_operator.injection import application, checks, harden, meshes, ours
from weir_operator.injection.containers import Settings, init_container, sidecar_container, volumes
from weir_operator.injection.shape import annotations, containers, labels, listed
from weir_sidecar.contract.config import Action, IDRange, Match, PortRange, Rule, SidecarConfig, encode

__all__ = ["Injected", "LeftAlone", "LeftAloneReason", "Refused", "Settings", "inject", "pod_config"]

API_SERVER_RULE = "weir/kubernetes-api"
"""The rule that lets clients of the API server pass."""
POLICIES_ANNOTATION = "weir.dev/policies"
"""The policies that selected the pod when it started, KIND/NAME or KIND/NAMESPACE/NAME, with commas."""

_STATIC_ANNOTATION = "kubernetes.io/config.mirror"
# TotalAnnotationSizeLimitB of k8s.io/apimachinery: the names and values of all annotations together.
_MAX_ANNOTATIONS = 256 * 1024


class Injected(msgspec.Struct, frozen=True):
    """The pod to run instead; it shares with the given one what is unchanged. `warnings` are for who created it."""

    pod: dict[str, Any]
    warnings: tuple[str, ...] = ()


class LeftAloneReason(Enum):
    """Why a pod that policies select is not captured, without anything being wrong."""

    HOST_NETWORK = "host network"
    WINDOWS = "Windows"
    OPTED_OUT = "opted out"
    STATIC = "static pod"


class LeftAlone(msgspec.Struct, frozen=True):
    """The pod stays as it is."""

    reason: LeftAloneReason
    warnings: tuple[str, ...] = ()


class Refused(msgspec.Struct, frozen=True):
    """The pod cannot be captured and must not run uncaptured; the text says what is wrong and what to do."""

    message: str


def inject(pod: Mapping[str, Any], namespace: str, plan: Plan, settings: Settings) -> Injected | LeftAlone | Refused:
    """Put Weir into a v1 Pod of `namespace`, as `plan` asks. Never changes `pod`."""
    left_alone = _left_alone(pod, plan)
    if left_alone is not None:
        return left_alone
    bare = ours.without_ours(pod)
    workload = workload_of(pod.get("metadata") or {})
    config = pod_config(plan.config, f"{namespace}/{workload.kind}/{workload.name}", settings, meshes.uids(bare))
    problems = tuple(_problems(bare, config, plan.injection))
    if problems:
        return Refused(f"Weir cannot capture this pod, and policies ask for it: {'; '.join(problems)}")
    metadata = _metadata(pod, config, plan)
    size = sum(len(name.encode()) + len(value.encode()) for name, value in metadata["annotations"].items())
    if size > _MAX_ANNOTATIONS:
        return Refused(
            f"the pod's annotations would come to {size} bytes, {len(encode(config))} of them for {CONFIG_ANNOTATION}; a"
            f" pod may have {_MAX_ANNOTATIONS}: shorten what the policies {', '.join(map(str, plan.policies))} come to"
        )
    spec, warnings = _spec(bare, config, plan.injection, settings)
    return Injected({**pod, "metadata": metadata, "spec": spec}, (*_opt_out(pod), *warnings))


def pod_config(
    config: SidecarConfig, workload: str, settings: Settings, exempt: tuple[IDRange, ...] = ()
) -> SidecarConfig:
    """What policies come to, as one pod is told it. `workload` is NAMESPACE/KIND/NAME; `exempt` are users of meshes."""
    exclude = config.capture.exclude
    uids = (*exclude.uids, *(one for one in exempt if one not in exclude.uids))
    return replace(
        config,
        rules=(*config.rules, *_api_server(config, settings)),
        workload=workload,
        stream=settings.stream,
        setup=settings.setup,
        ports=replace(config.ports, probe=settings.probe_port),
        capture=replace(config.capture, exclude=replace(exclude, uids=uids), before_nat=bool(exempt)),
    )


def _api_server(config: SidecarConfig, settings: Settings) -> Iterator[Rule]:
    """The last rule: what no other decides, and goes to the API server, passes.

    Its clients bring the cluster's CA, and trust nothing else: each would fail once. Where the default is Deny it is denied.
    """
    if settings.api_server is not None and config.default_action is Action.INTERCEPT:
        address, port = settings.api_server
        match = Match(cidrs=(address,), ports=(PortRange(port, port),), protocols=("tls",))
        yield Rule(API_SERVER_RULE, match, Action.PASSTHROUGH)


def _problems(bare: Mapping[str, Any], config: SidecarConfig, injection: Injection) -> Iterator[str]:
    yield from checks.problems(bare, config)
    if injection.harden:
        for container in _of_application(bare):
            yield from harden.problems(container)


def _of_application(bare: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (one for one in containers(bare) if one["name"] not in meshes.CONTAINERS)


def _left_alone(pod: Mapping[str, Any], plan: Plan) -> LeftAlone | None:
    spec = pod.get("spec") or {}
    if is_windows(spec):
        return LeftAlone(LeftAloneReason.WINDOWS)
    if _STATIC_ANNOTATION in annotations(pod):
        return LeftAlone(LeftAloneReason.STATIC)
    if spec.get("hostNetwork"):
        text = (
            "Weir does not capture this pod: hostNetwork: true, so its packets are the node's; use the pod's own network,"
            f' or label it {INJECT_LABEL}: "false" if this is meant'
        )
        return LeftAlone(LeftAloneReason.HOST_NETWORK, () if _asks_out(pod) and not plan.cluster else (text,))
    if _asks_out(pod) and not plan.cluster:
        return LeftAlone(LeftAloneReason.OPTED_OUT)
    return None


def _asks_out(pod: Mapping[str, Any]) -> bool:
    return labels(pod).get(INJECT_LABEL) == "false"


def _opt_out(pod: Mapping[str, Any]) -> tuple[str, ...]:
    text = f'label {INJECT_LABEL}: "false" has no effect: a cluster policy selects this pod, and Weir captures it'
    return (text,) if _asks_out(pod) else ()


def _metadata(pod: Mapping[str, Any], config: SidecarConfig, plan: Plan) -> dict[str, Any]:
    own = {CONFIG_ANNOTATION: encode(config).decode(), POLICIES_ANNOTATION: ",".join(map(str, plan.policies))}
    return {
        **(pod.get("metadata") or {}),
        "labels": {**labels(pod), CAPTURED_LABEL: "true"},
        "annotations": {**annotations(pod), **own},
    }


def _spec(
    bare: Mapping[str, Any], config: SidecarConfig, injection: Injection, settings: Settings
) -> tuple[dict[str, Any], tuple[str, ...]]:
    spec = bare["spec"]
    own_volumes = {volume["name"]: volume for volume in listed(spec, "volumes")}
    warnings = [*checks.warnings(bare), *meshes.warnings(bare)]

    def equipped(field: str) -> list[dict[str, Any]]:
        made = [_equipped(container, injection, own_volumes) for container in listed(spec, field)]
        warnings.extend(text for _, texts in made for text in texts)
        return [container for container, _ in made]

    ours_first = [
        init_container(bare, injection, settings),
        sidecar_container(bare, injection, settings, config.startup),
    ]
    after = {
        **spec,
        "initContainers": [*ours_first, *equipped("initContainers")],
        "containers": equipped("containers"),
        "volumes": [*listed(spec, "volumes"), *volumes(injection)],
    }
    secrets = _pull_secrets(spec, settings)
    if secrets:
        after["imagePullSecrets"] = secrets
    return after, tuple(warnings)


def _equipped(
    container: Mapping[str, Any], injection: Injection, own_volumes: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    if container["name"] in meshes.CONTAINERS:
        return application.without_ours(container), ()
    safe = harden.hardened(container) if injection.harden else container
    if injection.containers is None or container["name"] in injection.containers:
        return application.equip(safe, injection, own_volumes)
    return application.without_ours(safe), ()


def _pull_secrets(spec: Mapping[str, Any], settings: Settings) -> list[Mapping[str, Any]]:
    own = listed(spec, "imagePullSecrets")
    names = {one.get("name") for one in own}
    return [*own, *({"name": name} for name in settings.image_pull_secrets if name not in names)]
