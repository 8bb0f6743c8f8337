"""The key of the hand-over (`contract.handover`): a file in the proxy's own directory, which applications do not have."""

import os

from weir_sidecar.contract.handover import KEY_BYTES

NAME = "hand-over.key"


def load_or_create(directory: int) -> bytes:
    """The pod's key, from an open directory: made once, by whichever of our containers comes first."""
    try:
        with os.fdopen(os.open(NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return _create(directory)


def _create(directory: int) -> bytes:
    key, temporary = os.urandom(KEY_BYTES), f".{NAME}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=directory), "wb") as file:
        file.write(key)
    os.replace(temporary, NAME, src_dir_fd=directory, dst_dir_fd=directory)
    return key
