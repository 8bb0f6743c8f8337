"""What the rules may use: facts about a kernel, found by `netsetup.features` and given to the pure code here."""

import msgspec


class Features(msgspec.Struct, frozen=True):
    """What this kernel has beyond the required. The defaults describe a usual kernel with all of it."""

    dup: bool = True
    """`dup to` (NFT_DUP_IPV4 and NFT_DUP_IPV6): a packet that finds the proxy gone is sent again, not lost."""
    ipv6: bool = True
    """The kernel speaks IPv6 at all; whether an interface does is another matter."""
