"""What is done to an application's container."""

import pytest

from weir_operator.compile import Injection
from weir_operator.injection.application import FILES, equip

EMPTY = {"empty": {"name": "empty", "emptyDir": {}}, "maps": {"name": "maps", "configMap": {"name": "m"}}}
OPTION = f"-Djavax.net.ssl.trustStore={FILES.java}"


def container(**more):
    return {"name": "app", "image": "a", **more}


def mounting(path, volume="maps", **more):
    return container(volumeMounts=[{"name": volume, "mountPath": path, **more}])


def equipped(given, injection=None):
    made, warnings = equip(given, injection or Injection(), EMPTY)
    return made, list(warnings)


def environment(given, injection=None):
    """Variables as a container gets them: of two the later one counts."""
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in equipped(given, injection)[0]["env"]}


def places(given, injection=None):
    mounts = equipped(given, injection)[0].get("volumeMounts", [])
    return {mount["mountPath"]: mount.get("subPath") for mount in mounts if mount["name"] == "weir-trust"}


def with_env(*entries):
    return container(env=list(entries))


def test_variables_and_files_lead_to_the_trust_files():
    assert environment(container())["SSL_CERT_FILE"] == "/run/weir/trust/bundle.crt"
    found = places(container())
    assert found["/run/weir/trust"] is None
    assert found["/etc/ssl/certs/ca-certificates.crt"] == "bundle.crt"
    assert found["/etc/ssl/certs/java/cacerts"] == "truststore.jks"
    assert found["/etc/firefox/policies/policies.json"] == "firefox.json"
    assert all(mount["readOnly"] for mount in equipped(container())[0]["volumeMounts"])


@pytest.mark.parametrize(
    ("injection", "gone"),
    [
        (Injection(system_stores=False), "/etc/ssl/certs/ca-certificates.crt"),
        (Injection(java=False), "/etc/ssl/certs/java/cacerts"),
        (Injection(nss=False), "/etc/opt/chrome/policies/managed/weir.json"),
    ],
)
def test_files_are_covered_as_the_policy_wants(injection, gone):
    assert gone in places(container())
    assert gone not in places(container(), injection)


def test_variables_are_set_as_the_policy_wants():
    assert list(environment(container(), Injection(environment=False))) == ["JAVA_TOOL_OPTIONS"]
    assert "JAVA_TOOL_OPTIONS" not in environment(container(), Injection(java=False))


@pytest.mark.parametrize(
    "own",
    [
        {"name": "SSL_CERT_FILE", "value": "/mine"},
        {"name": "SSL_CERT_FILE", "value": ""},
        {"name": "SSL_CERT_FILE"},
        {"name": "SSL_CERT_FILE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ],
)
def test_a_variable_that_the_container_sets_stays_and_is_told(own):
    made, (warning,) = equipped(with_env(own))
    assert [entry for entry in made["env"] if entry["name"] == "SSL_CERT_FILE"] == [own]
    assert "'app'" in warning
    assert "SSL_CERT_FILE" in warning
    assert "injection.override" in warning


def test_override_replaces_it():
    given = with_env({"name": "SSL_CERT_FILE", "value": "/mine"}, {"name": "A", "value": "$(SSL_CERT_FILE)"})
    made, warnings = equipped(given, Injection(override=True))
    names = [entry["name"] for entry in made["env"]]
    assert environment(given, Injection(override=True))["SSL_CERT_FILE"] == FILES.bundle
    assert names.count("SSL_CERT_FILE") == 1
    # What refers to it stands behind it, or it would not be expanded.
    assert names.index("SSL_CERT_FILE") < names.index("A")
    assert warnings == []


def test_a_path_that_is_covered_by_the_bundle_needs_no_warning():
    given = with_env({"name": "CURL_CA_BUNDLE", "value": "/etc/ssl/certs/ca-certificates.crt"})
    assert equipped(given)[1] == []
    assert equipped(given, Injection(system_stores=False))[1] != []


def test_java_options_are_added_to_where_they_are():
    given = with_env({"name": "M", "value": "1g"}, {"name": "JAVA_TOOL_OPTIONS", "value": "-Xmx$(M)"}, {"name": "Z"})
    made, warnings = equipped(given)
    assert [entry["name"] for entry in made["env"]][-3:] == ["M", "JAVA_TOOL_OPTIONS", "Z"]
    assert environment(given)["JAVA_TOOL_OPTIONS"] == f"-Xmx$(M) {OPTION}"
    assert warnings == []


def test_empty_java_options_are_none():
    assert environment(with_env({"name": "JAVA_TOOL_OPTIONS", "value": ""}))["JAVA_TOOL_OPTIONS"] == OPTION


@pytest.mark.parametrize(
    "given",
    [
        with_env({"name": "JAVA_TOOL_OPTIONS", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}}),
        with_env({"name": "JAVA_TOOL_OPTIONS", "value": "-Djavax.net.ssl.trustStore=/mine"}),
        container(envFrom=[{"configMapRef": {"name": "m"}}]),
    ],
)
def test_java_options_that_cannot_be_added_to_stay_and_are_told(given):
    made, (warning,) = equipped(given)
    assert [entry for entry in made["env"] if entry["name"] == "JAVA_TOOL_OPTIONS"] == given.get("env", [])
    assert "JAVA_TOOL_OPTIONS" in warning
    made, warnings = equipped(given, Injection(override=True))
    assert environment(given, Injection(override=True))["JAVA_TOOL_OPTIONS"].endswith(OPTION)
    assert warnings == []


def test_options_that_another_webhook_added_behind_ours_do_not_hide_ours():
    given = with_env({"name": "JAVA_TOOL_OPTIONS", "value": f"{OPTION} -javaagent:a.jar"})
    assert environment(given)["JAVA_TOOL_OPTIONS"] == f"{OPTION} -javaagent:a.jar"
    assert equipped(given)[1] == []


@pytest.mark.parametrize(
    "path",
    [
        "/etc/ssl/certs",
        "/etc/ssl/certs/",
        "etc/ssl/certs",
        "//etc/ssl/./x/../certs",
        "/etc/ssl",
        "/etc",
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/ssl/certs/ca-certificates.crt/below",
        "/etc/pki/tls/certs",
        "/etc/pki/ca-trust/extracted/pem",
        "/var/lib/ca-certificates/pem",
        "/usr/lib/ssl/certs",
    ],
)
def test_bundles_are_left_where_the_container_mounts_its_own(path):
    found = places(mounting(path))
    assert "bundle.crt" not in found.values()
    assert "/run/weir/trust" in found
    _, warnings = equipped(mounting(path))
    assert any(path in warning and "bundle" in warning for warning in warnings)
    assert "SSL_CERT_FILE" in environment(mounting(path))


@pytest.mark.parametrize(
    "path", ["/etc/ssl/certs/ours.pem", "/etc/ssl/private", "/etc/pki/ca-trust/source/blocklist", "/etc/ssl/certsx"]
)
def test_files_beside_the_bundle_are_no_reason(path):
    assert "bundle.crt" in places(mounting(path)).values()
    assert equipped(mounting(path))[1] == []


@pytest.mark.parametrize("path", ["/etc/pki/ca-trust/source/anchors", "/etc/pki/ca-trust"])
def test_anchors_are_left_where_the_container_mounts_its_own(path):
    found = places(mounting(path))
    assert not [place for place in found if "anchors" in place]
    assert any(path in warning and "anchors" in warning for warning in equipped(mounting(path))[1])


def test_a_keystore_of_ones_own_is_no_reason_to_leave_the_bundles():
    found = places(mounting("/etc/ssl/certs/java/cacerts"))
    assert "truststore.jks" not in found.values()
    assert "bundle.crt" in found.values()


@pytest.mark.parametrize(
    ("path", "volume", "more"),
    [
        ("/run", "maps", {}),
        ("/var/run/", "maps", {}),
        ("/", "maps", {}),
        ("/run", "empty", {"readOnly": True}),
        ("/run", "unknown", {}),
    ],
)
def test_nothing_is_put_into_a_volume_that_cannot_take_it(path, volume, more):
    given = mounting(path, volume, **more)
    made, (warning,) = equipped(given)
    assert made == given
    assert path in warning


def test_an_empty_directory_of_the_containers_own_can_take_it():
    assert "/run/weir/trust" in places(mounting("/run", "empty"))
    assert "/run/weir/trust" in places(mounting("/var/run/secrets/x"))


@pytest.mark.parametrize(
    "given",
    [
        container(),
        with_env({"name": "JAVA_TOOL_OPTIONS", "value": "-ea"}, {"name": "JAVA_TOOL_OPTIONS", "value": f"{OPTION} "}),
        with_env({"name": "JAVA_TOOL_OPTIONS", "value": "-Xmx1g "}, {"name": "SSL_CERT_DIR", "value": "/mine"}),
        with_env({"name": "JAVA_TOOL_OPTIONS", "value": "-ea "}, {"name": "JAVA_TOOL_OPTIONS", "valueFrom": {}}),
        with_env({"name": "JAVA_TOOL_OPTIONS"}, {"name": "PIP_CERT", "value": "/mine"}),
        mounting("/etc/ssl/certs"),
    ],
)
@pytest.mark.parametrize("injection", [Injection(), Injection(override=True), Injection(java=False)])
def test_a_second_call_changes_nothing(given, injection):
    once = equipped(given, injection)
    assert equipped(once[0], injection) == once
