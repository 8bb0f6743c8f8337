"""Container images without a registry: real ones of Debian, and the certificate stores of others as their packages lay them.

A container is started from one by runc as a runtime would: an overlay over the image, a read-only root, mounts in
containerd's order with paths resolved inside the root.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).parents[2] / "build" / "trust-images"
MIRROR = "http://deb.debian.org/debian"
_PACKAGES = "base-files,ca-certificates,curl,openssl,wget,python3,perl-base,busybox-static,dash,coreutils,sed,grep,findutils,debianutils"
USER = 1000


def debian(suite: str) -> Path:
    """The file system of a Debian release with some TLS clients; made once, in build/. Raises `CalledProcessError`."""
    root = CACHE / suite
    if root.exists():
        return root
    CACHE.mkdir(parents=True, exist_ok=True)
    part = CACHE / f".{suite}.{os.getpid()}"
    try:
        command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=extract", f"--include={_PACKAGES}"]
        subprocess.run([*command, suite, str(part), MIRROR], check=True, capture_output=True, text=True)
        # Packages are unpacked and not configured: what their scripts would do to the store is done here.
        (part / "bin" / "sh").unlink(missing_ok=True)
        (part / "bin" / "sh").symlink_to("dash")
        names = (
            path.relative_to(part / "usr/share/ca-certificates") for path in part.glob("usr/share/ca-certificates/*/*")
        )
        (part / "etc" / "ca-certificates.conf").write_text("".join(f"{name}\n" for name in sorted(names)))
        subprocess.run(["chroot", str(part), "/usr/sbin/update-ca-certificates"], check=True, capture_output=True)
        part.rename(root)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return root


@dataclass(frozen=True)
class Layout:
    """A distribution's certificate store: files, and links to them as its packages make them."""

    bundles: tuple[str, ...] = ()
    """The files that our own are to be seen in place of."""
    others: tuple[str, ...] = ()
    """Files that are to be seen as they are."""
    links: Mapping[str, str] | None = None
    opened: tuple[str, ...] = ()
    """What its programs open: the bundle must be found there."""
    java: tuple[str, ...] = ()
    anchors: tuple[str, ...] = ()
    """Where p11-kit looks for CAs to add, in a directory that is there."""


_PKI = "/etc/pki/ca-trust/extracted"
LAYOUTS = {
    # ca-certificates of Fedora, RHEL 8 to 10 and UBI
    "rhel": Layout(
        bundles=(f"{_PKI}/pem/tls-ca-bundle.pem", f"{_PKI}/java/cacerts"),
        others=(f"{_PKI}/openssl/ca-bundle.trust.crt",),
        links={
            "/etc/ssl/certs": "../pki/tls/certs",
            "/etc/ssl/cert.pem": f"{_PKI}/pem/tls-ca-bundle.pem",
            "/etc/pki/tls/cert.pem": f"{_PKI}/pem/tls-ca-bundle.pem",
            "/etc/pki/tls/certs/ca-bundle.crt": f"{_PKI}/pem/tls-ca-bundle.pem",
            "/etc/pki/tls/certs/ca-bundle.trust.crt": f"{_PKI}/openssl/ca-bundle.trust.crt",
            "/etc/pki/java/cacerts": f"{_PKI}/java/cacerts",
        },
        opened=(
            f"{_PKI}/pem/tls-ca-bundle.pem",
            "/etc/pki/tls/cert.pem",
            "/etc/pki/tls/certs/ca-bundle.crt",
            "/etc/ssl/certs/ca-bundle.crt",
            "/etc/ssl/cert.pem",
        ),
        java=("/etc/pki/java/cacerts", f"{_PKI}/java/cacerts"),
        anchors=("/etc/pki/ca-trust/source/anchors/weir.pem",),
    ),
    # ca-certificates of SUSE: the directory of hashed names is made by p11-kit
    "suse": Layout(
        bundles=("/var/lib/ca-certificates/ca-bundle.pem", "/var/lib/ca-certificates/java-cacerts"),
        others=(
            "/var/lib/ca-certificates/pem/ISRG_Root_X1.pem",
            "/var/lib/ca-certificates/openssl/ISRG_Root_X1.pem",
        ),
        links={
            "/etc/ssl/certs": "../../var/lib/ca-certificates/pem",
            "/etc/ssl/ca-bundle.pem": "../../var/lib/ca-certificates/ca-bundle.pem",
            "/var/lib/ca-certificates/pem/4042bcee.0": "ISRG_Root_X1.pem",
            "/usr/lib64/jvm/jre/lib/security/cacerts": "/var/lib/ca-certificates/java-cacerts",
        },
        opened=("/etc/ssl/ca-bundle.pem", "/var/lib/ca-certificates/ca-bundle.pem"),
        java=("/usr/lib64/jvm/jre/lib/security/cacerts", "/var/lib/ca-certificates/java-cacerts"),
        anchors=("/etc/pki/trust/anchors/weir.pem",),
    ),
    # ca-certificates-bundle and ca-certificates of Alpine
    "alpine": Layout(
        bundles=("/etc/ssl/certs/ca-certificates.crt",),
        others=("/usr/share/ca-certificates/mozilla/ISRG_Root_X1.crt",),
        links={
            "/etc/ssl/cert.pem": "certs/ca-certificates.crt",
            "/etc/ssl1.1/cert.pem": "/etc/ssl/cert.pem",
            "/etc/ssl1.1/certs": "/etc/ssl/certs",
            "/etc/ssl/certs/4042bcee.0": "ca-cert-ISRG_Root_X1.pem",
            "/etc/ssl/certs/ca-cert-ISRG_Root_X1.pem": "/usr/share/ca-certificates/mozilla/ISRG_Root_X1.crt",
        },
        opened=("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem", "/etc/ssl1.1/cert.pem"),
        java=("/etc/ssl/certs/java/cacerts",),
    ),
    # ca-certificates-utils of Arch
    "arch": Layout(
        bundles=("/etc/ca-certificates/extracted/tls-ca-bundle.pem",),
        others=("/etc/ca-certificates/extracted/cadir/ISRG_Root_X1.pem",),
        links={
            "/etc/ssl/cert.pem": "../ca-certificates/extracted/tls-ca-bundle.pem",
            "/etc/ssl/certs/ca-certificates.crt": "../../ca-certificates/extracted/tls-ca-bundle.pem",
            "/etc/ssl/certs/ISRG_Root_X1.pem": "../../ca-certificates/extracted/cadir/ISRG_Root_X1.pem",
        },
        opened=("/etc/ssl/cert.pem", "/etc/ssl/certs/ca-certificates.crt"),
        anchors=("/etc/ca-certificates/trust-source/anchors/weir.pem",),
    ),
    # gcr.io/distroless/static: Debian's bundle and nothing else
    "distroless": Layout(
        bundles=("/etc/ssl/certs/ca-certificates.crt",), opened=("/etc/ssl/certs/ca-certificates.crt",)
    ),
    # An image with a program and nothing else: where Go looks first
    "scratch": Layout(opened=("/etc/ssl/certs/ca-certificates.crt",)),
}


def modelled(layout: Layout, root: Path, busybox: Path) -> Path:
    """An image with this store and one program, /busybox."""
    root.mkdir()
    shutil.copy(busybox, root / "busybox")
    for place in (*layout.bundles, *layout.others):
        path = root / place.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"the image's own {place}\n")
    for place in layout.anchors:
        (root / place.lstrip("/")).parent.mkdir(parents=True)
    for place, target in (layout.links or {}).items():
        path = root / place.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
    return root


def without(place: str, layer: Path) -> Path:
    """A layer that makes a directory of the layers below it an empty one."""
    emptied = layer / place.lstrip("/")
    emptied.mkdir(parents=True)
    os.setxattr(emptied, "trusted.overlay.opaque", b"y")
    return layer


@contextmanager
def container(layers: tuple[Path, ...], directory: Path) -> Iterator["Container"]:
    """A place to start containers of an image from, the topmost layer first, each with one of its own that is thrown away."""
    made = Container(layers, directory)
    directory.mkdir()
    try:
        yield made
    finally:
        shutil.rmtree(directory)


@dataclass(frozen=True)
class Container:
    layers: tuple[Path, ...]
    directory: Path

    def run(
        self, argv: Sequence[str], mounts: Mapping[str, Path], env: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end as an ordinary user. `mounts`: files by their place in the container."""
        upper, work, root = (self.directory / name for name in ("upper", "work", "root"))
        for made in (upper, work, root):
            made.mkdir()
        overlay = f"lowerdir={':'.join(map(str, self.layers))},upperdir={upper},workdir={work}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", overlay, str(root)], check=True)
        try:
            (self.directory / "config.json").write_text(json.dumps(_spec(argv, mounts, env)))
            command = ["runc", "run", "--bundle", str(self.directory), f"weir-{os.getpid()}-{self.directory.name}"]
            return subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60
            )
        finally:
            subprocess.run(["umount", str(root)], check=True)
            for made in (upper, work, root):
                shutil.rmtree(made)


def _spec(argv: Sequence[str], mounts: Mapping[str, Path], env: Mapping[str, str]) -> dict[str, object]:
    binds = [
        {"destination": place, "type": "bind", "source": str(source), "options": ["rbind", "rprivate", "ro"]}
        for place, source in sorted(mounts.items(), key=lambda item: item[0].count("/"))  # as containerd sorts them
    ]
    system = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]},
    ]
    return {
        "ociVersion": "1.0.2",
        "root": {"path": "root", "readonly": True},
        "process": {
            "args": list(argv),
            "cwd": "/",
            "env": [f"{name}={value}" for name, value in ({"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"} | env).items()],
            "user": {"uid": USER, "gid": USER},
            "capabilities": {},
            "noNewPrivileges": True,
        },
        "mounts": [*system, *binds],
        # No network namespace: the servers are on this machine's loopback.
        "linux": {"namespaces": [{"type": kind} for kind in ("mount", "pid", "ipc", "uts")]},
    }
