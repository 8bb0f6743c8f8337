"""Every capture option once: the configs behind tests/golden/ruleset/NAME.nft."""

from weir_sidecar.contract.config import (
    DNS,
    Capture,
    CaptureMode,
    Exclude,
    FailureMode,
    Heartbeat,
    Identity,
    IDRange,
    Marks,
    OtherUDP,
    PortRange,
    Ports,
    QuicMode,
    Setup,
    SidecarConfig,
    Startup,
)
from weir_sidecar.netfilter.features import Features

EXCLUDE = Exclude(
    ports=(PortRange(22, 22), PortRange(9000, 9099)),
    cidrs=("10.96.0.0/12", "169.254.169.254", "fd00::/8"),
    uids=(IDRange(0, 0), IDRange(1000, 1010)),
    gids=(IDRange(2000, 2000),),
    interfaces=("eth1", "tun*"),
)


def _closed(**capture: object) -> SidecarConfig:
    return SidecarConfig(failure_mode=FailureMode.CLOSED, capture=Capture(**capture))


def _closed_when_started(**capture: object) -> SidecarConfig:
    return SidecarConfig(failure_mode=FailureMode.CLOSED, startup=Startup.OPEN, capture=Capture(**capture))


def _open(**capture: object) -> SidecarConfig:
    return SidecarConfig(capture=Capture(**capture))


ALL = Features()
REDIRECT = CaptureMode.REDIRECT

CASES: dict[str, tuple[SidecarConfig, Features]] = {
    "default": (_open(), ALL),
    "closed": (_closed(), ALL),
    "closed-startup-open": (_closed_when_started(), ALL),
    "redirect": (_open(mode=REDIRECT), ALL),
    "redirect-closed": (_closed(mode=REDIRECT), ALL),
    "redirect-closed-startup-open": (_closed_when_started(mode=REDIRECT), ALL),
    "cni": (SidecarConfig(setup=Setup.CNI), ALL),
    "cni-redirect": (SidecarConfig(setup=Setup.CNI, capture=Capture(mode=REDIRECT)), ALL),
    "accept-first": (_open(connect_first=False), ALL),
    "no-dup": (_open(), Features(dup=False)),
    "no-dup-closed": (_closed(), Features(dup=False)),
    "no-ipv6": (_open(), Features(ipv6=False)),
    "exclude": (_open(exclude=EXCLUDE), ALL),
    "exclude-closed": (_closed(exclude=EXCLUDE), ALL),
    "ports": (_open(ports=(PortRange(443, 443), PortRange(80, 81))), ALL),
    "no-ports": (_open(ports=()), ALL),
    "no-dns": (_open(dns=DNS(capture=False)), ALL),
    "quic-allow": (_open(quic=QuicMode.ALLOW), ALL),
    "udp-deny": (_open(other_udp=OtherUDP.DENY), ALL),
    "udp-ignore": (_open(other_udp=OtherUDP.IGNORE), ALL),
    "udp-ignore-quic-allow": (_open(other_udp=OtherUDP.IGNORE, quic=QuicMode.ALLOW), ALL),
    "redirect-udp-deny": (_open(mode=REDIRECT, other_udp=OtherUDP.DENY), ALL),
    "redirect-closed-udp-ignore": (_closed(mode=REDIRECT, other_udp=OtherUDP.IGNORE), ALL),
    "before-nat": (_open(before_nat=True), ALL),
    "other-protocols": (_open(other_protocols=False), ALL),
    "numbers": (
        SidecarConfig(
            identity=Identity(uid=1337, gid=1337),
            ports=Ports(tcp=15001, udp=15006, heartbeat=15009),
            heartbeat=Heartbeat(interval=0.5, timeout=2.5),
            marks=Marks(mark=0x200, mask=0x600, table=133),
        ),
        ALL,
    ),
}
