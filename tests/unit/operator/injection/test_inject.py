"""Which pods are captured, which are left alone, which are refused; and what the whole pod is then."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from golden.pod_cases import CASES, CLUSTER_PLAN, HARDENED, ISTIO, JOB, PLAIN, PLAN, SETTINGS
from weir_operator.cluster.policies import Plan, PolicyKey
from weir_operator.compile import Injection
from weir_operator.injection.inject import Injected, LeftAlone, LeftAloneReason, Refused, Settings, inject
from weir_sidecar.contract import config
from weir_sidecar.contract.config import Action, Capture, Exclude, IDRange, Match, Rule, SidecarConfig
from weir_sidecar.contract.flow import Decision, Protocol
from weir_sidecar.core.policy import Policy
from weir_sidecar.core.verdict import FlowFacts

OURS = ["weir-init", "weir-sidecar"]


def injected(given, plan=PLAN, settings=SETTINGS):
    result = inject(given, "shop", plan, settings)
    assert isinstance(result, Injected), result
    return result


def refused(given, plan=PLAN):
    result = inject(given, "shop", plan, SETTINGS)
    assert isinstance(result, Refused), result
    return result.message


def with_spec(**spec):
    return {**PLAIN, "spec": {**PLAIN["spec"], **spec}}


def with_container(**fields):
    return with_spec(containers=[{"name": "app", "image": "a", **fields}])


def with_labels(given, **labels):
    return {**given, "metadata": {**given["metadata"], "labels": labels}}


def opted_out(given):
    return {**given, "metadata": {**given["metadata"], "labels": {"weir.dev/inject": "false"}}}


def names(containers):
    return [container["name"] for container in containers]


def config_of(result):
    return config.decode(result.pod["metadata"]["annotations"]["weir.dev/config"])


def ours(result, name="weir-sidecar"):
    return next(one for one in result.pod["spec"]["initContainers"] if one["name"] == name)


# The API server


def with_api_server(**changes):
    plan = replace(PLAN, config=replace(PLAN.config, **changes))
    return config_of(injected(PLAIN, plan, replace(SETTINGS, api_server=("10.96.0.1", 443))))


def decided(made, address="10.96.0.1", port=443, host=None):
    return Policy(made).decide(FlowFacts(Protocol.TLS, address, port, host)).decision


def test_clients_of_the_api_server_pass_unless_a_rule_says_otherwise():
    made = with_api_server(rules=(), default_action=Action.INTERCEPT)
    assert decided(made) is decided(made, host="kubernetes.default.svc") is Decision.PASSTHROUGH
    assert decided(made, port=8443) is decided(made, address="10.96.0.2") is Decision.INTERCEPT
    denied = with_api_server(rules=(Rule("no", Match(cidrs=("10.96.0.0/16",)), Action.DENY),))
    assert decided(denied) is Decision.DENY


def test_a_default_of_deny_denies_the_api_server_too():
    assert decided(with_api_server(rules=(), default_action=Action.DENY)) is Decision.DENY


# What is made


def test_our_containers_come_first():
    assert names(injected(JOB).pod["spec"]["initContainers"]) == [*OURS, "fetch", "cache"]
    assert ours(injected(JOB))["restartPolicy"] == "Always"
    assert "restartPolicy" not in ours(injected(JOB), "weir-init")


def test_the_given_pod_is_never_changed():
    before = copy.deepcopy(HARDENED)
    injected(HARDENED)
    assert before == HARDENED


def test_the_config_names_the_workload_the_stream_and_the_probe():
    found = config_of(injected(HARDENED))
    assert found.workload == "shop/Deployment/api"
    assert found.stream == SETTINGS.stream
    assert found.ports.probe == 15804
    assert found.revision == PLAN.config.revision
    assert config_of(injected(JOB)).workload == "shop/CronJob/nightly"


def test_what_a_template_says_about_itself_is_overwritten():
    metadata = injected(with_labels(HARDENED, **{"weir.dev/captured": "false"})).pod["metadata"]
    assert "forged" not in metadata["annotations"]["weir.dev/config"]
    assert metadata["annotations"]["weir.dev/policies"] == "InterceptionPolicy/shop/debug"
    assert metadata["annotations"]["example.com/note"] == "kept"
    assert metadata["labels"] == {"weir.dev/captured": "true"}


def test_with_startup_open_nothing_waits_for_the_sidecar():
    assert "startupProbe" in ours(injected(PLAIN))
    assert "startupProbe" not in ours(injected(PLAIN, CLUSTER_PLAN))
    assert "livenessProbe" in ours(injected(PLAIN, CLUSTER_PLAN))


def test_the_sidecar_names_a_user_only_where_the_pod_does():
    assert "runAsUser" not in ours(injected(PLAIN))["securityContext"]
    assert ours(injected(HARDENED))["securityContext"]["runAsUser"] == 0
    assert ours(injected(PLAIN), "weir-init")["securityContext"]["runAsUser"] == 0


def test_our_containers_may_start_as_root_where_the_pods_may_not():
    for name in OURS:
        security = ours(injected(HARDENED), name)["securityContext"]
        assert security["runAsNonRoot"] is False
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"]["drop"] == ["ALL"]
        assert security["appArmorProfile"] == {"type": "RuntimeDefault"}
    assert "appArmorProfile" not in ours(injected(PLAIN))["securityContext"]
    assert "NET_ADMIN" not in ours(injected(PLAIN))["securityContext"]["capabilities"]["add"]


def test_the_group_of_the_pods_files_is_the_sidecars_too():
    args = ours(injected(HARDENED))["args"]
    assert args[-2:] == ["--group", "2000"]
    assert "--group" not in ours(injected(PLAIN))["args"]


def test_the_ca_and_roots_are_for_our_containers_alone():
    result = injected(PLAIN, Plan(SidecarConfig(), Injection(secret="ca", config_maps=("one", "two"))))
    for name in OURS:
        mounts = {mount["name"]: mount["mountPath"] for mount in ours(result, name)["volumeMounts"]}
        assert mounts["weir-ca"] == "/run/weir/ca"
        assert mounts["weir-roots-1"] == "/run/weir/roots/two"
    (app,) = result.pod["spec"]["containers"]
    assert {mount["name"] for mount in app["volumeMounts"]} == {"weir-trust"}
    volumes = {volume["name"]: volume for volume in result.pod["spec"]["volumes"]}
    assert volumes["weir-ca"]["secret"] == {"secretName": "ca"}
    assert volumes["weir-roots-1"]["configMap"] == {"name": "two", "optional": True}


def test_images_resources_and_pull_secrets_are_the_installations():
    settings = Settings("i:2", "Always", ("own", "other"), {"limits": {"cpu": "1"}}, {"limits": {"cpu": "2"}})
    result = injected(HARDENED, settings=settings)
    assert ours(result, "weir-init")["resources"] == {"limits": {"cpu": "1"}}
    assert ours(result)["resources"] == {"limits": {"cpu": "2"}}
    assert {(one["image"], one["imagePullPolicy"]) for one in result.pod["spec"]["initContainers"]} == {
        ("i:2", "Always")
    }
    assert result.pod["spec"]["imagePullSecrets"] == [{"name": "own"}, {"name": "other"}]
    assert "imagePullSecrets" not in injected(PLAIN).pod["spec"]


def test_only_the_chosen_containers_are_made_to_trust():
    result = injected(JOB, Plan(SidecarConfig(), Injection(containers=("work",))))
    *_, fetch, cache = result.pod["spec"]["initContainers"]
    (work,) = result.pod["spec"]["containers"]
    assert "env" not in fetch
    assert "volumeMounts" not in cache
    assert work["env"]


def test_what_else_the_pod_says_stays():
    spec = injected(HARDENED).pod["spec"]
    for field in ("automountServiceAccountToken", "hostUsers", "securityContext"):
        assert spec[field] == HARDENED["spec"][field]


def test_a_meshs_proxy_is_exempt_and_keeps_its_trust():
    plan = Plan(SidecarConfig(capture=Capture(exclude=Exclude(uids=(IDRange(7, 7),)))), Injection())
    result = injected(ISTIO, plan)
    assert config_of(result).capture.exclude.uids == (IDRange(7, 7), IDRange(1337, 1337))
    assert result.pod["spec"]["initContainers"][2:] == ISTIO["spec"]["initContainers"]
    assert any("Istio" in warning for warning in result.warnings)


# Again


def test_a_container_that_another_webhook_added_gets_its_share():
    once = injected(PLAIN).pod
    changed = copy.deepcopy(once)
    changed["spec"]["containers"].append({"name": "added", "image": "b"})
    changed["spec"]["initContainers"].insert(0, {"name": "first", "image": "b"})
    again = injected(changed).pod["spec"]
    assert names(again["initContainers"]) == [*OURS, "first"]
    assert again["containers"][0] == once["spec"]["containers"][0]
    assert again["containers"][1]["env"]
    assert again["initContainers"][2]["volumeMounts"]


def test_a_mesh_that_came_later_is_found():
    changed = copy.deepcopy(injected(PLAIN).pod)
    changed["spec"]["containers"].append({"name": "istio-proxy", "image": "i"})
    assert config_of(injected(changed)).capture.exclude.uids == (IDRange(1337, 1337),)


def test_a_mount_that_another_webhook_added_takes_the_place_of_ours():
    changed = copy.deepcopy(injected(PLAIN).pod)
    changed["spec"]["volumes"].append({"name": "certs", "configMap": {"name": "certs"}})
    changed["spec"]["containers"][0]["volumeMounts"].append({"name": "certs", "mountPath": "/etc/ssl/certs"})
    mounts = injected(changed).pod["spec"]["containers"][0]["volumeMounts"]
    assert "bundle.crt" not in [mount.get("subPath") for mount in mounts]


def test_an_older_version_of_ours_is_renewed():
    old = injected(HARDENED, *CASES["hardened"][1:]).pod
    new = injected(old, PLAN, Settings("i:2"))
    assert {one["image"] for one in new.pod["spec"]["initContainers"]} == {"i:2"}
    assert names(new.pod["spec"]["initContainers"]) == OURS
    volumes = names(new.pod["spec"]["volumes"])
    assert len(volumes) == len(set(volumes))
    assert "weir-ca" not in volumes


ENV = st.builds(
    lambda name, value: {"name": name} | value,
    st.sampled_from(["SSL_CERT_FILE", "SSL_CERT_DIR", "PIP_CERT", "JAVA_TOOL_OPTIONS", "OTHER"]),
    st.sampled_from(
        [
            {},
            {"value": ""},
            {"value": "x "},
            {"value": "/etc/ssl/cert.pem"},
            {"value": "-Djavax.net.ssl.trustStore=/run/weir/trust/truststore.jks"},
            {"value": "-Djavax.net.ssl.trustStore=/run/weir/trust/truststore.jks -Dx"},
            {"value": "/run/weir/trust/bundle.crt"},
            {"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ]
    ),
)
MOUNTS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["maps", "empty"]),
        "mountPath": st.sampled_from(["/run", "/etc/ssl", "/etc/ssl/certs/java", "/etc/pki/tls", "/data"]),
    }
)
CONTAINERS = st.builds(
    lambda name, fields: {"name": name, "image": "i", **fields},
    st.sampled_from(["app", "istio-proxy", "other"]),
    st.fixed_dictionaries(
        {},
        optional={
            "env": st.lists(ENV, max_size=4),
            "envFrom": st.just([{"configMapRef": {"name": "m"}}]),
            "volumeMounts": st.lists(MOUNTS, max_size=3, unique_by=lambda mount: mount["mountPath"]),
            "securityContext": st.sampled_from([{}, {"runAsUser": 0}, {"runAsUser": 1000}]),
            "restartPolicy": st.just("Always"),
        },
    ),
)
PODS = st.fixed_dictionaries(
    {
        "metadata": st.fixed_dictionaries({}, optional={"name": st.just("p"), "labels": st.just({"a": "b"})}),
        "spec": st.fixed_dictionaries(
            {"containers": st.lists(CONTAINERS, min_size=1, max_size=3, unique_by=lambda one: one["name"])},
            optional={
                "initContainers": st.lists(CONTAINERS, max_size=2),
                "securityContext": st.sampled_from([{}, {"runAsUser": 0}, {"fsGroup": 5}]),
                "volumes": st.just([{"name": "maps", "configMap": {"name": "m"}}, {"name": "empty", "emptyDir": {}}]),
                "imagePullSecrets": st.just([{"name": "own"}]),
            },
        ),
    }
)
INJECTIONS = st.builds(
    Injection,
    environment=st.booleans(),
    system_stores=st.booleans(),
    java=st.booleans(),
    nss=st.booleans(),
    override=st.booleans(),
    containers=st.none() | st.just(("app",)),
    secret=st.none() | st.just("ca"),
    config_maps=st.sampled_from([(), ("one", "two")]),
)


@settings(max_examples=150, deadline=None)
@given(PODS, INJECTIONS)
def test_a_second_call_changes_nothing(given, injection):
    plan = Plan(SidecarConfig(), injection, (PolicyKey("InterceptionPolicy", "shop", "p"),))
    once = injected(given, plan)
    assert injected(once.pod, plan) == once


# Left alone


def left_alone(given, plan=PLAN):
    result = inject(given, "shop", plan, SETTINGS)
    assert isinstance(result, LeftAlone), result
    return result


def test_a_pod_in_the_nodes_network_is_left_alone_and_told():
    result = left_alone(with_spec(hostNetwork=True))
    assert result.reason is LeftAloneReason.HOST_NETWORK
    (warning,) = result.warnings
    assert "hostNetwork" in warning
    assert 'weir.dev/inject: "false"' in warning


def test_who_asked_to_be_left_alone_in_the_nodes_network_is_not_told():
    assert left_alone(opted_out(with_spec(hostNetwork=True))).warnings == ()
    assert left_alone(opted_out(with_spec(hostNetwork=True)), CLUSTER_PLAN).warnings != ()


@pytest.mark.parametrize("spec", [{"os": {"name": "windows"}}, {"nodeSelector": {"kubernetes.io/os": "windows"}}])
def test_windows_is_left_alone(spec):
    assert left_alone(with_spec(**spec)) == LeftAlone(LeftAloneReason.WINDOWS)


def test_the_image_of_a_static_pod_is_left_alone():
    static = {**PLAIN, "metadata": {"name": "p", "annotations": {"kubernetes.io/config.mirror": "1"}}}
    assert left_alone(static) == LeftAlone(LeftAloneReason.STATIC)


def test_opting_out_counts_where_no_cluster_policy_selects_the_pod():
    assert left_alone(opted_out(PLAIN)) == LeftAlone(LeftAloneReason.OPTED_OUT)
    result = injected(opted_out(PLAIN), CLUSTER_PLAN)
    assert any("weir.dev/inject" in warning and "cluster policy" in warning for warning in result.warnings)


# Refused


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (with_spec(securityContext={"runAsUser": 15801}), "spec.securityContext.runAsUser"),
        (with_spec(securityContext={"runAsGroup": 15801}), "spec.securityContext.runAsGroup"),
        (with_spec(securityContext={"fsGroup": 15801}), "spec.securityContext.fsGroup"),
        (with_spec(securityContext={"supplementalGroups": [1, 15801]}), "spec.securityContext.supplementalGroups"),
        (with_container(securityContext={"runAsUser": 15801}), "container 'app': securityContext.runAsUser"),
        (with_container(securityContext={"runAsGroup": 15801}), "container 'app': securityContext.runAsGroup"),
        (
            with_spec(initContainers=[{"name": "i", "image": "i", "securityContext": {"runAsUser": 15801}}]),
            "container 'i': securityContext.runAsUser",
        ),
        (
            with_spec(ephemeralContainers=[{"name": "e", "image": "i", "securityContext": {"runAsUser": 15801}}]),
            "container 'e': securityContext.runAsUser",
        ),
    ],
)
def test_the_proxys_identity_is_its_own(given, field):
    message = refused(given)
    assert field in message
    assert "found 15801" in message
    assert "allowed" in message


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (with_spec(containers=[{"name": "weir-sidecar", "image": "i"}]), "container 'weir-sidecar'"),
        (with_spec(initContainers=[{"name": "weir-init", "image": "i"}]), "container 'weir-init'"),
        (with_spec(volumes=[{"name": "weir-pod", "hostPath": {"path": "/"}}]), "'weir-pod'"),
        (with_spec(volumes=[{"name": "weir-roots-7", "emptyDir": {}}]), "'weir-roots-7'"),
        (with_container(volumeMounts=[{"name": "weir-pod", "mountPath": "/keys"}]), "'weir-pod'"),
        (with_container(volumeMounts=[{"name": "weir-trust", "mountPath": "/run/weir/trust"}]), "'weir-trust'"),
        (with_container(volumeMounts=[{"name": "weir-trust", "mountPath": "/t", "readOnly": True}]), "'weir-trust'"),
        (with_container(volumeMounts=[{"name": "mine", "mountPath": "/run/weir/pod"}]), "'/run/weir/pod'"),
        (with_container(volumeMounts=[{"name": "mine", "mountPath": "/var/run/weir/"}]), "'/var/run/weir/'"),
    ],
)
def test_our_names_and_places_are_ours(given, found):
    assert found in refused(given)


def test_a_volume_that_is_only_called_like_ours_is_none_of_ours():
    injected(with_spec(volumes=[{"name": "weir-data", "emptyDir": {}}]))


@pytest.mark.parametrize("port", [{"containerPort": 15801}, {"containerPort": 15802}, {"containerPort": 15804}])
def test_the_proxys_ports_are_its_own(port):
    message = refused(with_container(ports=[port]))
    assert "container 'app'" in message
    assert str(port["containerPort"]) in message


def test_ports_of_the_other_protocol_and_of_the_node_are_free():
    injected(
        with_container(ports=[{"containerPort": 15804, "protocol": "UDP"}, {"containerPort": 80, "hostPort": 15801}])
    )
    assert "15803" in refused(with_container(ports=[{"containerPort": 15803, "protocol": "UDP"}]))


def test_all_that_is_wrong_is_told_at_once():
    message = refused(
        with_container(securityContext={"runAsUser": 15801, "runAsGroup": 15801}, ports=[{"containerPort": 15801}])
    )
    assert all(word in message for word in ("runAsUser", "runAsGroup", "containerPort"))


def test_a_config_that_no_pod_can_carry_is_refused():
    rules = tuple(Rule(f"p/{n}", Match(hosts=(f"host-{n}.example",)), config.Action.DENY) for n in range(4000))
    message = refused(PLAIN, Plan(SidecarConfig(rules=rules), Injection(), PLAN.policies))
    assert "262144" in message
    assert "weir.dev/config" in message
    assert "InterceptionPolicy/shop/debug" in message


# Warnings


def test_processes_that_are_shared_are_warned_of():
    (warning,) = injected(with_spec(shareProcessNamespace=True)).warnings
    assert "shareProcessNamespace" in warning


def test_a_pod_that_is_root_throughout_is_told_that_its_config_stays():
    root = with_spec(securityContext={"runAsUser": 0})
    (warning,) = injected(root).warnings
    assert "runAsUser" in warning
    assert injected(with_spec(securityContext={"runAsUser": 0, "fsGroup": 1})).warnings == ()
    assert injected(with_container(securityContext={"runAsUser": 0})).warnings == ()


@pytest.mark.parametrize(
    "context", [{"privileged": True}, {"capabilities": {"add": ["NET_ADMIN"]}}, {"capabilities": {"add": ["X", "ALL"]}}]
)
def test_who_can_unload_the_rules_is_named(context):
    (warning,) = injected(with_container(securityContext=context)).warnings
    assert "container 'app'" in warning
    assert "unload" in warning


def test_ordinary_rights_and_those_of_a_mesh_are_not():
    assert injected(with_container(securityContext={"capabilities": {"add": ["NET_BIND_SERVICE"]}})).warnings == ()
    setup = {"name": "istio-init", "image": "i", "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}
    assert injected(with_spec(initContainers=[setup])).warnings == ()


@pytest.mark.parametrize("name", CASES)
def test_no_warning_is_longer_than_the_api_server_passes_on(name):
    given, plan, settings = CASES[name]
    # k8s.io/apiserver cuts a warning at 256 characters when together they come to much.
    assert all(len(warning) <= 256 for warning in injected(given, plan, settings).warnings)


def test_the_config_in_the_annotation_is_json_that_the_sidecar_reads():
    text = injected(PLAIN).pod["metadata"]["annotations"]["weir.dev/config"]
    assert json.loads(text)["workload"] == "shop/Pod/web"
    assert config.decode(text).stream == SETTINGS.stream
