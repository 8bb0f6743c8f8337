"""The sidecar config: one pod's compiled policy, as the sidecar reads it.

JSON, camelCase, unknown fields refused. Made by the compiler from policies; never written by hand. A newer sidecar
reads an older version; `VERSION` changes when a field changes its meaning.
"""

from enum import StrEnum
from typing import Annotated, Literal

import msgspec

from weir_sidecar.contract.http import RequestRule
from weir_sidecar.contract.request_log import RequestLog

VERSION = "weir.dev/sidecar/v1alpha1"

type Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
type Seconds = Annotated[float, msgspec.Meta(ge=0)]


class _Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=False):
    """A frozen part of the config; unknown fields are errors."""


def _in_order(first: int, last: int) -> None:
    if first > last:
        raise ValueError(f"a range goes from its first number to its last, but {first} comes after {last}")


class CaptureMode(StrEnum):
    """How packets reach the sidecar: TPROXY keeps addresses; Redirect (NAT) needs no capability in the sidecar."""

    TPROXY = "TPROXY"
    REDIRECT = "Redirect"


class FailureMode(StrEnum):
    """What happens to new flows when the proxy is gone: Open lets them go direct, Closed blocks them."""

    OPEN = "Open"
    CLOSED = "Closed"


class Startup(StrEnum):
    """What happens before the proxy is ready for the first time: Hold makes the pod wait, Open lets flows go direct."""

    HOLD = "Hold"
    OPEN = "Open"


class Setup(StrEnum):
    """Who loads the rules of a pod. CNI: the node's agent, which hands transparent sockets to the sidecar as well."""

    CNI = "CNI"


class QuicMode(StrEnum):
    """UDP/443. Reject answers ICMP port unreachable, so that clients fall back to TCP; Allow treats it as other UDP."""

    REJECT = "Reject"
    ALLOW = "Allow"


class OtherUDP(StrEnum):
    """UDP that is neither DNS nor rejected QUIC.

    Allow relays it through the sidecar, which applies rules and records it; Deny refuses and records it; Ignore leaves
    it to the kernel, unseen.
    """

    ALLOW = "Allow"
    DENY = "Deny"
    IGNORE = "Ignore"


class Action(StrEnum):
    """What a rule asks for. Intercept of a protocol that has no TLS and no HTTP is a passthrough with that reason."""

    INTERCEPT = "Intercept"
    PASSTHROUGH = "Passthrough"
    DENY = "Deny"


class VerifyAddress(StrEnum):
    """What to do when SNI or Host names a host whose address DNS never gave to this pod."""

    IGNORE = "Ignore"
    LOG = "Log"
    DENY = "Deny"


class OnInvalidCertificate(StrEnum):
    """What the client gets when the upstream's certificate does not verify."""

    REJECT = "Reject"
    PASSTHROUGH = "Passthrough"


class DNSDenial(StrEnum):
    """The answer to a denied DNS name."""

    NXDOMAIN = "NXDOMAIN"
    REFUSED = "REFUSED"


class PortRange(_Value, frozen=True):
    """Ports `first` to `last`, both included."""

    first: Port
    last: Port

    def __post_init__(self) -> None:
        _in_order(self.first, self.last)

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last


class IDRange(_Value, frozen=True):
    """UIDs or GIDs `first` to `last`, both included."""

    first: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 2)]
    last: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 2)]

    def __post_init__(self) -> None:
        _in_order(self.first, self.last)

    def __contains__(self, number: int) -> bool:
        return self.first <= number <= self.last


class Exclude(_Value, frozen=True):
    """What the kernel never brings to the sidecar. Such flows are unseen: use a Passthrough rule to see them."""

    ports: tuple[PortRange, ...] = ()
    cidrs: tuple[str, ...] = ()
    uids: tuple[IDRange, ...] = ()
    gids: tuple[IDRange, ...] = ()
    interfaces: tuple[str, ...] = ()


class DNS(_Value, frozen=True):
    """What happens to port 53, UDP and TCP, IPv4 and IPv6."""

    capture: bool = True
    server: str | None = None
    """Address of the resolver to ask; None: the one the application chose."""
    strip_ech: bool = True
    """Remove `ech` from SVCB and HTTPS answers, so that names stay visible."""
    strip_h3: bool = True
    """Remove `h3` from the ALPN list of SVCB and HTTPS answers."""
    block_doh_canary: bool = True
    """Answer `use-application-dns.net` with NXDOMAIN, so that browsers keep to the system's resolver."""
    cache: bool = False
    denial: DNSDenial = DNSDenial.NXDOMAIN


class Identity(_Value, frozen=True):
    """Who the proxy is: its UID and GID exempt its own packets from capture."""

    uid: Annotated[int, msgspec.Meta(ge=1)] = 15801
    gid: Annotated[int, msgspec.Meta(ge=1)] = 15801


class Ports(_Value, frozen=True):
    """The sidecar's own ports. TCP and UDP listeners are the targets of capture; `heartbeat` has no listener."""

    tcp: Port = 15801
    udp: Port = 15801
    admin: Port = 15802
    heartbeat: Port = 15803
    probe: Port | None = None
    """Where the pod's address answers /healthz, /readyz and /metrics, for the kubelet and Prometheus; None: nowhere."""

    def __post_init__(self) -> None:
        if len({self.tcp, self.admin, self.probe}) < 3 or self.udp == self.heartbeat:
            raise ValueError("tcp, admin and probe are different ports, and so are udp and heartbeat")


class Heartbeat(_Value, frozen=True):
    """The dead-man's switch: a datagram each `interval`; after `timeout` without one new flows are not captured."""

    interval: Annotated[float, msgspec.Meta(ge=0.02)] = 0.2
    timeout: Seconds = 1.0

    def __post_init__(self) -> None:
        if self.timeout < 2 * self.interval:
            raise ValueError(
                f"the timeout is at least two intervals, so that one late beat opens nothing; {self.timeout} s is less"
                f" than twice {self.interval} s"
            )


class Marks(_Value, frozen=True):
    """Packet and connection mark bits and the routing table that Weir uses.

    `mask` has two bits, `mark` is one of them: captured. The other means exempt, or on a packet: sent again by the
    switch. Weir neither reads nor changes any other bit. The table's number is the policy rule's priority as well.
    """

    mark: int = 0x10000000
    mask: int = 0x30000000
    table: int = 15801


class Capture(_Value, frozen=True):
    """Which packets the kernel brings to the sidecar."""

    mode: CaptureMode = CaptureMode.TPROXY
    ports: tuple[PortRange, ...] = (PortRange(1, 65535),)
    exclude: Exclude = Exclude()
    dns: DNS = DNS()
    quic: QuicMode = QuicMode.REJECT
    other_udp: OtherUDP = OtherUDP.ALLOW
    connect_first: bool = True
    """TPROXY: a client's connection is accepted when the upstream has accepted ours, so that it sees what the upstream
    answers: refused, unreachable, or nothing. Needs NET_RAW in the sidecar."""
    other_protocols: bool = True
    """False: IP protocols other than TCP, UDP and ICMP, which the sidecar cannot see, are rejected by the kernel."""
    before_nat: bool = False
    """TPROXY: other NAT rules in the pod, such as a mesh's, find nothing to do with captured flows. They would change
    destinations before the sidecar sees them; what the sidecar itself sends they still find."""


class Match(_Value, frozen=True):
    """All given parts must hold; an empty part always holds; within a part any one entry suffices."""

    hosts: tuple[str, ...] = ()
    """Exact names, or `*.example.com` (any depth below, not the name itself), or `*`; lower case, A-labels."""
    cidrs: tuple[str, ...] = ()
    ports: tuple[PortRange, ...] = ()
    protocols: tuple[str, ...] = ()
    """Of `Protocol`: tls, http, dns, tcp, udp."""
    uids: tuple[IDRange, ...] = ()
    ja4: tuple[str, ...] = ()


class Rule(_Value, frozen=True, omit_defaults=True):
    """One rule; the first that matches decides. `name` is what records and `explain` print."""

    name: str
    match: Match
    action: Action
    trusts_address: bool = True
    """With `cidrs` and without `hosts`: the flow rests on its address, so that `verify_address` has nothing to refuse.
    False for a rule of somebody who may not say so: a false name is refused all the same."""
    http: tuple[RequestRule, ...] = ()
    """Asked for each request of a flow that this rule decided, where its HTTP is read. The first that matches decides."""


class Upstream(_Value, frozen=True):
    """How the sidecar verifies servers on behalf of the client."""

    roots_pem: tuple[str, ...] = ()
    """PEM bundles to trust in addition to, or with `system_roots=False` instead of, the system's."""
    roots_files: tuple[str, ...] = ()
    """Files of PEM bundles, mounted into the sidecar, that count as `roots_pem`. One that is missing holds nothing."""
    system_roots: bool = True
    min_tls_version: Literal["1.2", "1.3"] = "1.2"
    on_invalid_certificate: OnInvalidCertificate = OnInvalidCertificate.REJECT


class FailOpen(_Value, frozen=True):
    """The trust cache: what happens to clients that do not trust the CA. Times in seconds."""

    enabled: bool = True
    failure_threshold: Annotated[int, msgspec.Meta(ge=1, le=100)] = 2
    """How many suspicions (silent ends, no alert) make a failure; an alert counts at once."""
    ttl: Seconds = 3600.0
    max_ttl: Seconds = 86400.0
    max_entries: Annotated[int, msgspec.Meta(ge=16)] = 4096


class Trust(_Value, frozen=True):
    """The CA and who trusts whom."""

    authority_dir: str | None = None
    """Directory with the CA to use: tls.crt, tls.key, and ca.crt with all CAs to be trusted (kubernetes.io/tls Secret).
    None: the pod makes its own."""
    leaf_lifetime: Annotated[float, msgspec.Meta(ge=60)] = 86400.0
    never_intercept: tuple[str, ...] = ()
    """Host patterns that are always passed through, whatever a rule says short of Deny."""
    upstream: Upstream = Upstream()
    fail_open: FailOpen = FailOpen()


class Limits(_Value, frozen=True):
    """Bounds in time (seconds), bytes and number that keep one flow from hurting the others."""

    peek_timeout: Seconds = 10.0
    connect_timeout: Seconds = 130.0
    handshake_timeout: Seconds = 60.0
    canary_wait: Seconds = 5.0
    client_hello_bytes: Annotated[int, msgspec.Meta(ge=4096, le=65536)] = 65536
    flows: Annotated[int, msgspec.Meta(ge=1)] = 16384


class Stream(_Value, frozen=True):
    """Where newer configs come from and events go to: the control plane's config stream (`contract.stream`)."""

    server: str
    """HOST:PORT; HOST is also the name that the server's certificate must have."""
    authorities_pem: str
    """The CAs that may have signed that certificate, and nobody else."""


class SidecarConfig(_Value, frozen=True):
    """Everything one pod's sidecar needs to know."""

    version: str = VERSION
    generation: int = 0
    revision: str = ""
    """The compiler's fingerprint of what the policies ask for: equal text, equal behaviour. Empty on one machine."""
    workload: str = ""
    """`namespace/kind/name` of what this pod belongs to; empty on one machine."""
    failure_mode: FailureMode = FailureMode.OPEN
    startup: Startup = Startup.HOLD
    setup: Setup | msgspec.UnsetType = msgspec.UNSET
    """Left out where the pod's own init container does it: what such configs say is as it was before there was another way."""
    default_action: Action = Action.INTERCEPT
    verify_address: VerifyAddress = VerifyAddress.LOG
    rules: tuple[Rule, ...] = ()
    logging: RequestLog | msgspec.UnsetType = msgspec.UNSET
    """Left out where no policy asks for more than records tell by themselves."""
    capture: Capture = Capture()
    trust: Trust = Trust()
    stream: Stream | None = None
    identity: Identity = Identity()
    ports: Ports = Ports()
    heartbeat: Heartbeat = Heartbeat()
    marks: Marks = Marks()
    limits: Limits = Limits()


class ConfigError(ValueError):
    """A config that cannot be read; the text names the field, what was found and what is allowed."""


def decode(data: bytes | str) -> SidecarConfig:
    """Read a config from JSON. Raises `ConfigError`."""
    try:
        config = msgspec.json.decode(data, type=SidecarConfig)
    except (msgspec.MsgspecError, UnicodeError) as error:  # UnicodeError: a string that is not UTF-8
        raise ConfigError(f"sidecar config: {error}") from error
    if config.version != VERSION:
        raise ConfigError(f"sidecar config: version is {config.version!r}; this sidecar reads {VERSION!r}")
    return config


def encode(config: SidecarConfig) -> bytes:
    """Write a config as JSON, one line, fields in the order of this file."""
    return msgspec.json.encode(config)
