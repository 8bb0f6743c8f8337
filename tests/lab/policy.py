"""The policies the suites give to `weir run`, as the documents a user would write."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Policy:
    """One InterceptionPolicy and one TrustPolicy; `interception` and `trust` add fields to their specs."""

    root: Path | None = None
    """A CA file to trust upstream beside the system's."""
    never_intercept: tuple[str, ...] = ()
    on_invalid_certificate: str = "Reject"
    interception: dict[str, Any] = field(default_factory=dict)
    trust: dict[str, Any] = field(default_factory=dict)

    def to_yaml(self) -> str:
        roots = {"roots": [{"file": str(self.root)}]} if self.root else {}
        trust = {
            "upstream": {**roots, "onInvalidCertificate": self.on_invalid_certificate},
            "neverIntercept": list(self.never_intercept),
            **self.trust,
        }
        interception = {"defaultAction": "Intercept", "trustPolicyRef": {"name": "lab"}, **self.interception}
        documents = [_document("TrustPolicy", trust), _document("InterceptionPolicy", interception)]
        return yaml.safe_dump_all(documents, sort_keys=False)


def _document(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "weir.dev/v1alpha1", "kind": kind, "metadata": {"name": "lab"}, "spec": spec}
