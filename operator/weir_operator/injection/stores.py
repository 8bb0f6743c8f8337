"""Which of our trust files lies over which file of a container.

A file that an image does not have is made, with the directories above it, in the container's own layer or as a mount
point of the runtime's; so nothing needs to be known about the image, and its root may be read-only.

Distributions link these places to each other. A mount of the container's own may so be at another place than its path
says, and ours on it would fail where it is read-only, or leave a file in somebody's volume. Therefore files come in
groups, and a container that mounts anything on, above or below any place of a group keeps all of that group.
"""

from collections.abc import Iterable, Iterator, Mapping
from posixpath import normpath
from typing import Any

import msgspec

from weir_operator.compile import Injection
from weir_operator.injection.shape import listed
from weir_sidecar.contract import pod as paths

# Where distributions keep their certificates; each is a link to another one somewhere.
_LINKED_DIRECTORIES = (
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted/pem/directory-hash",
    "/usr/lib/ssl/certs",
    "/var/lib/ca-certificates/pem",
)


class Store(msgspec.Struct, frozen=True):
    """A trust file, and the places of `what` it is mounted over. `linked` are other places that a distribution links these to."""

    what: str
    file: str
    places: tuple[str, ...]
    linked: tuple[str, ...] = ()

    def kept_for(self, own: Iterable[str]) -> str | None:
        """The first of the container's own mounts that is on, above or below one of the places."""
        reach = self.places + self.linked
        return next((path for path in own if any(covers(path, place) or covers(place, path) for place in reach)), None)


_BUNDLES = Store(
    "the distribution's bundle",
    paths.BUNDLE,
    (
        "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch, distroless
        "/etc/ssl/cert.pem",  # Alpine's OpenSSL
        "/usr/lib/ssl/cert.pem",  # Debian's OpenSSL
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, RHEL, UBI
        "/etc/pki/tls/certs/ca-bundle.crt",  # the same, older names
        "/etc/pki/tls/cert.pem",
        "/var/lib/ca-certificates/ca-bundle.pem",  # SUSE
        "/etc/ssl/ca-bundle.pem",
        "/etc/ca-certificates/extracted/tls-ca-bundle.pem",  # Arch
    ),
    tuple(f"{directory}/ca-certificates.crt" for directory in _LINKED_DIRECTORIES),
)
_JAVA = Store(
    "the distribution's Java trust store",
    paths.TRUST_STORE,
    (
        "/etc/ssl/certs/java/cacerts",  # Debian, Ubuntu, Alpine, Arch
        "/etc/pki/ca-trust/extracted/java/cacerts",  # Fedora, RHEL, UBI
        "/var/lib/ca-certificates/java-cacerts",  # SUSE
    ),
    ("/etc/pki/java/cacerts", *(f"{directory}/java/cacerts" for directory in _LINKED_DIRECTORIES)),
)
# p11-kit reads these itself, whenever a program loads it, and adds them to the distribution's roots: p11-kit's manual, "Trust
# Policy Module", and update-ca-trust(8).
_ANCHORS = Store(
    "the anchors of GnuTLS and NSS",
    paths.CA,
    (
        "/etc/pki/ca-trust/source/anchors/weir.pem",  # Fedora, RHEL, UBI
        "/etc/pki/trust/anchors/weir.pem",  # SUSE
        "/etc/ca-certificates/trust-source/anchors/weir.pem",  # Arch
    ),
)
_BROWSERS = (
    Store("Chromium's policies", paths.CHROMIUM_POLICY, ("/etc/chromium/policies/managed/weir.json",)),
    Store("Chrome's policies", paths.CHROMIUM_POLICY, ("/etc/opt/chrome/policies/managed/weir.json",)),
    Store(
        "the policies of Chrome for Testing",
        paths.CHROMIUM_POLICY,
        ("/etc/opt/chrome_for_testing/policies/managed/weir.json",),
    ),
    Store("Firefox's policies", paths.FIREFOX_POLICY, ("/etc/firefox/policies/policies.json",)),
)

PLACES = frozenset(place for store in (_BUNDLES, _ANCHORS, _JAVA, *_BROWSERS) for place in store.places)


def wanted(injection: Injection) -> Iterator[Store]:
    """The stores that a policy wants covered."""
    if injection.system_stores:
        yield _BUNDLES
        yield _ANCHORS
    if injection.java:
        yield _JAVA
    if injection.nss:
        yield from _BROWSERS


def covers(above: str, path: str) -> bool:
    """Whether a mount at `above` is at `path`, or decides what is seen there."""
    return path == above or path.startswith(above.rstrip("/") + "/")


def mount_path(mount: Mapping[str, Any]) -> str:
    """Where a mount is, in one spelling: absolute, without `..` and empty parts, /var/run as the /run it links to."""
    path: str = "/" + normpath("/" + mount["mountPath"]).lstrip("/")
    return path.removeprefix("/var") if covers("/var/run", path) else path


def is_reserved_mount(mount: Mapping[str, Any]) -> bool:
    """Whether a mount is at a place that is Weir's alone."""
    return covers(paths.RUN, mount_path(mount))


def hides_trust(container: Mapping[str, Any], volumes: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The container's own mount in which no mount point for our files can be made, or should be: it is somebody's data."""
    for mount in listed(container, "volumeMounts"):
        empty = "emptyDir" in volumes.get(mount["name"], {}) and not mount.get("readOnly")
        if covers(mount_path(mount), paths.TRUST) and not empty:
            return str(mount["mountPath"])
    return None
