"""Which documents take part, and in which order: the one place that says how several policies become one.

Cluster policies come before namespaced ones; then the lower `priority` first; then the order in which they were given.
Trust policies take part when a policy refers to them, in the order of those policies; when no policy refers to any, all
of them do, cluster ones first.
"""

from collections.abc import Iterable, Sequence
from typing import cast

import msgspec

from weir_operator.load import Loaded
from weir_operator.models import CLUSTER_KINDS, Document, InterceptionPolicy, TrustPolicy
from weir_operator.problems import PolicyError, Problem


class Arranged(msgspec.Struct, frozen=True):
    """Policies in the order in which they are asked; `unused` are trust policies that no policy refers to."""

    interception: tuple[Loaded[InterceptionPolicy], ...] = ()
    trust: tuple[Loaded[TrustPolicy], ...] = ()
    unused: tuple[Loaded[TrustPolicy], ...] = ()


def arrange(loaded: Sequence[Loaded[Document]]) -> Arranged:
    """Put documents in order. Raises `PolicyError` for an object given twice or a reference to one not given."""
    problems = list(_twice(loaded))
    interception = sorted(
        (cast(Loaded[InterceptionPolicy], one) for one in loaded if isinstance(one.document, InterceptionPolicy)),
        key=lambda one: (_rank(one), one.document.spec.priority),
    )
    trust = sorted(
        (cast(Loaded[TrustPolicy], one) for one in loaded if isinstance(one.document, TrustPolicy)), key=_rank
    )
    referred: list[Loaded[TrustPolicy]] = []
    for policy in interception:
        ref = policy.document.spec.trust_policy_ref
        if ref is None:
            continue
        found = [one for one in trust if (one.document.kind, one.document.metadata.name) == (ref.kind, ref.name)]
        referred += [one for one in found if one not in referred]
        if not found:
            text = (
                f"found {ref.kind} {ref.name!r}, which no given file holds; give its file too, or leave the field out"
            )
            problems.append(policy.problem("spec.trustPolicyRef", text))
    if problems:
        raise PolicyError(problems)
    if not referred:
        return Arranged(tuple(interception), tuple(trust))
    return Arranged(tuple(interception), tuple(referred), tuple(one for one in trust if one not in referred))


def _rank[D: Document](loaded: Loaded[D]) -> int:
    return 0 if loaded.document.kind in CLUSTER_KINDS else 1


def _twice(loaded: Iterable[Loaded[Document]]) -> Iterable[Problem]:
    seen: dict[tuple[str, str | None, str], Loaded[Document]] = {}
    for one in loaded:
        document = one.document
        first = seen.setdefault((document.kind, document.metadata.namespace, document.metadata.name), one)
        if first is not one:
            at = first.positions[""]
            where = f"{first.file}:{at.line}" if at else first.file
            text = f"found {document.kind} {document.metadata.name!r} again; it is already at {where}"
            yield one.problem("metadata.name", text)
