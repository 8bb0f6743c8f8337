"""What the command sees of the file system: its own files, with the trust in place and the pod's secrets out of sight."""

import os
from pathlib import Path

import msgspec

from weir_cli.pod import names, syscalls
from weir_cli.pod.names import Pod
from weir_operator.injection.variables import TrustFiles

BUNDLE = "ca-certificates.crt"
AUTHORITY = "ca.crt"
JAVA = "truststore.jks"
RESOLV_CONF = "resolv.conf"
ENVIRONMENT = "env"

# The stores that the distributions' own Java reads: Debian, Fedora and RHEL.
JAVA_STORES = ("/etc/ssl/certs/java/cacerts", "/etc/pki/ca-trust/extracted/java/cacerts")

# The C library asks these over Unix sockets, which no packet filter sees: resolved by nss-resolve, nscd by itself.
_RESOLVED = Path("/run/systemd/resolve")
_OTHER_RESOLVERS = (Path("/run/nscd"), Path("/var/run/nscd"))

_TMPFS_FLAGS = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC


class View(msgspec.Struct, frozen=True):
    """What to change in the command's mount namespace."""

    pod: Pod
    bundles: tuple[str, ...]
    """The distribution's bundles, to be covered by the merged one."""
    java: bool = True
    """Whether to cover the distribution's Java trust stores too."""
    hidden: tuple[str, ...] = ()
    """Directories that look empty."""
    read_only: tuple[str, ...] = ()
    """Files that can be read and not changed."""


def trust_files(pod: Pod) -> TrustFiles:
    """The paths of the trust files: the same for the command, the host, and `ip netns exec`."""
    return TrustFiles(str(pod.trust / BUNDLE), str(pod.trust / AUTHORITY), str(pod.trust / JAVA))


def enter(view: View) -> None:
    """Move this process to a mount namespace of its own that looks like `view`. Raises `OSError`."""
    os.unshare(os.CLONE_NEWNS)
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    trust = view.pod.trust
    for path in view.bundles:
        syscalls.bind(trust / BUNDLE, path)
    for path in filter(os.path.isfile, JAVA_STORES if view.java else ()):
        syscalls.bind(trust / JAVA, path)
    _use_resolver(trust / RESOLV_CONF)
    for path in view.read_only:
        syscalls.bind(path, path)
    for path in view.hidden:
        _cover(Path(path), {})
    _hide_runtime(trust)


def _use_resolver(resolv_conf: Path) -> None:
    """Put the pod's resolv.conf in place, also where systemd-resolved keeps the file that the usual name links to."""
    text = resolv_conf.read_bytes()
    if _RESOLVED.is_dir():
        _cover(_RESOLVED, {"stub-resolv.conf": text, "resolv.conf": text})
    for directory in _OTHER_RESOLVERS:
        if directory.is_dir():
            _cover(directory, {})
    target = Path("/etc/resolv.conf").resolve()
    if target.is_file():
        syscalls.bind(resolv_conf, target)


def _hide_runtime(trust: Path) -> None:
    """Cover /run/weir, keys and control socket with it, leaving nothing but the pod's public trust files."""
    descriptor = os.open(trust, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    _tmpfs(names.RUNTIME)
    trust.mkdir(mode=0o755)
    syscalls.bind(f"/proc/self/fd/{descriptor}", trust)
    os.close(descriptor)
    _make_read_only(names.RUNTIME)


def _cover(directory: Path, files: dict[str, bytes]) -> None:
    _tmpfs(directory)
    for name, data in files.items():
        (directory / name).write_bytes(data)
        (directory / name).chmod(0o644)
    _make_read_only(directory)


def _tmpfs(directory: Path) -> None:
    syscalls.mount("tmpfs", directory, "tmpfs", _TMPFS_FLAGS, "mode=0755,size=1m")


def _make_read_only(directory: Path) -> None:
    syscalls.mount("none", directory, None, syscalls.MS_REMOUNT | syscalls.MS_RDONLY | _TMPFS_FLAGS)
