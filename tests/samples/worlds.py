"""Worlds for tests of the operator: policies, namespaces and pods in few words."""

from weir_operator.cluster.facts import NamespaceFacts, PodFacts, Workload
from weir_operator.cluster.policies import Policies
from weir_operator.operate.world import EXCEPTION, World, key_of

EARLY, MIDDLE, LATE = "2027-01-01T10:00:00Z", "2027-01-01T11:00:00Z", "2027-01-01T12:00:00Z"


def policy(name="p", namespace="shop", *, kind="InterceptionPolicy", status=None, generation=1, **spec):
    """A policy written at `MIDDLE`."""
    metadata = {"name": name, "uid": f"uid-{name}", "resourceVersion": "1", "generation": generation}
    metadata |= {"creationTimestamp": MIDDLE} | ({"namespace": namespace} if namespace else {})
    made = {"apiVersion": "weir.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
    return made | ({"status": status} if status else {})


def cluster_policy(name="c", **more):
    return policy(name, None, kind="ClusterInterceptionPolicy", **more)


def exception(name="e", namespace="shop", *, host="a.example", decision=None, status=None):
    spec = {"host": host} | ({"decision": decision} if decision else {})
    return policy(name, namespace, kind=EXCEPTION, status=status, **spec)


def pod(name, namespace="shop", *, labels=None, created=LATE, **more):
    facts = {"captured": False, "finished": False, "host_network": False, "windows": False, "opted_out": False}
    return PodFacts(
        namespace=namespace,
        name=name,
        uid=f"uid-{name}",
        labels=labels or {"app": "web"},
        workload=Workload("Pod", name),
        created=created,
        **(facts | more),
    )


def world(*objects, pods=(), current=None, waits=None, namespaces=("shop", "kube-system", "other")):
    return World(
        policies=Policies.of([obj for obj in objects if obj["kind"] != EXCEPTION]),
        objects={key_of(obj): obj for obj in objects},
        namespaces={name: NamespaceFacts(name, {"kubernetes.io/metadata.name": name}) for name in namespaces},
        pods=tuple(pods),
        current=current or {},
        waits=waits or {},
        excluded=frozenset({"kube-system"}),
    )
