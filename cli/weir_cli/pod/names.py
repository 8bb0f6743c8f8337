"""Every name and path that belongs to a pod, derived from the pod's name: so that removal needs nothing but the name."""

import hashlib
import re
from pathlib import Path

import msgspec

from weir_cli.pod.errors import SetupError

RUNTIME = Path("/run/weir")
NETNS_CONFIG = Path("/etc/netns")
NETNS_MOUNTS = Path("/run/netns")

_VALID = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


class Pod(msgspec.Struct, frozen=True):
    """A pod's name, and what it is called in each place."""

    name: str

    @property
    def netns(self) -> str:
        """The namespace, as `ip netns` knows it."""
        return f"weir-{self.name}"

    @property
    def netns_path(self) -> Path:
        """The namespace's mount point."""
        return NETNS_MOUNTS / self.netns

    @property
    def netns_config(self) -> Path:
        """What `ip netns exec` mounts over files in /etc (ip-netns(8))."""
        return NETNS_CONFIG / self.netns

    @property
    def link(self) -> str:
        """The host's end of the link; a digest, because an interface's name has at most 15 bytes."""
        return f"weir{hashlib.blake2s(self.name.encode(), digest_size=5).hexdigest()}"

    @property
    def table(self) -> str:
        """The host's nftables table, and the comment of rules in tables of others."""
        return f"weir-run-{self.name}"

    @property
    def run(self) -> Path:
        """The sidecar's tmpfs: config, CA key, control socket."""
        return RUNTIME / self.name

    @property
    def trust(self) -> Path:
        """What anybody may read: the CA's certificate, the merged bundle, the Java trust store, resolv.conf."""
        return RUNTIME / f"{self.name}.trust"

    @property
    def lock(self) -> Path:
        """Held by the run for its life; made first, removed last."""
        return RUNTIME / f"{self.name}.lock"


def pod(name: str) -> Pod:
    """The pod called `name`. Raises `SetupError` when the name is not fit for namespaces and files."""
    if not _VALID.fullmatch(name):
        raise SetupError(
            f"--name is {name!r}; allowed are 1 to 40 lower-case letters, digits and '-', not first and not last"
        )
    return Pod(name)


def generated(random: bytes) -> Pod:
    """A pod with a name made from random bytes; five give 40 bits."""
    return Pod(random.hex())
