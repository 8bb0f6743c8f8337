"""The last good config on disk: read when the sidecar starts, replaced as a whole when the control plane brings another.

The directory is a descriptor, opened before privileges are dropped. It is a tmpfs: nothing is synced.
"""

import os

from weir_sidecar.contract import config as contract
from weir_sidecar.contract.config import SidecarConfig

NAME = "config.json"


def read(directory: int) -> SidecarConfig:
    """The config. Raises `OSError` and `ConfigError`."""
    with os.fdopen(os.open(NAME, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory), "rb") as file:
        return contract.decode(file.read())


def replace(directory: int, config: SidecarConfig) -> None:
    """Write another one in one step. Raises `OSError`; the old one is whole then."""
    temporary = f".{NAME}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with os.fdopen(os.open(temporary, flags, 0o644, dir_fd=directory), "wb") as file:
        file.write(contract.encode(config))
    os.replace(temporary, NAME, src_dir_fd=directory, dst_dir_fd=directory)
