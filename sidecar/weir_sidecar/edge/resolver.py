"""The resolver of the pod, for mode Redirect: address translation does not tell a UDP listener who was asked."""

from ipaddress import ip_address

RESOLV_CONF = "/etc/resolv.conf"


def first_nameserver(text: str) -> str | None:
    """The first nameserver of a resolv.conf(5) that can be read, or None."""
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            try:
                return str(ip_address(words[1]))
            except ValueError:
                continue  # the C library passes over what it cannot read, too
    return None
