"""The CA's files: made once for a pod, in its tmpfs, and found again when the sidecar is restarted."""

import datetime as dt
import os
from contextlib import suppress

from weir_sidecar.certs.authority import Authority
from weir_sidecar.contract.config import ConfigError, Trust

KEY = "ca.key"
CERTIFICATE = "ca.crt"


def load_or_create(directory: int, now: dt.datetime, config: Trust) -> Authority:
    """The pod's CA, from an open directory. Files that do not fit together are replaced by a new CA.

    Not so a CA of a Secret: nobody would trust another in its place. Raises `ConfigError`.
    """
    authority = load(directory)
    if authority is None:
        if config.authority_dir is not None:
            raise ConfigError(
                f"{KEY} and {CERTIFICATE} are missing or do not belong together; the init container copies the CA of the"
                " Secret there when a pod starts: delete this pod, so that it starts anew"
            )
        authority = Authority.create(now)
        store(directory, authority)
    return authority


def load(directory: int) -> Authority | None:
    """The CA that is there; None where there is none, or half of one, written by a process that was killed."""
    try:
        return Authority.load(_read(directory, KEY), _read(directory, CERTIFICATE))
    except (FileNotFoundError, ValueError):
        return None


def store(directory: int, authority: Authority) -> None:
    """Write the CA, in place of any other: never is a key there beside the certificate of another."""
    with suppress(FileNotFoundError):
        os.unlink(KEY, dir_fd=directory)
    # The certificate first: a key without its certificate could never be told from a stranger's.
    _write(directory, CERTIFICATE, authority.certificate_pem(), 0o644)
    _write(directory, KEY, authority.key_pem(), 0o600)


def _read(directory: int, name: str) -> bytes:
    with os.fdopen(os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory), "rb") as file:
        return file.read()


def _write(directory: int, name: str, data: bytes, mode: int) -> None:
    temporary = f".{name}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with os.fdopen(os.open(temporary, flags, mode, dir_fd=directory), "wb") as file:
        file.write(data)
    os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
