"""Where the API server is and how to be known to it: from a kubeconfig, or from what every pod is given.

https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/ and
https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/
"""

import binascii
from base64 import b64decode
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import yaml
from msgspec import field

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class KubeconfigError(ValueError):
    """The API server cannot be found, or not be spoken to; the text names the file, what was found and what to do."""


class Access(msgspec.Struct, frozen=True):
    """An API server, and who we are to it. Keys and tokens are not printed."""

    server: str
    """Its URL, without a path's final slash."""
    authorities: bytes | None = None
    """PEM of the CAs that may have signed its certificate; None: those of the system."""
    server_name: str | None = None
    """The name in its certificate, where it is not that of the URL."""
    certificate: bytes | None = None
    key: bytes | None = None
    token: str | None = None
    token_file: Path | None = None
    """Read again while in use: the kubelet changes it."""

    def __repr__(self) -> str:
        return f"Access({self.server})"


class _Part(msgspec.Struct, frozen=True, rename="kebab"):
    """A part of a kubeconfig; what is not looked at may be there."""


class _Cluster(_Part, frozen=True):
    server: str = ""
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    insecure_skip_tls_verify: bool = False
    tls_server_name: str | None = None
    proxy_url: str | None = None


class _User(_Part, frozen=True):
    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    token: str | None = None
    token_file: str | None = field(default=None, name="tokenFile")
    username: str | None = None
    exec: Any = None
    auth_provider: Any = None


class _Context(_Part, frozen=True):
    cluster: str = ""
    user: str = ""


class _NamedCluster(_Part, frozen=True):
    name: str
    cluster: _Cluster


class _NamedUser(_Part, frozen=True):
    name: str
    user: _User | None = None


class _NamedContext(_Part, frozen=True):
    name: str
    context: _Context


class _Config(_Part, frozen=True):
    current_context: str = ""
    clusters: list[_NamedCluster] | None = None
    users: list[_NamedUser] | None = None
    contexts: list[_NamedContext] | None = None


def find_access(environ: Mapping[str, str], kubeconfig: str | None = None) -> Access:
    """By this kubeconfig; without one as the pod that this is, else by KUBECONFIG or ~/.kube/config.

    Raises `KubeconfigError`.
    """
    if kubeconfig is not None:
        return read_kubeconfig(Path(kubeconfig))
    if "KUBERNETES_SERVICE_HOST" in environ:
        return in_cluster(environ, SERVICE_ACCOUNT)
    named = environ.get("KUBECONFIG") or str(Path(environ.get("HOME", "/")) / ".kube/config")
    if ":" in named:
        raise KubeconfigError(f"KUBECONFIG: found several files, {named}; allowed: one")
    return read_kubeconfig(Path(named))


def in_cluster(environ: Mapping[str, str], directory: Path) -> Access:
    """As a pod's service account, whose token and CA lie in `directory`. Raises `KubeconfigError`."""
    host, port = environ["KUBERNETES_SERVICE_HOST"], environ.get("KUBERNETES_SERVICE_PORT", "443")
    token = directory / "token"
    _read(token)
    return Access(
        f"https://{f'[{host}]' if ':' in host else host}:{port}",
        authorities=_read(directory / "ca.crt"),
        token_file=token,
    )


def read_kubeconfig(path: Path) -> Access:
    """By the current context of a kubeconfig. Raises `KubeconfigError`."""
    try:
        config = msgspec.convert(yaml.safe_load(_read(path)), _Config)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise KubeconfigError(f"{path}: not a kubeconfig: {error}") from error
    name = config.current_context
    context = next((one.context for one in config.contexts or () if one.name == name), None)
    if context is None:
        raise KubeconfigError(f"{path}: current-context: found {name!r}, which is no context of this file")
    cluster = next((one.cluster for one in config.clusters or () if one.name == context.cluster), None)
    if cluster is None:
        raise KubeconfigError(f"{path}: found no cluster {context.cluster!r}, which context {name!r} names")
    user = next((one.user for one in config.users or () if one.name == context.user), None) or _User()
    _refuse(path, cluster, user)
    near = path.parent
    certificate = _either(near, user.client_certificate_data, user.client_certificate)
    key = _either(near, user.client_key_data, user.client_key)
    if (certificate is None) != (key is None):
        raise KubeconfigError(f"{path}: users: found one of client-certificate and client-key; allowed: both, or none")
    return Access(
        server=cluster.server.rstrip("/"),
        authorities=_either(near, cluster.certificate_authority_data, cluster.certificate_authority),
        server_name=cluster.tls_server_name,
        certificate=certificate,
        key=key,
        token=user.token if user.token_file is None else None,
        token_file=None if user.token_file is None else near / user.token_file,
    )


def _refuse(path: Path, cluster: _Cluster, user: _User) -> None:
    """What would be unsafe, or is not done here."""
    url = urlsplit(cluster.server)
    if url.scheme != "https" and not (url.scheme == "http" and _is_loopback(url.hostname or "")):
        raise KubeconfigError(
            f"{path}: server: found {cluster.server!r}; allowed: an https URL, or http to this machine"
        )
    if cluster.insecure_skip_tls_verify:
        raise KubeconfigError(f"{path}: insecure-skip-tls-verify is not allowed; give certificate-authority instead")
    if cluster.proxy_url:
        raise KubeconfigError(f"{path}: proxy-url is not supported; allowed: an API server that is reached directly")
    if user.exec or user.auth_provider or user.username:
        found = "exec" if user.exec else "auth-provider" if user.auth_provider else "username"
        raise KubeconfigError(
            f"{path}: users: found {found}, which is not supported; allowed: a client certificate, token or tokenFile,"
            " such as `kubectl create token` makes"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _either(near: Path, data: str | None, file: str | None) -> bytes | None:
    """What is given in place, which wins, or in a file."""
    if data:
        try:
            return b64decode(data, validate=True)
        except binascii.Error as error:
            raise KubeconfigError(f"{near}: found data in a kubeconfig that is not base64: {error}") from error
    return _read(near / file) if file else None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KubeconfigError(f"{path}: cannot be read: {error.strerror}") from error
