"""The real clients of the matrix: how each is called, and how it is told to trust the lab's root and nothing else."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from lab.pki import PKI, TRUST_STORE_PASSWORD

_SOURCES = Path(__file__).parent / "client_sources"
TOOLS = Path(__file__).parents[2] / "build" / "clients"
"""Where `scripts/test-clients` puts what the distribution has no package for."""
GO = TOOLS / "go" / "go" / "bin" / "go"


@dataclass(frozen=True)
class Command:
    """A command line with the environment that it needs on top of what it is given."""

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)


type Build = Callable[[str, PKI | None, Path], Command]
"""From a host, the lab's PKI (None: the client's own defaults for trust) and a scratch directory to a command."""


@dataclass(frozen=True)
class Client:
    """One row of the matrix. `missing` says what to install, or nothing when it can be run."""

    name: str
    build: Build
    missing: Callable[[], str | None]


def _needs(*programs: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        absent = [program for program in programs if not shutil.which(program)]
        return f"{', '.join(absent)} not installed" if absent else None

    return missing


def _curl(host: str, own: PKI | None, scratch: Path) -> Command:
    trust = ["--cacert", str(own.ca_file), "--capath", str(own.empty_directory)] if own else []
    return Command(["curl", "-sS", "-m", "8", *trust, "-w", "\n%{http_code} %{http_version}", f"https://{host}/hello"])


def _wget(host: str, own: PKI | None, scratch: Path) -> Command:
    # On GnuTLS the file is added to the directory's certificates, so an empty directory goes with it.
    trust = [f"--ca-certificate={own.ca_file}", f"--ca-directory={own.empty_directory}"] if own else []
    return Command(["wget", "-q", "-T", "8", "-t", "1", *trust, "-O", "-", f"https://{host}/hello"])


def _python(client: str) -> Build:
    def build(host: str, own: PKI | None, scratch: Path) -> Command:
        trust = [str(own.ca_file)] if own else []
        return Command([sys.executable, str(_SOURCES / "python_client.py"), client, host, "/hello", *trust])

    return build


def _node(host: str, own: PKI | None, scratch: Path) -> Command:
    trust = {"NODE_EXTRA_CA_CERTS": str(own.ca_file), "NODE_USE_SYSTEM_CA": "0"} if own else {}
    return Command(["node", str(_SOURCES / "fetch.mjs"), f"https://{host}/hello"], trust)


def _openssl_trust(own: PKI) -> dict[str, str]:
    return {"SSL_CERT_FILE": str(own.ca_file), "SSL_CERT_DIR": str(own.empty_directory)}


def _java(name: str) -> Build:
    def build(host: str, own: PKI | None, scratch: Path) -> Command:
        classes = scratch / "classes"
        if not (classes / f"{name}.class").exists():
            subprocess.run(["javac", "-d", str(classes), *map(str, _SOURCES.glob("*.java"))], check=True)
        trust = []
        if own:
            store, password = own.java_trust_store, TRUST_STORE_PASSWORD
            trust = [
                f"-Djavax.net.ssl.trustStore={store}",
                f"-Djavax.net.ssl.trustStorePassword={password}",
                "-Djavax.net.ssl.trustStoreType=PKCS12",
            ]
        return Command(["java", "-XX:TieredStopAtLevel=1", *trust, "-cp", str(classes), name, f"https://{host}/hello"])

    return build


def _go_missing() -> str | None:
    return None if GO.exists() or shutil.which("go") else "go not installed"


def _go(host: str, own: PKI | None, scratch: Path) -> Command:
    source, program = _SOURCES / "get.go", TOOLS / "go-get"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        go = str(GO) if GO.exists() else "go"
        environment = {
            **os.environ,
            "GOCACHE": str(TOOLS / "go-cache"),
            "GOPATH": str(TOOLS / "go-path"),
            "GOTOOLCHAIN": "local",
            "GOPROXY": "off",
            "CGO_ENABLED": "0",
        }
        TOOLS.mkdir(parents=True, exist_ok=True)
        subprocess.run([go, "build", "-o", str(program), str(source)], env=environment, check=True)
    return Command([str(program), f"https://{host}/hello"], _openssl_trust(own) if own else {})


def _git(host: str, own: PKI | None, scratch: Path) -> Command:
    clone = scratch / f"clone-{host}"
    trust = {"GIT_SSL_CAINFO": str(own.ca_file), "GIT_SSL_CAPATH": str(own.empty_directory)} if own else {}
    script = 'rm -rf "$2"; git clone -q "$1" "$2" && git -C "$2" rev-parse HEAD && sha256sum <"$2/README"'
    return Command(["sh", "-c", script, "git", f"https://{host}/git/lab.git", str(clone)], trust)


def _pip(host: str, own: PKI | None, scratch: Path) -> Command:
    target = scratch / f"wheel-{host}"
    # pip is requests inside, where REQUESTS_CA_BUNDLE wins over the session's own setting.
    trust = {"PIP_CERT": str(own.ca_file), "REQUESTS_CA_BUNDLE": str(own.ca_file)} if own else {}
    if own and tuple(map(int, version("pip").split(".")[:2])) >= (24, 2):
        # Since then it trusts certifi's roots besides, and in Debian these are the system's.
        trust["PIP_USE_DEPRECATED"] = "legacy-certs"
    script = (
        'rm -rf "$3"; "$1" -m pip download -q --no-deps --no-cache-dir --retries 0 --timeout 8 '
        '--index-url "$2" -d "$3" weir-lab-package && cat "$3"/*.whl | sha256sum'
    )
    environment = {"PIP_CONFIG_FILE": "/dev/null", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **trust}
    return Command(["sh", "-c", script, "pip", sys.executable, f"https://{host}/simple", str(target)], environment)


CLIENTS = (
    Client("curl", _curl, _needs("curl")),
    Client("wget", _wget, _needs("wget")),
    Client("urllib", _python("urllib"), _needs()),
    Client("requests", _python("requests"), _needs()),
    Client("httpx", _python("httpx"), _needs()),
    Client("aiohttp", _python("aiohttp"), _needs()),
    Client("node-fetch", _node, _needs("node")),
    Client("java-httpclient", _java("HttpClientGet"), _needs("java", "javac")),
    Client("java-urlconnection", _java("UrlConnectionGet"), _needs("java", "javac")),
    Client("go", _go, _go_missing),
    Client("git", _git, _needs("git")),
    Client("pip", _pip, _needs()),
    Client("grpc", _python("grpc"), _needs()),
)
