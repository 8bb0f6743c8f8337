"""The resolver of a pod, as its resolv.conf(5) tells it."""

from ipaddress import IPv4Address, IPv6Address, ip_address

RESOLV_CONF = "/etc/resolv.conf"


def nameservers(text: str) -> list[IPv4Address | IPv6Address]:
    """The nameservers of a resolv.conf, in order; what the C library passes over, this does too.

    Link-local ones are left out: they belong to a link, and neither a pod nor a proxy need be on it.
    """
    found: list[IPv4Address | IPv6Address] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            try:
                server = ip_address(words[1])
            except ValueError:
                continue
            if not (server.version == 6 and server.is_link_local):
                found.append(server)
    return found
