"""Secrets that rules add to requests: read from files that only the sidecar may read, and told to nobody.

A Secret of Kubernetes is mounted, NAME/KEY, and beside each key what its owner says of it: KEY.hosts and KEY.ca. The kubelet
replaces all of them at once, by another symbolic link to their directory, so a file that changed is another file; a look at
it costs a system call.
"""

import os
from collections.abc import Callable
from hashlib import sha256

import msgspec
from msgspec.structs import replace

from weir_sidecar.certs.bundle import BundleError, certificates
from weir_sidecar.contract.http import CA_SUFFIX, HOSTS_SUFFIX, Credential
from weir_sidecar.contract.request import RequestError
from weir_sidecar.core.credential import MAX_SECRET, Limits, Secret, hosts_of, may_be_sent, value_of, with_secret
from weir_sidecar.core.http_policy import RequestFacts, RequestVerdict, denied

_MAX_BESIDE = 1 << 20
"""Bytes of what is said beside a secret: no Secret is larger."""
_MAX_HELD = 256

type _Version = tuple[int, int, int]


class _Held(msgspec.Struct, frozen=True):
    version: _Version
    secret: Secret | RequestError


_BAD_GATEWAY = 502
_FORBIDDEN = 403
_SAID: dict[RequestError, tuple[int, str]] = {
    RequestError.CREDENTIAL_MISSING: (_BAD_GATEWAY, "The credential for this request is not there."),
    RequestError.CREDENTIAL_UNREADABLE: (_BAD_GATEWAY, "The credential for this request cannot be read."),
    RequestError.CREDENTIAL_HOST_NOT_NAMED: (
        _FORBIDDEN,
        "Refused: the Secret with the credential for this request does not name this host.",
    ),
    RequestError.CREDENTIAL_ROOT_NOT_NAMED: (
        _FORBIDDEN,
        "Refused: the host was verified with a root that the Secret with the credential does not name.",
    ),
}
"""By the error: the status and the words of the answer."""


class Credentials:
    """The secrets by file, each read again when it is another one. `system`: the system's roots, as PEM text."""

    __slots__ = ("_held", "_system", "_system_pem")

    def __init__(self, system: bytes = b"") -> None:
        self._held: dict[str, _Held] = {}
        self._system_pem = system
        self._system: frozenset[bytes] | None = None

    def added(
        self, facts: RequestFacts, verdict: RequestVerdict, credential: Credential, anchor: Callable[[], bytes | None]
    ) -> RequestVerdict:
        """The verdict with the credential among its edits, or a refusal. Ask it only for a server that proved who it is.

        `anchor` tells the root by which that was verified, as the SHA-256 of its certificate.
        """
        secret = self.secret(credential)
        if isinstance(secret, Secret) and secret.limits is not None:
            assert facts.host is not None
            secret = may_be_sent(secret.limits, facts.host, anchor(), self._system_roots()) or secret
        if isinstance(secret, RequestError):
            status, text = _SAID[secret]
            return denied(text, secret, rule=verdict.rule, status=status)
        edits = with_secret(facts.fields, verdict.request_edits, credential, secret.value)
        return replace(verdict, request_edits=edits)

    def secret(self, credential: Credential) -> Secret | RequestError:
        """The secret as it is now, or why there is none."""
        path = credential.file
        try:
            version = _version(os.stat(path))  # noqa: PTH116 - pathlib stays out of the sidecar
        except OSError as error:
            self._held.pop(path, None)
            return _why(error)
        held = self._held.get(path)
        if held is None or held.version != version:
            if len(self._held) >= _MAX_HELD:
                self._held.clear()
            held = self._held[path] = _Held(version, _read(credential))
        return held.secret

    def _system_roots(self) -> frozenset[bytes]:
        if self._system is None:
            found = certificates(self._system_pem) if self._system_pem else ()
            self._system = frozenset(sha256(der).digest() for der in found)
        return self._system


def _read(credential: Credential) -> Secret | RequestError:
    place, _, name = credential.file.rpartition("/")
    try:
        # A directory that is swapped meanwhile stays the one it was: secret and limits are of one time.
        directory = os.open(place or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        return _why(error)
    try:
        value = value_of(_content(directory, name, MAX_SECRET + 2))
        limits = _limits(directory, name) if credential.limited else None
    except OSError as error:
        return _why(error)
    except (BundleError, ValueError):
        return RequestError.CREDENTIAL_UNREADABLE
    finally:
        os.close(directory)
    return RequestError.CREDENTIAL_UNREADABLE if value is None else Secret(value, limits)


def _limits(directory: int, name: str) -> Limits:
    """What is said beside a secret; where nothing is, no host is named. Raises OSError, ValueError."""
    hosts = hosts_of(_beside(directory, name + HOSTS_SUFFIX))
    if hosts is None:
        raise ValueError(f"{name}{HOSTS_SUFFIX} has what is no host pattern")
    roots = _beside(directory, name + CA_SUFFIX)
    return Limits(hosts, frozenset(sha256(der).digest() for der in certificates(roots)) if roots else frozenset())


def _beside(directory: int, name: str) -> bytes:
    try:
        return _content(directory, name, _MAX_BESIDE)
    except FileNotFoundError:
        return b""


def _content(directory: int, name: str, most: int) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    with open(fd, "rb") as file:  # noqa: PTH123 - as above
        return file.read(most)


def _version(found: os.stat_result) -> _Version:
    return found.st_ino, found.st_mtime_ns, found.st_size


def _why(error: OSError) -> RequestError:
    missing = isinstance(error, FileNotFoundError | NotADirectoryError)
    return RequestError.CREDENTIAL_MISSING if missing else RequestError.CREDENTIAL_UNREADABLE
