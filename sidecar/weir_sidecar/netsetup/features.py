"""What this kernel and nft can do, found by asking them. Changes nothing."""

import os

from weir_sidecar.netfilter.features import Features
from weir_sidecar.netsetup.errors import CaptureError
from weir_sidecar.netsetup.nftables import Nft

_DUP = """table {family} weir-probe {{
\tchain probe {{
\t\ttype filter hook prerouting priority 0; policy accept;
\t\tdup to {family} daddr
\t}}
}}
"""


def detect() -> Features:
    """Ask the kernel (by loading nothing but to try, so that it loads the modules it has). Raises `CaptureError`.

    Needs NET_ADMIN in the current network namespace.
    """
    with Nft(dry_run=True) as nft:
        # A kernel that cannot do this cannot do anything here: its error is the one to show, not a missing feature.
        nft.run("add table inet weir-probe\n", _ADVICE)
        ipv6 = os.path.exists("/proc/sys/net/ipv6")  # noqa: PTH110  pathlib is slow to import, for one question
        families = ("ip", "ip6") if ipv6 else ("ip",)
        return Features(dup=all(_loads(nft, family) for family in families), ipv6=ipv6)


_ADVICE = "run as root (or with NET_ADMIN) on a kernel with nf_tables"


def _loads(nft: Nft, family: str) -> bool:
    try:
        nft.run(_DUP.format(family=family))
    except CaptureError:
        return False
    return True
