"""What a policy's form cannot say and a cluster does not have, or not yet; and what has no effect there."""

from collections.abc import Iterator

from weir_operator.check import contradictions, has_one_source
from weir_operator.cluster.selector import SelectorError, compile_selector
from weir_operator.load import Loaded
from weir_operator.models import CLUSTER_KINDS, CASource, InterceptionPolicy, InterceptionSpec, TrustPolicy, TrustSpec
from weir_operator.problems import Problem

type _Loaded = Loaded[InterceptionPolicy] | Loaded[TrustPolicy]


def problems(loaded: _Loaded) -> list[Problem]:
    """All that keeps this policy from being used in a cluster."""
    spec = loaded.document.spec
    special = _trust(loaded, spec) if isinstance(spec, TrustSpec) else _interception(loaded, spec)
    return [*contradictions(loaded), *special]


def notices(loaded: _Loaded) -> list[Problem]:
    """What this policy says that has no effect in a cluster."""
    spec = loaded.document.spec
    cluster = loaded.document.kind in CLUSTER_KINDS
    if not isinstance(spec, InterceptionSpec) or cluster or spec.namespace_selector is None:
        return []
    return [loaded.problem("spec.namespaceSelector", "no effect: the policy is about the pods of its own namespace")]


def _interception(policy: _Loaded, spec: InterceptionSpec) -> Iterator[Problem]:
    for path, selector in (
        ("spec.podSelector", spec.pod_selector),
        ("spec.namespaceSelector", spec.namespace_selector),
    ):
        try:
            compile_selector(selector)
        except SelectorError as error:
            yield policy.problem(f"{path}.{error.path}", str(error))
    for number, rule in enumerate(spec.rules):
        for place, one in enumerate(rule.http):
            if one.credential_from is not None and one.credential_from.file is not None:
                path = f"spec.rules[{number}].http[{place}].credentialFrom.file"
                yield policy.problem(path, "only one machine has it; allowed in a cluster: secret")
        for place, app in enumerate(rule.match.apps or ()):
            if app.containers is not None:
                path = f"spec.rules[{number}].match.apps[{place}].containers"
                text = "telling a pod's containers apart is not supported by this version; use uids or ja4 instead"
                yield policy.problem(path, text)


def _trust(trust: _Loaded, spec: TrustSpec) -> Iterator[Problem]:
    if spec.ca.source is CASource.SECRET and spec.ca.secret_ref is None:
        yield trust.problem("spec.ca.secretRef", f"missing; it is required with source {CASource.SECRET}")
    for number, root in enumerate(spec.upstream.roots or ()):
        if root.file is not None and has_one_source(root):
            path = f"spec.upstream.roots[{number}].file"
            yield trust.problem(path, "only one machine has it; allowed in a cluster: pem, configMap")
