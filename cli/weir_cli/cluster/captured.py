"""What a pod of a cluster is told to do with its flows: by the policies as they are now, and by what is known of its CA."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from weir_cli.cluster import policies
from weir_cli.cluster.kubectl import Kubectl, KubectlError
from weir_operator.cluster.facts import PodFacts, namespace_facts, pod_facts
from weir_operator.cluster.policies import Plan, Policies
from weir_operator.models import ExceptionDecision
from weir_sidecar.contract.flow import Reason
from weir_sidecar.contract.trust import State

_SAID = {ExceptionDecision.PASSTHROUGH: Reason.PINNED, ExceptionDecision.INTERCEPT: Reason.APPROVED}


class Bearing(msgspec.Struct, frozen=True):
    """A TrustException that bears on a flow. `intercept`: what it comes to; `uid` and `ja4` None: any."""

    name: str
    reason: Reason
    intercept: bool
    uid: int | None
    ja4: str | None


class CapturedPod(msgspec.Struct, frozen=True):
    """A pod. `plan` None: no policy selects it."""

    facts: PodFacts
    plan: Plan | None
    exceptions: tuple[Mapping[str, Any], ...]

    def about(self, host: str) -> list[Bearing]:
        """The exceptions that bear on flows to a host; a person's first, then those about the host itself."""
        found = [
            _read(one) for one in self.exceptions if one["spec"]["host"] in (host, "*") and self._mine(one["spec"])
        ]
        return sorted((one for one in found if one is not None), key=lambda one: one.reason not in _SAID.values())

    def _mine(self, spec: Mapping[str, Any]) -> bool:
        of = spec.get("workload")
        return of is None or (of["kind"], of["name"]) == (self.facts.workload.kind, self.facts.workload.name)


def captured_pod(kubectl: Kubectl, pod: str) -> CapturedPod:
    """The pod called NAME or NAMESPACE/NAME. Raises `KubectlError`."""
    given, slash, name = pod.rpartition("/")
    namespace = given if slash else kubectl.current_namespace()
    if not (namespace and name):
        raise KubectlError(f"found {pod!r}; allowed: a pod's name, or NAMESPACE/NAME")
    found = kubectl.json("get", "pod", name, "--namespace", namespace)
    facts = pod_facts(found)
    known = Policies.of(policies.all_of(kubectl, namespace))
    plan = known.plan(namespace_facts(kubectl.json("get", "namespace", namespace)), facts.labels)
    exceptions: Iterable[Any] = kubectl.json("get", "trustexceptions.weir.dev", "--namespace", namespace)["items"]
    return CapturedPod(facts, plan, tuple(exceptions))


def _read(one: Mapping[str, Any]) -> Bearing | None:
    """An exception that changes something; None: what is seen is not enough yet."""
    spec, status = one["spec"], one.get("status") or {}
    app = spec.get("app") or {}
    said = _SAID.get(spec.get("decision", ExceptionDecision.AUTO))
    if said is None and status.get("state", "").lower() != State.BYPASSED:
        return None
    reason = said or Reason(status["reason"])
    return Bearing(one["metadata"]["name"], reason, said is Reason.APPROVED, app.get("uid"), app.get("ja4"))
