"""The outside world of applications in a cluster: one pod, and Services of either family that lead to it."""

import base64
import json
from typing import Any

from lab.kube import KubectlError
from lab.pki import Authority, LeafShape, self_signed
from lab.weir_cluster import WeirCluster
from lab.workloads import container, deployment

FAMILIES = {"4": "IPv4", "6": "IPv6"}
_TCP = {"https": 443, "http": 80, "bad": 444, "asks": 445, "echo": 7007, "banner": 2525, "dns": 53, "closed": 9}
_UDP = {"quic": 443, "echo": 7007, "dns": 53}
_PORTS = [
    {"name": f"{name}-{protocol.lower()}", "port": port, "protocol": protocol}
    for protocol, ports in (("TCP", _TCP), ("UDP", _UDP))
    for name, port in ports.items()
]
"""Each is served under its own number, because some CNIs replace a Service's address and port before a packet is sent."""


class Origin:
    """The servers that applications call, with a CA that nobody knows who was not told."""

    def __init__(self, weir: WeirCluster, namespace: str) -> None:
        self._weir = weir
        self.namespace = namespace
        self.host = self.name("origin")
        self._authority = Authority.root("Origin CA")
        self.ca_pem = self._authority.issued.pem.decode()

    def name(self, service: str) -> str:
        """The whole name of one of its Services."""
        return f"{service}.{self.namespace}.svc.cluster.local"

    def start(self) -> None:
        """Until it serves."""
        names = (f"*.{self.namespace}.svc.cluster.local", f"*.{self.namespace}.svc", f"origin.{self.namespace}")
        scratch = self._weir.cluster.directory / "origin.pem"
        good = self._authority.leaf(LeafShape(names=names)).write(scratch).read_bytes()
        bad = self_signed(self.host).write(scratch).read_bytes()
        files = {"good.pem": good, "bad.pem": bad, "ca.crt": self.ca_pem.encode()}
        server = container(
            "origin",
            volumeMounts=[{"name": "certs", "mountPath": "/certs"}],
            readinessProbe={"tcpSocket": {"port": 443}, "periodSeconds": 1},
            securityContext={"runAsUser": 0},
        )
        spec = {"containers": [server], "volumes": [{"name": "certs", "secret": {"secretName": "origin"}}]}
        where = {"name": "origin", "namespace": self.namespace}
        encoded = {name: base64.b64encode(data).decode() for name, data in files.items()}
        self._weir.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": where, "data": encoded},
            {**deployment("origin", {"spec": spec}), "metadata": where},
            self._service("origin", ipFamilyPolicy="PreferDualStack"),
        )
        self._weir.wait_rolled_out(self.namespace, "origin")

    def add(self, service: str, family: str) -> str | None:
        """A further name for it, which has addresses of one family alone: the address; None if the cluster has none such."""
        made = self._service(service, ipFamilyPolicy="SingleStack", ipFamilies=[FAMILIES[family]])
        path = f"/api/v1/namespaces/{self.namespace}/services"
        answer = self._weir.cluster.request("POST", path, made)
        if answer.status_code == 422:
            return None
        answer.raise_for_status()
        return str(answer.json()["spec"]["clusterIP"])

    def addresses(self) -> dict[str, str]:
        """The pod's own address, by family: "4", "6"."""
        (pod,) = self._weir.pods(self.namespace, "app=origin")
        return {"6" if ":" in one["ip"] else "4": one["ip"] for one in pod["status"]["podIPs"]}

    def arrived(self, port: int) -> dict[str, int]:
        """How many first packets came to a port, by family and protocol ("4 17": UDP over IPv4)."""
        asks = "import sys, urllib.request as r; print(r.urlopen('http://localhost/arrived').read().decode())"
        try:
            said = self._weir.kubectl("exec", "deployment/origin", "-n", self.namespace, "--", "python3", "-c", asks)
        except KubectlError as error:
            raise AssertionError(f"the origin does not tell what arrived: {error}") from error
        return {kind.rpartition(" ")[0]: n for kind, n in json.loads(said).items() if kind.endswith(f" {port}")}

    def introduce(self, namespace: str) -> None:
        """Tell a namespace's pods (ConfigMap origin-ca) and Weir (a TrustPolicy) of the origin's CA."""
        self._weir.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "origin-ca", "namespace": namespace},
                "data": {"ca.crt": self.ca_pem},
            },
            {
                "apiVersion": "weir.dev/v1alpha1",
                "kind": "TrustPolicy",
                "metadata": {"name": "origin", "namespace": namespace},
                "spec": {"upstream": {"roots": [{"pem": self.ca_pem}]}},
            },
        )

    def _service(self, name: str, **spec: Any) -> dict[str, Any]:
        metadata = {"name": name, "namespace": self.namespace}
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": {"app": "origin"}, "ports": _PORTS, **spec},
        }
