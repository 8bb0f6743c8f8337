"""What a document's form cannot say: fields that contradict each other, and what one machine does not have.

What a cluster does not have is told by `cluster.checks`. A field that would be unsafe to leave out is a problem; one that merely has no effect on one machine is a notice.
"""

from collections.abc import Iterable, Iterator

from weir_operator.arrange import Arranged
from weir_operator.check_http import http_problems
from weir_operator.load import Loaded
from weir_operator.models import CASource, InterceptionPolicy, InterceptionSpec, Root, TrustPolicy, TrustSpec
from weir_operator.problems import Problem

LEAST_LEAF_LIFETIME = 60
"""Seconds; the sidecar takes no less."""


def problems(arranged: Arranged) -> list[Problem]:
    """All that keeps these policies from being used on one machine."""
    found: list[Problem] = []
    for policy in arranged.interception:
        found += contradictions(policy)
        found += _absent_secrets(policy)
    for trust in (*arranged.trust, *arranged.unused):
        found += contradictions(trust)
        found += _absent(trust)
    return found


def contradictions(loaded: Loaded[InterceptionPolicy] | Loaded[TrustPolicy]) -> Iterator[Problem]:
    """All that keeps this document from being used anywhere, whatever others say."""
    document = loaded.document
    if isinstance(document, TrustPolicy):
        yield from _trust_problems(loaded, document.spec)
    else:
        yield from _interception_problems(loaded, document.spec)


def has_one_source(root: Root) -> bool:
    """Whether it is said once where a root comes from, as it must be."""
    return sum(given is not None for given in (root.file, root.pem, root.config_map)) == 1


def notices(arranged: Arranged) -> list[str]:
    """What these policies say that has no effect on one machine, one line each."""
    found: list[Problem] = []
    for policy in arranged.interception:
        found += _interception_notices(policy)
    for trust in arranged.trust:
        found += _trust_notices(trust)
    found += [trust.problem("", "no effect: no given policy refers to this trust policy") for trust in arranged.unused]
    return [str(one) for one in found]


type _Loaded = Loaded[InterceptionPolicy] | Loaded[TrustPolicy]


def _interception_problems(policy: _Loaded, spec: InterceptionSpec) -> Iterator[Problem]:
    if spec.capture.inbound not in (None, False):
        yield policy.problem("spec.capture.inbound", "capture of inbound flows is not supported by this version")
    names: dict[str, int] = {}
    for number, rule in enumerate(spec.rules):
        for path, text in http_problems(rule):
            yield policy.problem(f"spec.rules[{number}].{path}", text)
        if rule.name is not None and names.setdefault(rule.name, number) != number:
            text = f"found {rule.name!r}, the name of spec.rules[{names[rule.name]}] too; allowed: a name of its own"
            yield policy.problem(f"spec.rules[{number}].name", text)


def _trust_problems(trust: _Loaded, spec: TrustSpec) -> Iterator[Problem]:
    for number, root in enumerate(spec.upstream.roots or ()):
        if not has_one_source(root):
            yield trust.problem(f"spec.upstream.roots[{number}]", "allowed: exactly one of file, pem, configMap")
    if spec.upstream.system_roots is False and not spec.upstream.roots:
        yield trust.problem("spec.upstream.systemRoots", "found false without roots; no server could be verified")
    lifetime = spec.ca.leaf_lifetime
    if lifetime is not None and lifetime < LEAST_LEAF_LIFETIME:
        yield trust.problem("spec.ca.leafLifetime", f"found {lifetime:g} s; allowed: at least {LEAST_LEAF_LIFETIME} s")
    ttl, most = spec.fail_open.ttl, spec.fail_open.max_ttl
    if ttl is not None and most is not None and ttl > most:
        yield trust.problem("spec.failOpen.maxTTL", f"found {most:g} s; allowed: at least failOpen.ttl, {ttl:g} s")


def _absent_secrets(policy: Loaded[InterceptionPolicy]) -> Iterator[Problem]:
    for number, rule in enumerate(policy.document.spec.rules):
        for place, one in enumerate(rule.http):
            if one.credential_from is not None and one.credential_from.secret is not None:
                path = f"spec.rules[{number}].http[{place}].credentialFrom.secret"
                yield policy.problem(path, "only a cluster has it; allowed on one machine: file")


def _absent(trust: Loaded[TrustPolicy]) -> Iterator[Problem]:
    """What this trust policy needs that one machine does not have."""
    spec = trust.document.spec
    if spec.ca.source not in (None, CASource.POD):
        text = f"found {spec.ca.source}, which only a cluster has; allowed on one machine: {CASource.POD}"
        yield trust.problem("spec.ca.source", text)
    for number, root in enumerate(spec.upstream.roots or ()):
        if root.config_map is not None and has_one_source(root):
            path = f"spec.upstream.roots[{number}].configMap"
            yield trust.problem(path, "only a cluster has it; allowed on one machine: file, pem")


def _interception_notices(policy: Loaded[InterceptionPolicy]) -> Iterator[Problem]:
    spec = policy.document.spec
    yield from _ignored(
        policy,
        {
            "spec.podSelector": (spec.pod_selector is not None, "the policy applies to the command that is run"),
            "spec.hardenContainers": (
                spec.harden_containers is not None,
                "a command that root runs keeps what container runtimes leave to root, less what changes rules",
            ),
            "spec.namespaceSelector": (
                spec.namespace_selector is not None,
                "the policy applies to the command that is run",
            ),
        },
    )
    for number, rule in enumerate(spec.rules):
        for place, app in enumerate(rule.match.apps or ()):
            given = app.containers is not None
            path = f"spec.rules[{number}].match.apps[{place}].containers"
            yield from _ignored(policy, {path: (given, "the command counts as every container, so this always holds")})


def _trust_notices(trust: Loaded[TrustPolicy]) -> Iterator[Problem]:
    spec = trust.document.spec
    yield from _ignored(
        trust,
        {
            "spec.injection.containers": (
                spec.injection.containers is not None,
                "the command counts as every container",
            ),
            "spec.failOpen.share": (spec.fail_open.share is not None, "there is one pod, and nobody to share with"),
        },
    )


def _ignored(loaded: _Loaded, fields: dict[str, tuple[bool, str]]) -> Iterable[Problem]:
    for path, (given, why) in fields.items():
        if given:
            yield loaded.problem(path, f"no effect on one machine: {why}")
