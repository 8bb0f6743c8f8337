"""Pods of every kind once, and what injection is asked to do: the cases behind tests/golden/pods/NAME.yaml."""

import json
from typing import Any

import yaml

from weir_operator.cluster.facts import CONFIG_ANNOTATION
from weir_operator.cluster.policies import Plan, PolicyKey
from weir_operator.compile import AUTHORITY_DIR, Injection
from weir_operator.injection.inject import Settings
from weir_sidecar.contract.config import FailureMode, Setup, SidecarConfig, Startup, Stream, Trust, encode

NAMESPACE = "shop"
POLICY = PolicyKey("InterceptionPolicy", NAMESPACE, "debug")
PLAN = Plan(SidecarConfig(revision="0123456789abcdef"), Injection(), (POLICY,))
CLUSTER_PLAN = Plan(
    SidecarConfig(failure_mode=FailureMode.CLOSED, startup=Startup.OPEN),
    Injection(),
    (PolicyKey("ClusterInterceptionPolicy", None, "everything"), POLICY),
    cluster=True,
)
SETTINGS = Settings("registry.example/weir-sidecar:1", stream=Stream("weir-stream.weir-system.svc:443", "CA"))
CNI_SETTINGS = Settings(SETTINGS.image, stream=SETTINGS.stream, setup=Setup.CNI)
FULL_SETTINGS = Settings(
    "registry.example/weir-sidecar:1",
    pull_policy="IfNotPresent",
    image_pull_secrets=("registry", "own"),
    init_resources={"limits": {"memory": "64Mi"}},
    sidecar_resources={"requests": {"cpu": "10m", "memory": "64Mi"}},
    stream=SETTINGS.stream,
)


def pod(text: str) -> dict[str, Any]:
    """A v1 Pod; `text` is YAML below `metadata` and `spec`."""
    return {"apiVersion": "v1", "kind": "Pod", **yaml.safe_load(text)}


PLAIN = pod("""
metadata: {name: web, labels: {app: web}}
spec:
  containers:
    - {name: app, image: "example/web:1"}
""")

JOB = pod("""
metadata:
  generateName: nightly-28123456-
  namespace: shop
  ownerReferences:
    - {apiVersion: batch/v1, kind: Job, name: nightly-28123456, uid: u1, controller: true}
spec:
  restartPolicy: Never
  initContainers:
    - {name: fetch, image: "example/fetch:1"}
    - {name: cache, image: "example/cache:1", restartPolicy: Always}
  containers:
    - {name: work, image: "example/work:1", command: [work]}
""")

HARDENED = pod("""
metadata:
  generateName: api-5d4f8c7b9-
  labels: {app: api, pod-template-hash: 5d4f8c7b9}
  annotations: {example.com/note: kept, weir.dev/config: '{"forged": true}', weir.dev/policies: none}
  ownerReferences:
    - {apiVersion: apps/v1, kind: ReplicaSet, name: api-5d4f8c7b9, uid: u2, controller: true}
spec:
  automountServiceAccountToken: false
  hostUsers: false
  imagePullSecrets: [{name: own}]
  securityContext:
    runAsNonRoot: true
    runAsUser: 1000
    runAsGroup: 1000
    fsGroup: 2000
    seccompProfile: {type: RuntimeDefault}
    appArmorProfile: {type: Localhost, localhostProfile: api}
  containers:
    - name: api
      image: example/api:1
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      volumeMounts: [{name: run, mountPath: /run}]
  volumes:
    - {name: run, emptyDir: {}}
""")

OWN_TRUST = pod("""
metadata: {name: own}
spec:
  containers:
    - name: variables
      image: example/app:1
      env:
        - {name: MEMORY, value: 1g}
        - {name: SSL_CERT_FILE, value: /etc/ours.pem}
        - {name: CURL_CA_BUNDLE, value: /etc/ssl/certs/ca-certificates.crt}
        - {name: PIP_CERT, valueFrom: {configMapKeyRef: {name: settings, key: pip}}}
        - {name: JAVA_TOOL_OPTIONS, value: "-Xmx$(MEMORY)"}
    - name: java
      image: example/java:1
      env:
        - {name: JAVA_TOOL_OPTIONS, value: -Djavax.net.ssl.trustStore=/ours.jks}
    - name: from
      image: example/from:1
      envFrom: [{configMapRef: {name: settings}}]
    - name: store
      image: example/store:1
      volumeMounts: [{name: certificates, mountPath: /etc/pki/ca-trust/extracted/pem/}]
    - name: keystore
      image: example/keystore:1
      volumeMounts: [{name: certificates, mountPath: /etc/ssl/certs/java/cacerts, subPath: cacerts}]
    - name: firefox
      image: example/firefox:1
      volumeMounts: [{name: certificates, mountPath: /etc/firefox/policies}]
    - name: host
      image: example/host:1
      volumeMounts: [{name: host-run, mountPath: /var/run}]
  volumes:
    - {name: certificates, configMap: {name: certificates}}
    - {name: host-run, hostPath: {path: /run}}
""")

ISTIO = pod("""
metadata: {name: meshed}
spec:
  initContainers:
    - {name: istio-init, image: "example/proxyv2:1"}
    - {name: istio-proxy, image: "example/proxyv2:1", restartPolicy: Always, securityContext: {runAsUser: 1337}}
  containers:
    - {name: app, image: "example/app:1"}
""")

RESTRICTED = pod("""
metadata: {name: restricted}
spec:
  securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: app
      image: "example/app:1"
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
""")

CASES: dict[str, tuple[dict[str, Any], Plan, Settings]] = {
    "plain": (PLAIN, PLAN, SETTINGS),
    "job": (JOB, PLAN, SETTINGS),
    "hardened": (
        HARDENED,
        Plan(
            SidecarConfig(trust=Trust(authority_dir=AUTHORITY_DIR)),
            Injection(secret="company-ca", config_maps=("roots", "more-roots")),
            (POLICY,),
        ),
        FULL_SETTINGS,
    ),
    "own-trust": (OWN_TRUST, PLAN, SETTINGS),
    "override": (OWN_TRUST, Plan(SidecarConfig(), Injection(override=True), (POLICY,)), SETTINGS),
    "nothing-wanted": (
        PLAIN,
        Plan(SidecarConfig(), Injection(environment=False, system_stores=False, java=False, nss=False), (POLICY,)),
        SETTINGS,
    ),
    "chosen-container": (JOB, Plan(SidecarConfig(), Injection(containers=("work",)), (POLICY,)), SETTINGS),
    "cluster-startup-open": (PLAIN, CLUSTER_PLAN, SETTINGS),
    "credentials": (
        PLAIN,
        Plan(SidecarConfig(), Injection(credentials=(("api", "token"), ("mail", "key"), ("api", "other"))), (POLICY,)),
        SETTINGS,
    ),
    "istio": (ISTIO, PLAN, SETTINGS),
    "cni": (PLAIN, PLAN, CNI_SETTINGS),
    "cni-restricted": (RESTRICTED, PLAN, CNI_SETTINGS),
}


def shown(injected: dict[str, Any]) -> str:
    """An injected pod as a golden file has it: of the config only what differs from the default."""
    annotations = injected["metadata"]["annotations"]
    config = _difference(json.loads(annotations[CONFIG_ANNOTATION]), json.loads(encode(SidecarConfig())))
    text = json.dumps(config, separators=(",", ":"))
    metadata = {**injected["metadata"], "annotations": {**annotations, CONFIG_ANNOTATION: text}}
    return yaml.dump({**injected, "metadata": metadata}, Dumper=_Plain, sort_keys=False, width=120)


class _Plain(yaml.SafeDumper):
    """YAML without anchors, for people."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _difference(value: Any, default: Any) -> Any:
    if isinstance(value, dict) and isinstance(default, dict):
        parts = {key: _difference(below, default.get(key)) for key, below in value.items()}
        return {key: part for key, part in parts.items() if part is not None} or None
    return None if value == default else value
