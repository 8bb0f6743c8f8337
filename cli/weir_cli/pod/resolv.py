"""Which nameservers the pod gets: the host's, when a pod can reach them; else what stands behind the host's stub.

A resolver on the host's loopback cannot be reached from another namespace. systemd-resolved says what it asks itself
(/run/systemd/resolve/resolv.conf) and refuses queries that do not come in on `lo`; any other stub (dnsmasq, unbound,
NetworkManager) is reached through the pod's gateway address, which the host translates to the stub.
"""

from ipaddress import IPv4Address, IPv6Address

import msgspec

from weir_sidecar.edge.resolver import nameservers

HEADER = "# Made by weir run; gone when it ends."
# systemd-resolved(8): the stub and the proxy-only stub.
_SYSTEMD_STUBS = (IPv4Address("127.0.0.53"), IPv4Address("127.0.0.54"))
# resolv.conf(5): without a nameserver line the resolver asks the local machine.
_DEFAULT_NAMESERVER = IPv4Address("127.0.0.1")

type Address = IPv4Address | IPv6Address


class Resolver(msgspec.Struct, frozen=True):
    """The pod's resolv.conf, and the host's loopback stub that port 53 of the gateway must lead to (None: no need)."""

    text: str
    stub: IPv4Address | None = None


def plan(host: str, behind_systemd: str | None, gateway: IPv4Address) -> Resolver:
    """The pod's resolver from the text of the host's resolv.conf and of systemd-resolved's own (None: there is none)."""
    servers = nameservers(host) or [_DEFAULT_NAMESERVER]
    behind = [server for server in nameservers(behind_systemd or "") if not _local(server)]
    chosen: list[str] = []
    stub: IPv4Address | None = None
    for server in servers:
        if not _local(server):
            chosen.append(str(server))
        elif server in _SYSTEMD_STUBS and behind:
            chosen.extend(map(str, behind))
        else:
            # A stub on ::1 has no translation (IPv6 has no route_localnet); such stubs listen on 127.0.0.1 too.
            stub = stub or (server if isinstance(server, IPv4Address) else _DEFAULT_NAMESERVER)
            chosen.append(str(gateway))
    lines = [HEADER, *(f"nameserver {server}" for server in dict.fromkeys(chosen)), *_other_lines(host)]
    return Resolver("\n".join(lines) + "\n", stub)


def _local(server: Address) -> bool:
    """These addresses mean the machine itself, and would mean the pod in the pod's namespace."""
    return server.is_loopback or server.is_unspecified


def _other_lines(text: str) -> list[str]:
    return [
        line for line in text.splitlines() if line.split()[:1] and line.split()[0] in {"search", "domain", "options"}
    ]
