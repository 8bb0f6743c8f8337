"""Whether capture is in place, asked without any capability. The rules of CNI mode answer the proxy's user and nobody else."""

import socket

from weir_sidecar.contract.config import SidecarConfig


def has_rules(config: SidecarConfig) -> bool:
    """Send a datagram to loopback that the rules drop, which its sender is told (EPERM); without rules it is sent.

    To be asked as the config's user. The port is the admin's, which is TCP: nobody is there to read the datagram.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.sendto(b"weir?", ("127.0.0.1", config.ports.admin))
        except PermissionError:
            return True
        except OSError:
            return False  # loopback is down, which setting up capture would have changed
    return False
