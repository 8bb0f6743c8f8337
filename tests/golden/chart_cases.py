"""Values for which the whole chart is a golden file; the definitions of the kinds are left out, they are files as they are."""

from typing import Any

CASES: dict[str, dict[str, Any]] = {
    "default": {"crds": {"install": False}},
    "fail-closed": {
        "crds": {"install": False},
        "webhook": {"failurePolicy": "Fail", "timeoutSeconds": 3, "excludedNamespaces": ["ci", "monitoring"]},
        "serving": {"replicas": 3, "priorityClassName": "system-cluster-critical"},
        "operator": {"priorityClassName": "system-cluster-critical"},
    },
    "cni": {"crds": {"install": False}, "cni": {"enabled": True}},
    "cert-manager": {
        "crds": {"install": False},
        "certificates": {"mode": "CertManager"},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "rbac": {"aggregate": False},
        "networkPolicy": {"enabled": False},
    },
    "everything-said": {
        "crds": {"install": False},
        "image": {
            "registry": "registry.example:5000/mirror/",
            "pullPolicy": "Always",
            "pullSecrets": [{"name": "mirror"}],
            "control": {"repository": "weir/control", "tag": "0.1.0-debug"},
            "sidecar": {"repository": "weir/sidecar", "digest": "sha256:" + "0" * 64},
        },
        "certificates": {"mode": "CertManager", "issuerRef": {"name": "internal", "kind": "ClusterIssuer"}},
        "injection": {"imagePullSecrets": ["mirror"], "sidecarResources": {"requests": {"memory": "64Mi"}}},
        "webhook": {"repair": {"mode": "Delete"}},
        "operator": {
            "evictions": {"perMinute": 3, "barePods": True},
            "nodeSelector": {"kubernetes.io/arch": "amd64"},
            "tolerations": [{"key": "control-plane", "operator": "Exists"}],
            "podLabels": {"team": "platform"},
            "podAnnotations": {"note": "one"},
        },
        "serving": {
            "replicas": 1,
            "nodeSelector": {"kubernetes.io/arch": "amd64"},
            "tolerations": [{"key": "control-plane", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "podLabels": {"team": "platform"},
            "podAnnotations": {"note": "two"},
        },
        "networkPolicy": {
            "apiServerPorts": [8443],
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        },
    },
}
