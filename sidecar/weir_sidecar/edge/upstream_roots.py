"""Whom to trust of upstreams: the system's roots, those in the config, and files that may change while a pod runs.

The files are mounted (a ConfigMap's key each), and readable by everybody. The kubelet replaces them by another symbolic
link to their directory, so a file that changed is another file; a look at it costs a system call.
"""

import os
from collections.abc import Callable

from OpenSSL import crypto

from weir_sidecar.certs.bundle import BundleError, certificates
from weir_sidecar.contract.config import Upstream
from weir_sidecar.edge.tls_upstream import UpstreamTLS

LOOK_SECONDS = 30.0
"""How often the files are looked at."""
_MAX_BYTES = 4 << 20

type _Facts = tuple[int, int, int, int] | None
type _Wanted = tuple[tuple[str, ...], bool, str, tuple[bytes, ...]]


class UpstreamRoots:
    """Makes an `UpstreamTLS` when what it is made of has changed. `warn` is told once of a file that cannot be used."""

    def __init__(self, system: bytes, warn: Callable[[str], None]) -> None:
        self._system = system
        self._warn = warn
        self._seen: dict[str, _Facts] = {}
        self._problems: dict[str, str] = {}
        self._made: _Wanted | None = None

    def build(self, upstream: Upstream) -> UpstreamTLS | None:
        """One for this config; None where the last one will do.

        Raises `BundleError` or `crypto.Error` for roots in the config that are none. A file that is missing, or holds no
        certificates, holds nothing: who could be verified by it alone is not.
        """
        self._seen = {path: _facts(path) for path in upstream.roots_files}
        files = tuple(data for data in map(self._read, upstream.roots_files) if data)
        wanted = (upstream.roots_pem, upstream.system_roots, upstream.min_tls_version, files)
        if wanted == self._made:
            return None
        extra = (*(pem.encode() for pem in upstream.roots_pem), *files)
        system = (self._system,) if upstream.system_roots and self._system else ()
        made = UpstreamTLS((*extra, *system), upstream.min_tls_version)
        self._made = wanted
        return made

    def changed(self) -> bool:
        """Whether a file is another one than when `build` last looked."""
        return any(_facts(path) != facts for path, facts in self._seen.items())

    def _read(self, path: str) -> bytes:
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - pathlib stays out of the sidecar
                data = file.read(_MAX_BYTES)
            for der in certificates(data):
                crypto.load_certificate(crypto.FILETYPE_ASN1, der)
        except FileNotFoundError:
            problem = "there is no such file"
        except (OSError, BundleError) as error:
            problem = str(error)
        except crypto.Error:
            problem = "one of its certificates cannot be read"
        else:
            self._problems.pop(path, None)
            return data
        if self._problems.get(path) != problem:
            self._problems[path] = problem
            self._warn(f"the roots in {path} count for nothing: {problem}")
        return b""


def _facts(path: str) -> _Facts:
    try:
        found = os.stat(path)  # noqa: PTH116 - as above
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
