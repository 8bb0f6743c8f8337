"""What a pod changes on the host: forwarding sysctls, nftables, /etc/netns. The last pod to go puts sysctls back."""

import shutil
import time
from pathlib import Path

import msgspec

from weir_cli.pod import firewall, ledger, names, resolv, syscalls
from weir_cli.pod.addresses import Link
from weir_cli.pod.names import Pod
from weir_cli.pod.resolv import Resolver
from weir_cli.pod.tools import attempt, call

_SYSCTL = Path("/proc/sys/net")
_FORWARD4 = "ipv4/ip_forward"
_FORWARD6 = "ipv6/conf/all/forwarding"
_SYSTEMD_RESOLV = Path("/run/systemd/resolve/resolv.conf")


class _Changes(msgspec.Struct, frozen=True):
    """What was there before: sysctl → value; and what was not: directories, the mount that `ip netns` makes."""

    sysctls: dict[str, str] = {}
    directories: tuple[str, ...] = ()
    netns_mount: bool = False


def _ledger() -> Path:
    return names.RUNTIME / f"host-{ledger.machine()}.json"


def _part() -> Path:
    """The ledger while it is written; a run that was killed just then leaves it."""
    return _ledger().with_suffix(".part")


def prepare() -> tuple[str, ...]:
    """Turn forwarding on where it is off, and say so. Call inside `ledger.exclusive`; `restore` undoes it.

    The first pod starts the list of changes anew: an old one would be another namespace's that had the same number.
    """
    known = _read() if len(ledger.on_this_machine()) > 1 else _Changes()
    wanted = _wanted_sysctls()
    changes = _Changes(
        {name: _value(name) for name in wanted} | known.sysctls,
        tuple({*known.directories, *_missing_directories()}),
        known.netns_mount or not syscalls.is_mount(names.NETNS_MOUNTS),
    )
    _write(changes)
    for name, value in wanted.items():
        (_SYSCTL / name).write_text(value)
    told = {_FORWARD4: "IPv4", _FORWARD6: "IPv6"}
    return tuple(
        f"{family} forwarding was off on this machine; it is on until the last pod ends"
        for name, family in told.items()
        if name in wanted
    )


def restore() -> None:
    """Put everything back as it was. Call inside `ledger.exclusive` when no pod is left."""
    _part().unlink(missing_ok=True)
    if not _ledger().exists():
        return
    changes = _read()
    # Forwarding first: an interface with accept_ra=1 drops its learned routes when forwarding changes (addrconf.c).
    for name, value in sorted(changes.sysctls.items(), key=lambda item: item[0] not in {_FORWARD4, _FORWARD6}):
        if (_SYSCTL / name).exists():
            (_SYSCTL / name).write_text(value)
    if changes.netns_mount and syscalls.is_mount(names.NETNS_MOUNTS) and not any(names.NETNS_MOUNTS.iterdir()):
        syscalls.unmount(names.NETNS_MOUNTS)
    for directory in sorted(changes.directories, reverse=True):
        path = Path(directory)
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    _ledger().unlink()


def connect(pod: Pod, link: Link) -> Resolver:
    """Let the pod's packets out and its DNS queries answered; returns the resolver the pod is to use."""
    behind = _SYSTEMD_RESOLV.read_text() if _SYSTEMD_RESOLV.exists() else None
    resolv_conf = Path("/etc/resolv.conf")
    resolver = resolv.plan(resolv_conf.read_text() if resolv_conf.exists() else "", behind, link.host4)
    if resolver.stub:
        (_SYSCTL / f"ipv4/conf/{pod.link}/route_localnet").write_text("1")
    dropping = firewall.dropping(call(["nft", "-j", "list", "chains"]))
    call(["nft", "-f", "-"], firewall.render(pod, link, resolver.stub, dropping))
    pod.netns_config.mkdir(mode=0o755, parents=True, exist_ok=True)
    (pod.netns_config / "resolv.conf").write_text(resolver.text)
    return resolver


def disconnect(pod: Pod) -> None:
    """Remove what `connect` made; nothing of it need be there."""
    rules = attempt(["nft", "-j", "-a", "list", "ruleset"])
    deletions = firewall.foreign_rules(rules.stdout, pod) if rules.returncode == 0 else []
    removal = [f"add table inet {pod.table}", f"delete table inet {pod.table}", *deletions]
    call(["nft", "-f", "-"], "\n".join(removal) + "\n")
    shutil.rmtree(pod.netns_config, ignore_errors=True)


def orphaned_netns_configs() -> tuple[Path, ...]:
    """Directories in /etc/netns that are ours by their text and from before this boot: /run is empty then, /etc is not."""
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    found = names.NETNS_CONFIG.glob("weir-*/resolv.conf") if names.NETNS_CONFIG.is_dir() else ()
    return tuple(
        path.parent for path in found if path.stat().st_mtime < booted and path.read_text().startswith(resolv.HEADER)
    )


def _wanted_sysctls() -> dict[str, str]:
    """The sysctls to change, in order.

    The kernel ignores router advertisements on a machine that forwards IPv6, unless accept_ra is 2
    (ip-sysctl.rst): so that comes first, and the machine keeps its own IPv6.
    """
    wanted: dict[str, str] = {}
    if (_SYSCTL / _FORWARD6).exists() and _value(_FORWARD6) == "0":
        accepting = (_SYSCTL / "ipv6/conf").glob("*/accept_ra")
        relative = (str(path.relative_to(_SYSCTL)) for path in accepting if path.parent.name not in {"all", "lo"})
        wanted = {name: "2" for name in relative if _value(name) == "1"}
        wanted[_FORWARD6] = "1"
    if _value(_FORWARD4) == "0":
        wanted[_FORWARD4] = "1"
    return wanted


def _missing_directories() -> list[str]:
    return [str(path) for path in (names.NETNS_CONFIG, names.NETNS_MOUNTS) if not path.exists()]


def _value(name: str) -> str:
    return (_SYSCTL / name).read_text().strip()


def _read() -> _Changes:
    try:
        return msgspec.json.decode(_ledger().read_bytes(), type=_Changes)
    except FileNotFoundError:
        return _Changes()


def _write(changes: _Changes) -> None:
    _part().write_bytes(msgspec.json.encode(changes))
    _part().replace(_ledger())
