"""The chart as helm renders it, without a cluster. WEIR_GOLDEN=write makes the golden files anew, for a person to review."""

import argparse
import json
import os
import re

import kubernetes_validate
import pytest
import yaml

from golden.chart_cases import CASES
from lab.chart import CHART, HELM, NO_HELM, ROOT, helm, objects
from weir_operator.__main__ import COMMANDS
from weir_operator.operate import main as operate
from weir_operator.operate.repair import Mode
from weir_operator.serving import main as serve
from weir_operator.serving.admission import Webhook
from weir_operator.serving.server import read_settings
from weir_sidecar import __version__

pytestmark = pytest.mark.skipif(HELM is None, reason=NO_HELM)

GOLDEN = ROOT / "tests" / "golden" / "chart"
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
OTHERS_GROUPS = ("cert-manager.io/", "monitoring.coreos.com/")
WITH_ALL = {"dashboard": {"enabled": True}, "serviceMonitor": {"enabled": True}}

each_case = pytest.mark.parametrize("case", CASES)


@pytest.fixture
def render(tmp_path):
    def rendered(values=None):
        done = helm("template", "weir", str(CHART), "--namespace", "weir-system", home=tmp_path, values=values or {})
        assert done.returncode == 0, done.stderr
        return done.stdout

    return rendered


def pods(manifests):
    """The pods and pod templates among manifests, by name."""
    for obj in objects(manifests):
        if obj["kind"] == "Deployment":
            yield obj["metadata"]["name"], obj["spec"]["template"]
        elif obj["kind"] == "Pod":
            yield obj["metadata"]["name"], obj


@each_case
def test_golden(render, case):
    text = render(CASES[case])
    path = GOLDEN / f"{case}.yaml"
    if os.environ.get("WEIR_GOLDEN") == "write":
        path.write_text(text)
    assert path.read_text() == text


def test_every_golden_file_has_its_case():
    assert {path.stem for path in GOLDEN.iterdir()} == set(CASES)


@each_case
def test_lint_finds_nothing(tmp_path, case):
    done = helm("lint", "--strict", str(CHART), home=tmp_path, values=CASES[case])
    assert done.returncode == 0, done.stdout + done.stderr


@each_case
@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_kubernetes_knows_every_object(render, case, version):
    checked = [obj for obj in objects(render(CASES[case])) if not obj["apiVersion"].startswith(OTHERS_GROUPS)]
    assert len(checked) > 15
    for obj in checked:
        kubernetes_validate.validate(obj, version, strict=True)


def test_the_definitions_of_all_kinds_are_kept(render):
    definitions = [obj for obj in objects(render()) if obj["kind"] == "CustomResourceDefinition"]
    assert {one["spec"]["names"]["kind"] for one in definitions} == {
        *("InterceptionPolicy", "ClusterInterceptionPolicy", "TrustPolicy", "ClusterTrustPolicy", "TrustException")
    }
    for one in definitions:
        assert one["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_objects_of_namespaces_are_in_that_of_the_release(render):
    cluster_scoped = {
        *("CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"),
        *("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"),
    }
    for obj in objects(render(WITH_ALL)):
        found = obj["metadata"].get("namespace")
        assert found == (None if obj["kind"] in cluster_scoped else "weir-system"), obj["metadata"]["name"]


@each_case
def test_pods_are_restricted(render, case):
    found = dict(pods(render(CASES[case])))
    assert set(found) == {"weir-operator", "weir-serving", "weir-test"}
    for pod in found.values():
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["spec"]["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


@each_case
def test_webhooks_never_ask_about_themselves(render, case):
    found = [obj for obj in objects(render(CASES[case])) if obj["kind"].endswith("WebhookConfiguration")]
    assert {obj["metadata"]["name"] for obj in found} == {"weir-mutating", "weir-validating"}
    for webhook in (one for obj in found for one in obj["webhooks"]):
        assert webhook["timeoutSeconds"] <= 5
        assert webhook["sideEffects"] == "None"
        assert "caBundle" not in webhook["clientConfig"]  # an upgrade must not take away what others put in
        if "weir.dev" not in webhook["rules"][0]["apiGroups"]:
            (expression,) = webhook["namespaceSelector"]["matchExpressions"]
            assert expression["operator"] == "NotIn"
            assert {"kube-system", "weir-system"} <= set(expression["values"])


def test_deployments_select_their_own_pods_only(render):
    deployments = [obj for obj in objects(render()) if obj["kind"] == "Deployment"]
    selectors = [one["spec"]["selector"]["matchLabels"].items() for one in deployments]
    labels = [one["spec"]["template"]["metadata"]["labels"].items() for one in deployments]
    matches = [[selector <= own for own in labels] for selector in selectors]
    assert matches == [[True, False], [False, True]]


@pytest.mark.parametrize(("name", "process"), [("weir-operator", operate), ("weir-serving", serve)])
def test_the_processes_know_their_flags_and_have_their_ports(render, name, process):
    parser = argparse.ArgumentParser()
    process.add_arguments(parser)
    (container,) = dict(pods(render()))[name]["spec"]["containers"]
    assert container["command"][:3] == ["python", "-m", "weir_operator"]
    assert COMMANDS[container["command"][3]][0] == process.__name__
    parsed = vars(parser.parse_args(container["args"]))
    assert parsed["namespace"] == "weir-system"
    for port in container["ports"]:
        assert parsed[f"{port['name']}_port"] == port["containerPort"]


def test_the_operator_is_told_which_namespaces_the_webhook_is_not_asked_about(render):
    parser = argparse.ArgumentParser()
    operate.add_arguments(parser)
    manifests = render(CASES["fail-closed"])
    (container,) = dict(pods(manifests))["weir-operator"]["spec"]["containers"]
    (mutating,) = [obj for obj in objects(manifests) if obj["kind"] == "MutatingWebhookConfiguration"]
    (expression,) = mutating["webhooks"][0]["namespaceSelector"]["matchExpressions"]
    told = parser.parse_args(container["args"]).excluded_namespaces
    assert told == set(expression["values"]) == {"kube-system", "weir-system", "ci", "monitoring"}


def test_the_serving_process_reads_its_settings(render, tmp_path):
    (found,) = [obj for obj in objects(render()) if obj["metadata"]["name"] == "weir-settings"]
    file = tmp_path / "settings.json"
    file.write_text(found["data"]["settings.json"])
    settings = read_settings("weir/sidecar:1", file)
    assert settings.pull_policy == "IfNotPresent"
    assert settings.sidecar_resources == VALUES["injection"]["sidecarResources"]
    assert settings.init_resources == VALUES["injection"]["initResources"]


@each_case
def test_webhooks_call_what_is_served(render, case):
    found = [obj for obj in objects(render(CASES[case])) if obj["kind"].endswith("WebhookConfiguration")]
    paths = [one["clientConfig"]["service"]["path"] for obj in found for one in obj["webhooks"]]
    assert sorted(paths) == sorted(webhook.path for webhook in Webhook)


def test_changed_settings_restart_the_serving_replicas(render):
    def checksum(values):
        return dict(pods(render(values)))["weir-serving"]["metadata"]["annotations"]["checksum/settings"]

    changed = {"injection": {"sidecarResources": {"limits": {"memory": "1Gi"}}}}
    assert checksum({}) == checksum({"operator": {"podLabels": {"a": "b"}}}) != checksum(changed)


def test_every_right_has_its_reason_and_none_is_for_everything(render):
    template = (CHART / "templates" / "rbac.yaml").read_text()
    lines = template.splitlines()
    rules = [number for number, line in enumerate(lines) if line.startswith("  - apiGroups")]
    assert len(rules) > 10
    for number in rules:
        assert lines[number - 1].startswith("  # "), lines[number]
    for obj in objects(render()):
        for rule in obj.get("rules", ()) if obj["kind"].endswith("Role") else ():
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]


def test_with_cert_manager_the_operator_has_no_right_to_secrets(render):
    def resources(values):
        roles = [obj for obj in objects(render(values)) if obj["metadata"]["name"] == "weir-operator"]
        return {resource for obj in roles for rule in obj.get("rules", ()) for resource in rule["resources"]}

    assert "secrets" in resources({})
    theirs = resources({"certificates": {"mode": "CertManager"}})
    assert not {"secrets", "mutatingwebhookconfigurations", "validatingwebhookconfigurations"} & theirs


@pytest.mark.parametrize(
    ("cni", "webhook", "rights"),
    [
        ("InPlace", "None", set()),
        ("Delete", "None", {("pods/eviction", "create")}),
        ("Label", "Delete", {("pods", "patch"), ("pods/eviction", "create")}),
    ],
)
def test_only_the_operator_may_change_pods_and_only_as_the_repair_that_was_chosen_needs(render, cni, webhook, rights):
    values = {"cni": {"enabled": True, "repair": {"mode": cni}}, "webhook": {"repair": {"mode": webhook}}}
    found = {
        (obj["metadata"]["name"], resource, verb)
        for obj in objects(render(values))
        if obj["kind"].endswith("Role")
        for rule in obj["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if resource.startswith("pods") and verb not in {"get", "list", "watch"}
    }
    assert found == {("weir-operator", *right) for right in rights}


def test_without_agents_nothing_is_done_about_rules(render):
    (container,) = dict(pods(render({"cni": {"repair": {"mode": "Delete"}}})))["weir-operator"]["spec"]["containers"]
    parser = argparse.ArgumentParser()
    operate.add_arguments(parser)
    assert parser.parse_args(container["args"]).cni_repair is Mode.NONE


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"cni": {"repair": {"mode": "Repair"}}}, ["/cni/repair/mode", "'InPlace', 'Delete', 'Label', 'None'"]),
        ({"webhook": {"repair": {"mode": "InPlace"}}}, ["/webhook/repair/mode", "'None', 'Label', 'Delete'"]),
        ({"operator": {"evictions": {"perMinute": 0}}}, ["/operator/evictions/perMinute", "minimum"]),
        ({"webhook": {"failurePolicy": "ignore"}}, ["/webhook/failurePolicy", "'Ignore', 'Fail'"]),
        ({"webhook": {"timeoutSeconds": 30}}, ["/webhook/timeoutSeconds", "maximum", "5"]),
        ({"webhook": {"excludedNamespaces": ["*"]}}, ["/webhook/excludedNamespaces/0", "pattern"]),
        ({"webhook": {"excludeNamespaces": []}}, ["/webhook", "excludeNamespaces", "not allowed"]),
        ({"serving": {"replicas": 0}}, ["/serving/replicas", "minimum", "1"]),
        ({"serving": {"replicas": "2"}}, ["/serving/replicas", "integer"]),
        ({"operator": {"replicas": 2}}, ["/operator", "replicas", "not allowed"]),
        ({"certificates": {"mode": "certManager"}}, ["/certificates/mode", "'Self', 'CertManager'"]),
        ({"image": {"sidecar": {"digest": "latest"}}}, ["/image/sidecar/digest", "pattern"]),
        ({"image": {"pullPolicy": "Sometimes"}}, ["/image/pullPolicy", "'Always', 'IfNotPresent', 'Never'"]),
        ({"injection": {"sidecarResources": {"memory": "64Mi"}}}, ["/injection/sidecarResources", "memory"]),
        ({"networkPolicy": {"apiServerPorts": [0]}}, ["/networkPolicy/apiServerPorts/0", "minimum"]),
        ({"operater": {}}, ["operater", "not allowed"]),
    ],
    ids=str,
)
def test_wrong_values_are_refused_by_name(tmp_path, values, told):
    done = helm("template", "weir", str(CHART), home=tmp_path, values=values)
    assert done.returncode != 0
    for part in told:
        assert part in done.stderr


def test_an_older_cluster_is_refused(tmp_path):
    done = helm("template", "weir", str(CHART), "--kube-version", "1.28.9", home=tmp_path)
    assert "requires kubeVersion: >=1.29.0-0" in done.stderr


def test_every_value_is_described_and_every_description_has_a_default():
    def compare(schema, values, path):
        assert set(schema["properties"]) - {"global"} == set(values), path
        for name, part in schema["properties"].items():
            assert part["description"].endswith("."), f"{path}.{name}"
            if "properties" in part and name in values:
                assert part["additionalProperties"] is False, f"{path}.{name}"
                compare(part, values[name], f"{path}.{name}")

    compare(SCHEMA, VALUES, "")


def test_the_chart_is_of_this_version():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


def test_the_notes_tell_the_next_command_with_a_policy_that_is_one(tmp_path):
    argv = ("install", "weir", str(CHART), "--dry-run=client", "--namespace", "weir-system")
    notes = helm(*argv, home=tmp_path, values={}).stdout.partition("NOTES:")[2]
    (policy,) = re.findall(r"<<'POLICY'\n(.*?)  POLICY\n", notes, re.DOTALL)
    assert yaml.safe_load(policy)["spec"]["podSelector"] == {"matchLabels": {"app": "try"}}
    assert "--labels=app=try" in notes
    assert "no pod starts" not in notes
    closed = {"webhook": {"failurePolicy": "Fail"}, "serving": {"replicas": 1}}
    notes = helm(*argv, home=tmp_path, values=closed).stdout.partition("NOTES:")[2]
    assert "no pod starts, but in kube-system, weir-system," in notes
    assert "use 2 or more" in notes


def test_the_dashboard_asks_for_metrics_that_there_are(render):
    (found,) = [obj for obj in objects(render(WITH_ALL)) if obj["metadata"]["name"] == "weir-dashboard"]
    dashboard = json.loads(found["data"]["weir.json"])
    asked = {
        re.sub(r"_(bucket|sum|count)$", "", name)
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"\b(?:weir|process)_[a-z_]+", target["expr"])
    }
    sources = [*(ROOT / "sidecar").rglob("*.py"), *(ROOT / "operator").rglob("*.py")]
    known = {name for path in sources for name in re.findall(r'"((?:weir|process)_[a-z_]+)"', path.read_text())}
    assert asked
    assert asked <= known
