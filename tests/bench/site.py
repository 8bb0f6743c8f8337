"""Where the bench runs: two network namespaces, `client` (with the proxy in it, as in a pod) and `origin`.

The client's namespace is made anew for each proxy, so that nothing of one is left for the next. What a killed run left
is removed when the next one starts.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self

CLIENT = "weirbench-client"
ORIGIN = "weirbench-origin"
ORIGIN_ADDRESS = "198.18.88.1"
HOST = "origin.test"
ORIGIN_CA = "bench origin CA"
PROXY_ID = 15899
"""The group of every peer, and the user of those that need no more: redirection leaves its packets alone."""

_DIR = Path("/run/weirbench")
_ETC = Path("/etc/netns")
_KIB = 1024
_NGINX = """\
daemon off; worker_processes 1; user root; pid {dir}/nginx.pid; error_log {dir}/nginx.log;
events {{ worker_connections 8192; }}
http {{
  access_log off; sendfile on; keepalive_requests 100000000; types {{}} default_type text/plain;
  client_body_temp_path {dir}; proxy_temp_path {dir}; fastcgi_temp_path {dir};
  uwsgi_temp_path {dir}; scgi_temp_path {dir};
  server {{
    listen 80; listen 443 ssl http2; location /varied/ {{ rewrite ^ /1k break; }}
    root {dir}/www; ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_tickets off; ssl_session_cache off; ssl_certificate {dir}/origin.pem; ssl_certificate_key {dir}/origin.key;
  }}
}}
"""


class SiteError(Exception):
    """The bench cannot run here; the text says why and what to do."""


def proxy_core() -> int:
    """The core of the proxy: the first that this process may use."""
    return min(os.sched_getaffinity(0))


def load_core() -> int:
    """The core of client and origin: the second, or the proxy's own where there is no other."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[min(1, len(cores) - 1)]


def run(*argv: str, stdin: str | None = None) -> str:
    """Standard output of a command. Raises `SiteError` with what it said when it failed."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SiteError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def within(namespace: str, core: int, argv: list[str], *, user: tuple[str, ...] = ()) -> list[str]:
    """The command line that runs `argv` in a namespace, on a core, as a user. Each step execs: the pid stays one.

    `user` are arguments of setpriv(1).
    """
    return [
        *("ip", "netns", "exec", namespace, "taskset", "-c", str(core)),
        *(("setpriv", *user) if user else ()),
        *argv,
    ]


class Site:
    """Namespaces, certificates, the web origin and the DNS origin; all gone on exit."""

    def __init__(self, bulk_bytes: int) -> None:
        self.dir = _DIR
        self._bulk_bytes = bulk_bytes
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise SiteError("the bench makes network namespaces: run it as root")
        self._lock = Path("/run/weirbench.lock").open("w", encoding="ascii")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SiteError("another bench is running on this machine; wait for its end") from error
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def path(self, name: str, text: str | None = None) -> Path:
        """A file of the site, written when a text is given; every user can read it."""
        path = self.dir / name
        if text is not None:
            path.write_text(text, encoding="utf-8")
            path.chmod(0o644)
        return path

    def spawn(
        self, argv: list[str], *, pass_fds: tuple[int, ...] = (), environment: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a server, with more in its environment; what it says goes to `site.log`."""
        with (self.dir / "site.log").open("ab") as log:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=pass_fds,
                env=os.environ | (environment or {}),
            )

    def client(self, argv: list[str]) -> str:
        """Standard output of a load generator, run to its end beside the origin's core."""
        return run(*within(CLIENT, load_core(), argv))

    def said(self) -> str:
        """The last lines of what the servers said."""
        return "\n".join((self.dir / "site.log").read_text(errors="replace").splitlines()[-8:])

    def renew_client(self) -> None:
        """A fresh namespace for the client, joined to the origin's."""
        self.remove_client()
        run("ip", "netns", "add", CLIENT)
        run("ip", "-n", CLIENT, "link", "set", "lo", "up")
        run("ip", "-n", CLIENT, "link", "add", "eth0", "type", "veth", "peer", "name", "net0", "netns", ORIGIN)
        run("ip", "-n", CLIENT, "address", "add", "198.18.88.2/24", "dev", "eth0")
        run("ip", "-n", ORIGIN, "address", "add", f"{ORIGIN_ADDRESS}/24", "dev", "net0")
        run("ip", "-n", CLIENT, "link", "set", "eth0", "up")
        run("ip", "-n", ORIGIN, "link", "set", "net0", "up")
        run("ip", "-n", CLIENT, "route", "add", "default", "via", ORIGIN_ADDRESS)
        # A closed connection's port is free at once: the bench opens more of them than there are ports.
        for line in ("ip_local_port_range=1024 65000", "tcp_tw_reuse=1"):
            run("ip", "netns", "exec", CLIENT, "sysctl", "-qw", f"net.ipv4.{line}")
        etc = _ETC / CLIENT
        etc.mkdir(parents=True, exist_ok=True)
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{ORIGIN_ADDRESS} {HOST}\n")
        (etc / "resolv.conf").write_text(f"nameserver {ORIGIN_ADDRESS}\n")

    def remove_client(self) -> None:
        """End every process of the client's namespace and remove it."""
        subprocess.run(["ip", "-n", ORIGIN, "link", "del", "net0"], check=False, stderr=subprocess.DEVNULL)
        _remove_namespace(CLIENT)

    def redirect(self, protocol: str, port: int, to: int) -> None:
        """Bring the client's flows to a peer, by NAT in the client's own namespace."""
        rules = f"""table ip bench {{ chain out {{ type nat hook output priority -100;
            meta skgid != {PROXY_ID} ip daddr {ORIGIN_ADDRESS} {protocol} dport {port} redirect to :{to};
        }}
        }}
        """
        run("ip", "netns", "exec", CLIENT, "nft", "-f", "-", stdin=rules)

    def _make(self) -> None:
        _clean()
        (self.dir / "www").mkdir(parents=True)
        self.dir.chmod(0o755)
        self.path("www/1k").write_bytes(os.urandom(_KIB // 2).hex().encode())
        with self.path("www/bulk").open("wb") as bulk:
            bulk.truncate(self._bulk_bytes)
        self._make_certificates()
        run("ip", "netns", "add", ORIGIN)
        run("ip", "-n", ORIGIN, "link", "set", "lo", "up")
        run("ip", "netns", "exec", ORIGIN, "sysctl", "-qw", "net.ipv4.tcp_tw_reuse=1")
        self.renew_client()
        config = self.path("nginx.conf", _NGINX.format(dir=self.dir))
        self.await_port(self.spawn(within(ORIGIN, load_core(), ["nginx", "-c", str(config)])), "tcp", 443)
        if shutil.which("dnsmasq"):
            argv = ["dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root"]
            argv += ["--address=/bench.test/198.18.88.9", "--pid-file="]
            self.await_port(self.spawn(within(ORIGIN, load_core(), argv)), "udp", 53)

    def _make_certificates(self) -> None:
        """Two CAs of the same kind, the origin's and the one peers are given, and the origin's certificate."""
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        for name, subject in (("origin-ca", ORIGIN_CA), ("proxy-ca", "bench proxy CA")):
            run(
                *("openssl", "req", "-x509", *key, "-subj", f"/CN={subject}"),
                *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
                *("-keyout", str(self.dir / f"{name}.key"), "-out", str(self.dir / f"{name}.pem")),
            )
        run(
            *("openssl", "req", *key[:5], "-subj", "/CN=origin", "-addext", f"subjectAltName=DNS:{HOST}"),
            *("-keyout", str(self.dir / "origin.key"), "-out", str(self.dir / "origin.csr")),
        )
        extensions = self.path("origin.ext", f"subjectAltName=DNS:{HOST}\nextendedKeyUsage=serverAuth\n")
        run(
            *("openssl", "x509", "-req", "-in", str(self.dir / "origin.csr"), "-out", str(self.dir / "origin.pem")),
            *("-CA", str(self.dir / "origin-ca.pem"), "-CAkey", str(self.dir / "origin-ca.key"), "-CAcreateserial"),
            *("-days", "2", "-extfile", str(extensions)),
        )
        both = (self.dir / "proxy-ca.key").read_text() + (self.dir / "proxy-ca.pem").read_text()
        self.path("proxy-ca-both.pem", both)
        # Keys of a few minutes that sign for one name in one namespace: peers that drop root must read them.
        (self.dir / "proxy-ca.key").chmod(0o644)

    def await_port(self, process: subprocess.Popen[bytes], protocol: str, port: int) -> None:
        """Wait until something listens on the port in the namespace of the process."""
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise SiteError(f"{process.args!r} ended with {process.returncode}: {self.said()}")
            if _listens(process.pid, protocol, port):
                return
            time.sleep(0.02)
        raise SiteError(f"nothing listens on {protocol} port {port} after 15 s: {self.said()}")

    def _remove(self) -> None:
        _clean()
        if self._lock is not None:
            self._lock.close()


def _listens(pid: int, protocol: str, port: int) -> bool:
    """proc(5): in /proc/PID/net/tcp state 0A is LISTEN; a bound UDP socket has state 07."""
    state = "0A" if protocol == "tcp" else "07"
    for family in ("", "6"):
        for line in Path(f"/proc/{pid}/net/{protocol}{family}").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == state and int(fields[1].rsplit(":", 1)[1], 16) == port:
                return True
    return False


def _remove_namespace(name: str) -> None:
    listed = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)
    for pid in listed.stdout.split():
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            continue
    subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)
    shutil.rmtree(_ETC / name, ignore_errors=True)


def _clean() -> None:
    for name in (CLIENT, ORIGIN):
        _remove_namespace(name)
    shutil.rmtree(_DIR, ignore_errors=True)
