"""Entering a pod's namespaces, for forked children alone: there is no way back. namespaces(7), ioctl_ns(2)."""

import ctypes
import fcntl
import os

from weir_sidecar.netsetup.errors import CaptureError

_NS_GET_USERNS = 0xB701
_NS_GET_NSTYPE = 0xB703


def open_netns(path: str) -> int:
    """A descriptor of a network namespace. Raises `FileNotFoundError` when it is gone."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        is_network = fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == os.CLONE_NEWNET
    except OSError:
        is_network = False
    if not is_network:
        # What is left of a namespace that was unmounted is an empty file.
        os.close(descriptor)
        raise FileNotFoundError(f"{path} is no network namespace any more")
    return descriptor


def enter_network(netns: int) -> None:
    """Be in it from now on. The agent's capabilities hold there, whoever owns it."""
    if os.stat("/proc/self/ns/net").st_ino == os.fstat(netns).st_ino:  # noqa: PTH116
        raise CaptureError("setns", "found the node's own network namespace", "a pod with hostNetwork is not captured")
    os.setns(netns, os.CLONE_NEWNET)


def current_network() -> int:
    """A descriptor of the network namespace that this process is in; it belongs to no mount."""
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def enter_owner(netns: int) -> None:
    """Be in the user namespace that the network namespace belongs to: with `hostUsers: false` it is the pod's own.

    From then on UIDs are those that the pod's containers and its rules speak of.
    """
    if is_pods_own(netns):
        owner = fcntl.ioctl(netns, _NS_GET_USERNS)
        os.setns(owner, os.CLONE_NEWUSER)
        os.close(owner)


def is_pods_own(netns: int) -> bool:
    """Whether a network namespace belongs to another user namespace than this process's."""
    owner = fcntl.ioctl(netns, _NS_GET_USERNS)
    try:
        return os.fstat(owner).st_ino != os.stat("/proc/self/ns/user").st_ino  # noqa: PTH116
    finally:
        os.close(owner)


def create_as(uid: int) -> None:
    """Files and sockets made from now on are `uid`'s: rules compare a socket's maker. Capabilities for the network stay.

    setfsuid(2) cannot say that it failed; asking a second time says who it is.
    """
    libc = ctypes.CDLL(None)
    libc.setfsuid(uid)
    if libc.setfsuid(uid) != uid:
        raise CaptureError("setfsuid", f"uid {uid} was not taken on", "the agent needs the capability SETUID")
