"""The CA reaches programs in images that know nothing of it: files are mounted and variables set as injection does.

Each client asks two servers: one with a leaf of Weir's CA, as intercepted flows show it, and one of a public root, as flows
that are passed through do. Both must be trusted.
"""

import datetime as dt
import hashlib
import http.server
import os
import shlex
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from lab import images
from lab.images import LAYOUTS, Container
from lab.pki import Authority as Lab
from lab.pki import LeafShape
from weir_operator.compile import Injection
from weir_operator.injection import application
from weir_sidecar.certs.authority import Authority
from weir_sidecar.certs.leaf import LeafMinter
from weir_sidecar.contract import pod as paths
from weir_sidecar.podsetup import trust_files

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to start containers"),
    pytest.mark.skipif(not shutil.which("runc"), reason="needs runc"),
]
NOTHING = Injection(environment=False, system_stores=False, java=False, nss=False)


@dataclass(frozen=True)
class World:
    """Two servers, and the trust files that make clients believe both."""

    trust: Path
    intercepted: int
    passed: int


class _Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    def get_request(self):
        sock, address = super().get_request()
        return self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, *_: object) -> None:
        pass  # a client that does not trust the certificate


def serve(pem: Path) -> _Server:
    server = _Server(("127.0.0.1", 0), _Hello)
    server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.context.load_cert_chain(pem)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("world")
    now = dt.datetime.now(dt.UTC)
    public, authority = Lab.root("Public root"), Authority.create(now)
    origin = public.leaf(LeafShape(("127.0.0.1",)))
    minter = LeafMinter(authority, dt.timedelta(days=1))
    key = minter.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    mirrored = directory / "mirrored.pem"
    mirrored.write_bytes(key + minter.mirror(origin.certificate, now).public_bytes(Encoding.PEM))
    servers = [serve(mirrored), serve(origin.write(directory / "origin.pem"))]
    trust = directory / "trust"
    made = trust_files.make((public.issued.pem,), (authority.certificate,), paths.TRUST)
    (trust / paths.CERTS).mkdir(parents=True)
    for name, data in (*made.files.items(), *((f"{paths.CERTS}/{name}", data) for name, data in made.hashed.items())):
        (trust / name).write_bytes(data)
    for name, target in made.links.items():
        (trust / paths.CERTS / name).symlink_to(target)
    yield World(trust, *(server.server_address[1] for server in servers))
    for server in servers:
        server.shutdown()
        server.server_close()


def equipped(world: World, injection: Injection) -> tuple[dict[str, Path], dict[str, str]]:
    """The mounts and variables that a container gets."""
    container, _ = application.equip({"name": "app", "image": "i"}, injection, {})
    mounts = {mount["mountPath"]: world.trust / mount.get("subPath", "") for mount in container.get("volumeMounts", ())}
    return mounts, {entry["name"]: entry["value"] for entry in container.get("env", ())}


# Debian's own programs in Debian's own file system.

_PYTHON = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1])"
CLIENTS = {
    "curl": ("curl", "--silent", "--show-error", "--output", "/dev/null"),
    "wget (GnuTLS)": ("wget", "--no-verbose", "--tries=1", "--output-document=/dev/null"),
    "python": ("python3", "-c", _PYTHON),
    "openssl": ("openssl", "s_client", "-verify_return_error", "-brief", "-connect"),
}
READ_NO_VARIABLE = {"wget (GnuTLS)"}


def trusting(container: Container, world: World, mounts: dict[str, Path], env: dict[str, str]) -> set[str]:
    """The clients that believe both servers. One that believes only one of the two, or fails otherwise, is an error."""
    calls = [
        (name, port, shlex.join((*argv, f"127.0.0.1:{port}" if name == "openssl" else f"https://127.0.0.1:{port}/")))
        for name, argv in CLIENTS.items()
        for port in (world.intercepted, world.passed)
    ]
    script = "\n".join(f"if said=$({call} 2>&1); then echo trusts; else echo $said; fi" for _, _, call in calls)
    done = container.run(("sh", "-c", script), mounts, env)
    answers = done.stdout.splitlines()
    assert len(answers) == len(calls), done
    assert all(answer == "trusts" or "certificate" in answer.lower() for answer in answers), done
    believed = {(name, port) for (name, port, _), answer in zip(calls, answers, strict=True) if answer == "trusts"}
    assert {name for name, port in believed if port == world.passed} == {
        name for name, port in believed if port == world.intercepted
    }
    return {name for name, _ in believed}


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def debian(request: pytest.FixtureRequest) -> Path:
    return _debian(request.param)


def _debian(suite: str) -> Path:
    if not shutil.which("mmdebstrap") and not (images.CACHE / suite).exists():
        pytest.skip(f"needs mmdebstrap, to make an image of Debian {suite}")
    try:
        return images.debian(suite)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"needs Debian's packages of {suite}: {error.stderr.strip().splitlines()[-1]}")


@pytest.mark.parametrize("bare", [False, True], ids=["with ca-certificates", "without"])
def test_debian(debian: Path, world: World, tmp_path: Path, bare: bool) -> None:
    found = {}
    layers = (images.without("/etc/ssl/certs", tmp_path / "layer"), debian) if bare else (debian,)
    with images.container(layers, tmp_path / "container") as container:
        for how, injection in {
            "nothing": NOTHING,
            "stores": Injection(environment=False, java=False, nss=False),
            "environment": Injection(system_stores=False, java=False, nss=False),
            "all": Injection(),
        }.items():
            mounts, env = equipped(world, injection)
            if how == "nothing":
                mounts.clear()
            found[how] = trusting(container, world, mounts, env)
    everybody = set(CLIENTS)
    assert found == {
        "nothing": set(),
        "stores": everybody,
        "environment": everybody - READ_NO_VARIABLE,
        "all": everybody,
    }


# What programs of other distributions open, in stores laid as their packages lay them.


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name: str, world: World, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    busybox = _debian("bookworm") / "bin" / "busybox"
    image = images.modelled(layout, tmp_path / "image", busybox)
    before = snapshot(image)
    mounts, _ = equipped(world, Injection())
    with images.container((image,), tmp_path / "container") as container:
        done = container.run(("/busybox", "sha256sum", *layout.opened, *layout.java, *layout.anchors), mounts, {})
        others = container.run(("/busybox", "cat", *layout.others), mounts, {})
    digests = {line.split()[1]: line.split()[0] for line in done.stdout.splitlines()}
    assert digests == {
        **{place: digest(world.trust / paths.BUNDLE) for place in layout.opened},
        **{place: digest(world.trust / paths.TRUST_STORE) for place in layout.java},
        **{place: digest(world.trust / paths.CA) for place in layout.anchors},
    }
    assert others.stdout == "".join(f"the image's own {place}\n" for place in layout.others)
    assert snapshot(image) == before


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def snapshot(root: Path) -> dict[Path, object]:
    return {
        path: path.readlink() if path.is_symlink() else path.is_dir() or path.read_bytes() for path in root.rglob("*")
    }
