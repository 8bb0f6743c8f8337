"""TrustException objects: what pods learned about (host, app), and a person's word on it, which reaches them at once."""

import json
from collections.abc import Iterator
from typing import Any

from weir_cli.cluster.kubectl import Kubectl, KubectlError
from weir_cli.text import table
from weir_operator.models import API_VERSION, ExceptionDecision
from weir_sidecar.contract.trust import Word
from weir_sidecar.core.trust_change import TrustChange

KIND = "trustexceptions.weir.dev"

_HEAD = (
    "NAMESPACE",
    "NAME",
    "HOST",
    "WORKLOAD",
    "UID",
    "STATE",
    "REASON",
    "ALERT",
    "DECISION",
    "PODS",
    "LAST SEEN",
    "UNTIL",
)
_DECISIONS = {Word.APPROVE: ExceptionDecision.INTERCEPT, Word.PIN: ExceptionDecision.PASSTHROUGH}

type Workload = tuple[str, str]
"""Kind and name."""


def listed(kubectl: Kubectl) -> list[dict[str, Any]]:
    """The objects as the API server has them. Raises `KubectlError`."""
    return kubectl.items(KIND)


def as_table(found: list[dict[str, Any]]) -> str:
    """The objects for people."""
    if not found:
        return "nothing is known: no intercepted client has failed to trust the CA, and nobody has decided anything"
    return table(_HEAD, (_row(one) for one in found))


def apply(kubectl: Kubectl, change: TrustChange, workload: Workload | None) -> Iterator[str]:
    """Say a person's word on all objects it is about, and make one where there is none. Says what was done, one line each.

    Raises `KubectlError`.
    """
    about = [one for one in listed(kubectl) if _is_about(one["spec"], change, workload)]
    if change.word is Word.FORGET:
        if not about:
            raise KubectlError(f"nothing is known of {change.subject}; `weir exceptions list` shows what is")
        for one in about:
            kubectl.text("delete", KIND, one["metadata"]["name"])
            yield f"deleted {one['metadata']['name']}: {change.subject} is learned anew"
        return
    decision = _DECISIONS[change.word]
    for one in about:
        patch = json.dumps({"spec": {"decision": decision}})
        kubectl.text("patch", KIND, one["metadata"]["name"], "--type", "merge", "--patch", patch)
        yield f"{one['metadata']['name']}: decision {decision}"
    if not about:
        made = kubectl.text("create", "--filename", "-", "--output", "name", stdin=json.dumps(_made(change, workload)))
        yield f"{made.strip().partition('/')[2]}: made, decision {decision}"


def _is_about(spec: dict[str, Any], change: TrustChange, workload: Workload | None) -> bool:
    app, of = spec.get("app") or {}, spec.get("workload")
    return (
        spec["host"] == change.host
        and change.uid in (None, app.get("uid"))
        and change.ja4 in (None, app.get("ja4"))
        and (workload is None or (of is not None and (of["kind"], of["name"]) == workload))
    )


def _made(change: TrustChange, workload: Workload | None) -> dict[str, Any]:
    app = {name: value for name, value in (("uid", change.uid), ("ja4", change.ja4)) if value is not None}
    spec: dict[str, Any] = {"host": change.host, "decision": _DECISIONS[change.word]}
    if workload is not None:
        spec["workload"] = {"kind": workload[0], "name": workload[1]}
    if app:
        spec["app"] = app
    return {
        "apiVersion": API_VERSION,
        "kind": "TrustException",
        "metadata": {"generateName": f"{workload[1] if workload else 'all'}-"},
        "spec": spec,
    }


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    metadata, spec, status = one["metadata"], one["spec"], one.get("status") or {}
    workload, app = spec.get("workload"), spec.get("app") or {}
    return (
        metadata["namespace"],
        metadata["name"],
        spec["host"],
        f"{workload['kind']}/{workload['name']}" if workload else "all",
        str(app.get("uid", "any")),
        status.get("state", ""),
        status.get("reason", ""),
        str(status.get("alert", "")),
        spec.get("decision", ExceptionDecision.AUTO),
        str(len(status.get("pods") or ())),
        status.get("lastSeen", ""),
        status.get("expiresAt", ""),
    )
