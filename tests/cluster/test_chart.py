"""The chart on a real API server, by real helm: installed, upgraded, uninstalled, and what its accounts may do.

No pod runs here: what the processes do with their rights is for other tests.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab.chart import CHART, HELM, NO_HELM, helm, objects
from lab.kube import Cluster, KubectlError, OwnCluster
from lab.running import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(HELM is None, reason=NO_HELM)]

OPERATOR, SERVING = "weir-operator", "weir-serving"
WEBHOOKS = ("mutatingwebhookconfigurations/weir-mutating", "validatingwebhookconfigurations/weir-validating")
# Nobody answers here: a second is as good as five.
FAIL, IGNORE = ({"failurePolicy": policy, "timeoutSeconds": 1} for policy in ("Fail", "Ignore"))
POLICY = {
    "apiVersion": "weir.dev/v1alpha1",
    "kind": "InterceptionPolicy",
    "metadata": {"name": "kept"},
    "spec": {"defaultAction": "Passthrough"},
}


class Release:
    """The release `weir` in a namespace."""

    def __init__(self, cluster: Cluster, namespace: str, home) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self._home = home

    def helm(self, *args: str, values=None) -> str:
        done = helm(
            *(args[0], "weir", *args[1:], "--namespace", self.namespace),
            home=self._home,
            values=values,
            kubeconfig=self.cluster.kubeconfig,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def install(self, **values) -> str:
        # Definitions that other tests left are taken over.
        return self.helm("install", str(CHART), "--take-ownership", values=values)

    def helm_get(self, what: str) -> str:
        done = helm(
            *("get", what, "weir", "--namespace", self.namespace), home=self._home, kubeconfig=self.cluster.kubeconfig
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def may(self, account: str, verb: str, resource: str, namespace: str = "", name: str = "") -> bool:
        """What the API server's authorizer says: RESOURCE[.GROUP][/SUBRESOURCE]."""
        plain, _, subresource = resource.partition("/")
        plural, _, group = plain.partition(".")
        attributes = {"verb": verb, "resource": plural, "group": group, "subresource": subresource}
        user = f"system:serviceaccount:{self.namespace}:{account}"
        return self.review({"user": user}, attributes | {"namespace": namespace, "name": name})

    def review(self, who, attributes) -> bool:
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {**who, "resourceAttributes": attributes},
        }
        answer = self.cluster.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body)
        answer.raise_for_status()
        return answer.json()["status"]["allowed"]


def webhooks(cluster: Cluster) -> str:
    return cluster.kubectl("get", "mutatingwebhookconfigurations,validatingwebhookconfigurations", "-o", "name")


def definitions(cluster: Cluster) -> set[str]:
    names = cluster.kubectl("get", "customresourcedefinitions", "-o", "name").split()
    return {name for name in names if name.endswith(".weir.dev")}


@contextmanager
def releasing(cluster: Cluster, home) -> Iterator[Release]:
    """A namespace for a release; after it, nothing of it is there but the definitions, which are kept."""
    if "weir-mutating" in webhooks(cluster):
        pytest.skip("Weir is installed in this cluster, and there is one to a cluster")
    with cluster.namespace(prefix="weir-chart") as namespace:
        release = Release(cluster, namespace, home)
        try:
            yield release
        finally:
            helm(
                *("uninstall", "weir", "--ignore-not-found", "--namespace", namespace),
                home=home,
                kubeconfig=cluster.kubeconfig,
            )


@pytest.fixture(scope="module", autouse=True)
def definitions_as_before(cluster):
    """Definitions that releases leave behind are removed, where others would have to live with them."""
    before = definitions(cluster)
    yield
    made = definitions(cluster) - before
    if made and not isinstance(cluster, OwnCluster):
        cluster.kubectl("delete", "--wait=false", *made)


@pytest.fixture
def release(cluster, tmp_path):
    with releasing(cluster, tmp_path) as made:
        yield made


@pytest.fixture(scope="class")
def installed(cluster, tmp_path_factory):
    """A release as it is by default, for tests that only look at it."""
    with releasing(cluster, tmp_path_factory.mktemp("helm")) as made:
        made.install()
        yield made


# Account, verb, resource, namespace (OWN: the release's), name.
OWN = "OWN"
ALLOWED = [
    *(
        (who, verb, f"{kind}.weir.dev", "", "")
        for who in (OPERATOR, SERVING)
        for verb in ("list", "watch")
        for kind in (
            *("interceptionpolicies", "clusterinterceptionpolicies", "trustpolicies", "clustertrustpolicies"),
            "trustexceptions",
        )
    ),
    *(
        (who, verb, kind, "", "")
        for who in (OPERATOR, SERVING)
        for verb in ("list", "watch")
        for kind in (*("pods", "namespaces"),)
    ),
    (OPERATOR, "patch", "interceptionpolicies.weir.dev/status", "any", "any"),
    (OPERATOR, "patch", "clustertrustpolicies.weir.dev/status", "", "any"),
    (OPERATOR, "patch", "trustexceptions.weir.dev/status", "any", "any"),
    (OPERATOR, "delete", "trustexceptions.weir.dev", "any", "any"),
    (OPERATOR, "patch", "mutatingwebhookconfigurations.admissionregistration.k8s.io", "", "weir-mutating"),
    (OPERATOR, "watch", "validatingwebhookconfigurations.admissionregistration.k8s.io", "", "weir-validating"),
    (OPERATOR, "get", "secrets", OWN, "weir-ca"),
    (OPERATOR, "update", "secrets", OWN, "weir-serving"),
    (OPERATOR, "create", "secrets", OWN, ""),
    (OPERATOR, "watch", "configmaps", OWN, ""),
    (OPERATOR, "get", "deployments.apps", OWN, "weir-operator"),
    (OPERATOR, "create", "events.events.k8s.io", "any", ""),
    (SERVING, "create", "trustexceptions.weir.dev", "any", ""),
    (SERVING, "update", "trustexceptions.weir.dev/status", "any", "any"),
    (SERVING, "create", "tokenreviews.authentication.k8s.io", "", ""),
    (SERVING, "watch", "secrets", OWN, "weir-serving"),
    (SERVING, "patch", "configmaps", OWN, "weir-stream-x"),
]
FORBIDDEN = [
    *((who, verb, "secrets", "kube-system", "") for who in (OPERATOR, SERVING) for verb in ("get", "list", "create")),
    *((who, "list", "secrets", OWN, "") for who in (OPERATOR, SERVING)),
    *((who, verb, "pods", "any", "any") for who in (OPERATOR, SERVING) for verb in ("create", "patch", "delete")),
    *((who, "create", f"pods/{what}", "any", "any") for who in (OPERATOR, SERVING) for what in ("exec", "eviction")),
    *((who, "update", "interceptionpolicies.weir.dev", "any", "any") for who in (OPERATOR, SERVING)),
    *((who, "patch", "trustexceptions.weir.dev", "any", "any") for who in (OPERATOR, SERVING)),
    *((who, "create", "clusterrolebindings.rbac.authorization.k8s.io", "", "") for who in (OPERATOR, SERVING)),
    *((who, "impersonate", "users", "", "") for who in (OPERATOR, SERVING)),
    (OPERATOR, "get", "secrets", OWN, "other"),
    (OPERATOR, "get", "configmaps", "any", "any"),
    (OPERATOR, "patch", "mutatingwebhookconfigurations.admissionregistration.k8s.io", "", "other"),
    (OPERATOR, "create", "mutatingwebhookconfigurations.admissionregistration.k8s.io", "", ""),
    (OPERATOR, "delete", "mutatingwebhookconfigurations.admissionregistration.k8s.io", "", "weir-mutating"),
    (OPERATOR, "create", "tokenreviews.authentication.k8s.io", "", ""),
    (OPERATOR, "patch", "customresourcedefinitions.apiextensions.k8s.io", "", "interceptionpolicies.weir.dev"),
    (SERVING, "get", "secrets", OWN, "weir-ca"),
    (SERVING, "update", "secrets", OWN, "weir-serving"),
    (SERVING, "delete", "trustexceptions.weir.dev", "any", "any"),
    (SERVING, "patch", "interceptionpolicies.weir.dev/status", "any", "any"),
    (SERVING, "patch", "mutatingwebhookconfigurations.admissionregistration.k8s.io", "", "weir-mutating"),
    (SERVING, "patch", "configmaps", "any", "any"),
]


class TestInstalled:
    """What is there after `helm install` without a value."""

    def test_all_of_it_is_accepted(self, installed):
        for obj in objects(installed.helm_get("manifest")):
            kind, group = obj["kind"], obj["apiVersion"].rpartition("/")[0].partition("/")[0]
            found = installed.cluster.kubectl(
                *("get", f"{kind}.{group}" if group else kind, obj["metadata"]["name"]),
                *("-n", obj["metadata"].get("namespace", "default"), "-o", "name"),
            )
            assert obj["metadata"]["name"] in found

    def test_pods_are_admitted_where_only_restricted_ones_are(self, installed):
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        installed.cluster.request(
            *("PATCH", f"/api/v1/namespaces/{installed.namespace}", {"metadata": {"labels": labels}}),
            headers={"Content-Type": "application/merge-patch+json"},
        ).raise_for_status()
        path = f"/api/v1/namespaces/{installed.namespace}/pods?dryRun=All"
        templates = {
            obj["metadata"]["name"]: obj["spec"]["template"]
            for obj in objects(installed.helm_get("manifest"))
            if obj["kind"] == "Deployment"
        }
        templates["weir-test"] = next(objects(installed.helm_get("hooks")))
        for name, template in templates.items():
            pod = {"metadata": {"name": name, "labels": template["metadata"]["labels"]}, "spec": template["spec"]}
            answer = installed.cluster.request("POST", path, pod)
            assert answer.status_code == 201, answer.text
        privileged = {"metadata": {"name": "x"}, "spec": {"containers": [{"name": "x", "image": "x"}]}}
        assert installed.cluster.request("POST", path, privileged).status_code == 403

    @pytest.mark.parametrize(
        ("expected", "table"), [(True, ALLOWED), (False, FORBIDDEN)], ids=["what they must", "what they must not"]
    )
    def test_what_the_accounts_may_do(self, installed, expected, table):
        wrong = []
        for account, verb, resource, namespace, name in table:
            where = installed.namespace if namespace == OWN else namespace
            if installed.may(account, verb, resource, where, name) is not expected:
                wrong.append((account, verb, resource, where, name))
        assert wrong == []

    def test_people_get_what_their_roles_of_the_namespace_say(self, installed, namespace):
        for role, group in (("weir-view", "viewers"), ("weir-edit", "editors")):
            installed.cluster.kubectl(
                *("create", "rolebinding", role, "-n", namespace, f"--clusterrole={role}", f"--group={group}")
            )
        roles = json.loads(installed.cluster.kubectl("get", "clusterroles", "weir-view", "weir-edit", "-o", "json"))
        labels = [label for role in roles["items"] for label in role["metadata"]["labels"] if "aggregate" in label]
        assert sorted(label.rpartition("-")[2] for label in labels) == ["admin", "edit", "view"]

        def may(group, verb, plural, subresource="", where=namespace):
            attributes = {"verb": verb, "resource": plural, "subresource": subresource, "group": "weir.dev"}
            return installed.review({"groups": [group]}, attributes | {"namespace": where, "name": "any"})

        for plural in ("interceptionpolicies", "trustpolicies", "trustexceptions"):
            assert may("viewers", "get", plural)
            assert not may("viewers", "update", plural)
            assert may("editors", "update", plural)
            assert not may("editors", "patch", plural, "status")
            assert not may("editors", "update", plural, where="other")
        for plural in ("clusterinterceptionpolicies", "clustertrustpolicies"):
            assert not may("editors", "update", plural, where="")


def test_an_upgrade_keeps_the_ca_that_the_operator_put_in(release):
    release.install()
    patch = [{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": "Y2E="}]
    account = f"system:serviceaccount:{release.namespace}:{OPERATOR}"
    release.cluster.kubectl("patch", WEBHOOKS[0], "--type=json", "-p", json.dumps(patch), f"--as={account}")
    release.helm("upgrade", str(CHART), values={"webhook": {"failurePolicy": "Fail"}, "serving": {"replicas": 3}})
    (webhook,) = json.loads(release.cluster.kubectl("get", WEBHOOKS[0], "-o", "json"))["webhooks"]
    assert webhook["failurePolicy"] == "Fail"
    assert webhook["clientConfig"]["caBundle"] == "Y2E="
    replicas = release.cluster.kubectl(
        *("get", "deployment/weir-serving", "-n", release.namespace, "-o", "jsonpath={.spec.replicas}")
    )
    assert replicas == "3"


def test_what_is_asked_about_when_nobody_answers(release, namespace):
    def run(name, *, where=namespace, captured=False):
        spec = {"containers": [{"name": "app", "image": "none"}]}
        if captured:
            spec["initContainers"] = [{"name": "weir-sidecar", "image": "none", "restartPolicy": "Always"}]
        release.cluster.kubectl(
            "create",
            "-n",
            where,
            "-f",
            "-",
            stdin=json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}),
        )

    run("plain")
    run("captured", captured=True)
    release.install(webhook=FAIL)
    with pytest.raises(KubectlError, match=r'failed calling webhook "pods.weir.dev"'):
        run("late")
    run("excluded", where="kube-system")
    release.cluster.kubectl("delete", "pod", "excluded", "-n", "kube-system", "--grace-period=0", "--force")
    release.cluster.kubectl("annotate", "pod", "plain", "-n", namespace, "a=b")
    with pytest.raises(KubectlError, match=r'failed calling webhook "pods.weir.dev"'):
        release.cluster.kubectl("annotate", "pod", "captured", "-n", namespace, "a=b")
    with pytest.raises(KubectlError, match=r'failed calling webhook "policies.weir.dev"'):
        release.cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(POLICY))
    release.helm("upgrade", str(CHART), values={"webhook": IGNORE})
    run("late")
    release.cluster.kubectl("annotate", "pod", "captured", "-n", namespace, "a=b")


def test_uninstalled_it_leaves_policies_and_nothing_in_the_way(release, namespace):
    release.install(webhook=IGNORE)
    release.cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(POLICY))
    release.helm("upgrade", str(CHART), values={"webhook": FAIL})
    told = release.helm("uninstall", "--debug")
    # As Helm 4 says it, or as Helm 3 does.
    deleted = re.findall(r'tarting delete (?:resource.*kind=|for "[^"]+" )(\w+)', told)
    assert deleted[:2] == ["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"]
    assert {"Service", "Deployment"} < set(deleted[2:])
    assert webhooks(release.cluster) == ""
    kinds = "all,configmaps,roles,rolebindings,networkpolicies,poddisruptionbudgets"
    ours = ("-n", release.namespace, "-l", "app.kubernetes.io/part-of=weir", "-o", "name")
    # Where there are nodes, the pods take a moment to end.
    wait_for("nothing is left", lambda: release.cluster.kubectl("get", kinds, *ours) == "", 90)
    assert release.cluster.kubectl("get", "clusterroles,clusterrolebindings", "-o", "name").count("weir-") == 0
    release.cluster.kubectl("run", "new", "-n", namespace, "--image=none")
    assert "kept" in release.cluster.kubectl("get", "interceptionpolicies", "-n", namespace, "-o", "name")
    release.install()
    assert "kept" in release.cluster.kubectl("get", "interceptionpolicies", "-n", namespace, "-o", "name")


def test_without_definitions_policies_are_not_its_own(release):
    release.install(crds={"install": False})
    kinds = {obj["kind"] for obj in objects(release.helm_get("manifest"))}
    assert "CustomResourceDefinition" not in kinds
