"""What the API server says of one pod, and of the agent's own DaemonSet. The agent may get these, and nothing else."""

import http.client
import os
import ssl
import time
from typing import Any

import msgspec

from weir_sidecar.contract import config as contract
from weir_sidecar.contract.config import ConfigError, Setup, SidecarConfig
from weir_sidecar.node import injected
from weir_sidecar.node.cni import CNIError, Code, Sandbox

CAPTURED_LABEL = "weir.dev/captured"
CONFIG_ANNOTATION = "weir.dev/config"
_STATIC_UID = "kubernetes.io/config.hash"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_SECONDS = 10
_KEEP_SECONDS = 30
"""A connection that was idle for longer is not used again: nobody would tell us that its other end is gone."""
_MAX_BYTES = 4 << 20


class _Metadata(msgspec.Struct, frozen=True):
    uid: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    deleted: str | None = msgspec.field(default=None, name="deletionTimestamp")


class _Object(msgspec.Struct, frozen=True):
    metadata: _Metadata


class _Pod(msgspec.Struct, frozen=True):
    metadata: _Metadata
    spec: dict[str, Any]


class PodReader:
    """Asks the API server, with the agent's own service account. Each process needs one of its own: it keeps a connection."""

    def __init__(self, host: str, port: int, account: str) -> None:
        self._host = host
        self._port = port
        self._account = account
        self._connection: http.client.HTTPSConnection | None = None
        self._used = 0.0

    @classmethod
    def in_cluster(cls, account: str) -> "PodReader":
        """As Kubernetes tells every container where it is. Raises KeyError outside a cluster."""
        return cls(os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"]), account)

    def read(self, sandbox: Sandbox) -> bytes:
        """The pod as JSON. Raises `CNIError`: the pod waits while the API server cannot be asked."""
        path = f"/api/v1/namespaces/{sandbox.namespace}/pods/{sandbox.name}"
        try:
            status, body = self._get(path)
        except (OSError, http.client.HTTPException) as error:
            raise CNIError(
                Code.TRY_AGAIN_LATER,
                f"the API server at {self._host}:{self._port} does not answer ({error}), so nobody can say whether pod"
                f" {sandbox.namespace}/{sandbox.name} is to be captured",
            ) from error
        if status != http.client.OK:
            raise CNIError(
                Code.TRY_AGAIN_LATER,
                f"the API server answered {status} when asked for pod {sandbox.namespace}/{sandbox.name}"
                f"{'; the agent needs the right to get pods' if status in {401, 403} else ''}",
            )
        return body

    def is_gone(self, path: str) -> bool | None:
        """Whether an object is deleted, or we may no longer ask: its rights go with it. None: the server does not say."""
        try:
            status, body = self._get(path)
        except (OSError, http.client.HTTPException):
            return None
        if status != http.client.OK:
            return True if status in {401, 403, 404} else None
        return msgspec.json.decode(body, type=_Object).metadata.deleted is not None

    def _get(self, path: str) -> tuple[int, bytes]:
        kept, self._connection = self._connection, None
        if kept is not None and time.monotonic() - self._used < _KEEP_SECONDS:
            try:
                return self._ask(kept, path)
            except TimeoutError:
                raise
            except (OSError, http.client.HTTPException):
                pass  # the server may end an idle connection at any time; to ask again changes nothing
        elif kept is not None:
            kept.close()
        return self._ask(self._connect(), path)

    def _connect(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=f"{self._account}/ca.crt")
        # Clusters have CAs without a key usage, as some tools make them; Python from 3.13 on would refuse those.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return http.client.HTTPSConnection(self._host, self._port, timeout=_SECONDS, context=context)

    def _ask(self, connection: http.client.HTTPSConnection, path: str) -> tuple[int, bytes]:
        """Over a connection, which is kept if all went well."""
        with open(f"{self._account}/token", encoding="ascii") as file:  # noqa: PTH123 - it changes while we run
            token = file.read().strip()
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}", "Accept": "application/json"})
            answer = connection.getresponse()
            body = answer.read(_MAX_BYTES)
        except BaseException:
            connection.close()
            raise
        self._connection, self._used = connection, time.monotonic()
        return answer.status, body


def config_to_apply(body: bytes, sandbox: Sandbox, image: str) -> SidecarConfig | None:
    """The config of a pod that the agent is to capture; None for every other pod. Raises `CNIError`.

    `image` is the installation's sidecar.
    """
    name = f"pod {sandbox.namespace}/{sandbox.name}"
    try:
        pod = msgspec.json.decode(body, type=_Pod)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise CNIError(Code.TRY_AGAIN_LATER, f"the API server's answer for {name} cannot be read: {error}") from error
    annotations = pod.metadata.annotations or {}
    if sandbox.uid and sandbox.uid not in {pod.metadata.uid, annotations.get(_STATIC_UID)}:
        raise CNIError(
            Code.TRY_AGAIN_LATER,
            f"{name}: found uid {pod.metadata.uid} instead of {sandbox.uid}: it is another pod by now",
        )
    text = annotations.get(CONFIG_ANNOTATION)
    if (pod.metadata.labels or {}).get(CAPTURED_LABEL) != "true" or text is None:
        return None
    try:
        config = contract.decode(text)
    except ConfigError as error:
        raise CNIError(
            Code.INVALID_CONFIGURATION,
            f"{name}: annotation {CONFIG_ANNOTATION}: {error}; only Weir writes it: make the pod anew, and see that agent"
            " and control plane are of one version",
        ) from error
    if config.setup is not Setup.CNI:
        return None
    wrong = tuple(injected.problems(pod.spec, config.identity, image))
    if wrong:
        raise CNIError(
            Code.INVALID_CONFIGURATION,
            f"{name} claims to be captured, and is not as Weir makes pods: {'; '.join(wrong)}; take the label"
            f" {CAPTURED_LABEL} and the annotation {CONFIG_ANNOTATION} off it, and have it made anew",
        )
    return config
