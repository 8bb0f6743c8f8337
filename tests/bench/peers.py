"""Who is measured, and how each is set up: as it comes, with what the work needs and nothing for show.

Peers get the client's flows by NAT in the client's own namespace, and find where a flow was going as they do on a
gateway. CPU of address translation is small and in the client's part.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

import msgspec

from .load import Work
from .site import CLIENT, ORIGIN_ADDRESS, PROXY_ID, Site, proxy_core, run, within

_PORT = 15900
_CERTGEN = "/usr/lib/squid/security_file_certgen"
_NO_RESUMPTION = """\
openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = server
[server]
NumTickets = 0
Options = -SessionTicket
"""
"""wrk resumes TLS sessions where it can. A new connection here is one with a full handshake, for everyone."""
_MITMDUMP = Path(__file__).parents[2] / "build/bench-peers/bin/mitmdump"


class Mode(StrEnum):
    """What a proxy is told to do."""

    INTERCEPT = "intercept"
    PLAIN = "plain"
    PASSTHROUGH = "passthrough"
    DNS = "dns"


MODE = {
    Work.KEEPALIVE: Mode.INTERCEPT,
    Work.NEW: Mode.INTERCEPT,
    Work.HTTP2: Mode.INTERCEPT,
    Work.VARIED: Mode.INTERCEPT,
    Work.BULK: Mode.INTERCEPT,
    Work.HTTP2_BULK: Mode.INTERCEPT,
    Work.PLAIN_BULK: Mode.PLAIN,
    Work.PASS_NEW: Mode.PASSTHROUGH,
    Work.PASS_BULK: Mode.PASSTHROUGH,
    Work.DNS: Mode.DNS,
}


_PORTS = {Mode.DNS: ("udp", 53), Mode.PLAIN: ("tcp", 80)}
"""Where the client's flows go to, where that is not TCP 443."""


class Peer(msgspec.Struct, frozen=True):
    """One of those that are compared. `command` writes what it needs and returns its command line."""

    name: str
    program: str
    version: tuple[str, ...]
    works: frozenset[Work]
    command: Callable[[Site, Mode], list[str]]
    user: tuple[str, ...] = (f"--reuid={PROXY_ID}", f"--regid={PROXY_ID}", "--clear-groups")

    def found(self) -> str | None:
        """Its version; None when it is not installed."""
        if shutil.which(self.program) is None:
            return None
        done = subprocess.run([self.program, *self.version], capture_output=True, text=True, check=False)
        lines = (done.stdout + done.stderr).strip().splitlines()
        return lines[0] if lines else self.program

    def start(self, site: Site, mode: Mode) -> subprocess.Popen[bytes]:
        """Start it and bring the client's flows to it."""
        home = site.dir / "proxy"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        os.chown(home, PROXY_ID, PROXY_ID)
        argv = within(CLIENT, proxy_core(), self.command(site, mode), user=self.user)
        settings = site.path("openssl.cnf", _NO_RESUMPTION)
        process = site.spawn(argv, environment={"OPENSSL_CONF": str(settings)})
        protocol, port = _PORTS.get(mode, ("tcp", 443))
        site.await_port(process, protocol, _PORT)
        site.redirect(protocol, port, _PORT)
        return process


def _mitmproxy(site: Site, mode: Mode) -> list[str]:
    """Bodies are streamed: held in memory, as it does by default, a download costs twice its size."""
    home = site.dir / "proxy"
    shutil.copy(site.dir / "proxy-ca-both.pem", home / "mitmproxy-ca.pem")
    options = [f"confdir={home}", f"ssl_verify_upstream_trusted_ca={site.dir}/origin-ca.pem", "stream_large_bodies=1m"]
    argv = [str(_MITMDUMP), "-q", "--mode", "transparent", "--listen-host", "127.0.0.1", "-p", str(_PORT)]
    for option in options:
        argv += ["--set", option]
    return [*argv, *(["--ignore-hosts", ".*"] if mode is Mode.PASSTHROUGH else [])]


_SQUID = """\
http_port 127.0.0.1:15901
{listens}
sslcrtd_program {certgen} -s {home}/certificates -M 4MB
tls_outgoing_options cafile={dir}/origin-ca.pem
acl start at_step SslBump1
{bump}
http_access allow all
cache deny all
access_log none
cache_log {home}/cache.log
pid_filename none
coredump_dir {home}
shutdown_lifetime 0 seconds
"""


def _squid(site: Site, mode: Mode) -> list[str]:
    home = site.dir / "proxy"
    run(_CERTGEN, "-c", "-s", f"{home}/certificates", "-M", "4MB")
    for path in (home / "certificates").rglob("*"):
        os.chown(path, PROXY_ID, PROXY_ID)
    os.chown(home / "certificates", PROXY_ID, PROXY_ID)
    # Stare, then bump: the upstream's certificate is seen and verified first, and its names mirrored.
    bump = "ssl_bump stare all\nssl_bump bump all"
    if mode is Mode.PASSTHROUGH:
        bump = "ssl_bump peek start\nssl_bump splice all"
    listens = f"https_port 127.0.0.1:{_PORT} intercept ssl-bump cert={site.dir}/proxy-ca-both.pem"
    listens += " generate-host-certificates=on"
    if mode is Mode.PLAIN:
        listens = f"http_port 127.0.0.1:{_PORT} intercept"
    text = _SQUID.format(listens=listens, dir=site.dir, certgen=_CERTGEN, home=home, bump=bump)
    return ["squid", "-N", "-f", str(site.path("squid.conf", text))]


def _sslsplit(site: Site, mode: Mode) -> list[str]:
    """Bytes are relayed unread (`ssl`, not `https`). It does not verify the upstream."""
    del mode
    argv = ["sslsplit", "-k", f"{site.dir}/proxy-ca.key", "-c", f"{site.dir}/proxy-ca.pem"]
    return [*argv, "-K", f"{site.dir}/proxy-ca.key", "-e", "netfilter", "ssl", "127.0.0.1", str(_PORT)]


_HAPROXY = """\
global
  maxconn 4000
  nbthread 1
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option splice-auto
listen bench
  bind 127.0.0.1:{port}
  server origin {origin}:443
"""


def _haproxy(site: Site, mode: Mode) -> list[str]:
    """To one server that it is told: no name is read."""
    del mode
    config = site.path("haproxy.cfg", _HAPROXY.format(port=_PORT, origin=ORIGIN_ADDRESS))
    return ["haproxy", "-db", "-f", str(config)]


def _dnsmasq(site: Site, mode: Mode) -> list[str]:
    """A forwarder without a cache: each query goes to the server.

    Its own ports are ones that the client's namespace gives to nobody (`Site.renew_client`): from a port that the client
    had used, its query would be taken for the client's and come back to it.
    """
    del site, mode
    argv = ["dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--pid-file=", "--no-resolv", "--no-hosts"]
    return [
        *argv,
        f"--port={_PORT}",
        f"--server={ORIGIN_ADDRESS}",
        "--cache-size=0",
        "--dns-forward-max=4000",
        "--min-port=65001",
    ]


_TLS = frozenset({Work.KEEPALIVE, Work.VARIED, Work.NEW, Work.BULK})
_PASS = frozenset({Work.PASS_NEW, Work.PASS_BULK})

PEERS = (
    # Its interpreter may be where only root can read: root, in the proxy's group.
    Peer(
        "mitmproxy",
        str(_MITMDUMP),
        ("--version",),
        _TLS | _PASS | {Work.HTTP2, Work.HTTP2_BULK, Work.PLAIN_BULK},
        _mitmproxy,
        (f"--regid={PROXY_ID}", "--clear-groups"),
    ),
    Peer("squid", "squid", ("-v",), _TLS | _PASS | {Work.PLAIN_BULK}, _squid),
    Peer("sslsplit", "sslsplit", ("-V",), _TLS, _sslsplit),
    Peer("haproxy", "haproxy", ("-v",), _PASS, _haproxy),
    Peer("dnsmasq", "dnsmasq", ("-v",), frozenset({Work.DNS}), _dnsmasq),
)
