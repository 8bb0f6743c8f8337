"""Policies as users write them: `weir.dev/v1alpha1`. Each field's meaning for users is in docs/policy.md.

A field that is None was not given; the compiler then asks the next policy, and at last the sidecar config's defaults.
Text with a grammar (host patterns, CIDRs, durations) is named by a `grammar` in its type; `grammar.py` reads it.
"""

from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import field

from weir_operator.models_logging import Logging
from weir_sidecar.contract.config import (
    Action,
    CaptureMode,
    DNSDenial,
    FailureMode,
    IDRange,
    OnInvalidCertificate,
    OtherUDP,
    PortRange,
    QuicMode,
    Startup,
    VerifyAddress,
)
from weir_sidecar.contract.flow import Protocol
from weir_sidecar.contract.http import PathKind, RequestAction

API_VERSION = "weir.dev/v1alpha1"


def _grammar(name: str) -> msgspec.Meta:
    return msgspec.Meta(extra={"grammar": name})


type Name = Annotated[str, _grammar("name")]
type RuleName = Annotated[str, _grammar("rule name")]
type Host = Annotated[str, _grammar("host")]
type SubjectHost = Annotated[str, _grammar("subject host")]
type CIDR = Annotated[str, _grammar("cidr")]
type Address = Annotated[str, _grammar("address")]
type Interface = Annotated[str, _grammar("interface")]
type Method = Annotated[str, _grammar("method")]
type HeaderName = Annotated[str, _grammar("header name")]
type HeaderValue = Annotated[str, _grammar("header value")]
type Path = Annotated[str, _grammar("path")]
type Parameter = Annotated[str, _grammar("parameter")]
type Body = Annotated[str, _grammar("body")]
type JA4 = Annotated[str, _grammar("ja4")]
type Duration = Annotated[float, _grammar("duration")]
type Ports = Annotated[PortRange, _grammar("ports")]
type IDs = Annotated[IDRange, _grammar("ids")]
type NotEmpty[T] = Annotated[tuple[T, ...], msgspec.Meta(min_length=1)]
"""A list that selects: empty it would select everything, which nobody means who writes it."""


class _Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A frozen part of a document; unknown fields are errors."""


class CASource(StrEnum):
    """Where the CA comes from. Pod: made in the pod, its key never leaves it. Secret: `secretRef`, in the pod's namespace."""

    POD = "Pod"
    SECRET = "Secret"  # noqa: S105 - the name of a kind


class KeyAlgorithm(StrEnum):
    """The keys of the CA and of the leaves."""

    ECDSA_P256 = "ECDSA-P256"


class TLSVersion(StrEnum):
    """The lowest version to accept from servers."""

    TLS_1_2 = "1.2"
    TLS_1_3 = "1.3"


class TrustPolicyKind(StrEnum):
    """What a `trustPolicyRef` may name."""

    TRUST_POLICY = "TrustPolicy"
    CLUSTER_TRUST_POLICY = "ClusterTrustPolicy"


class Metadata(_Model, frozen=True):
    """The object's name; what an API server adds is read over."""

    name: Name
    namespace: Name | None = None
    labels: dict[str, Any] | None = None
    annotations: dict[str, Any] | None = None
    uid: Any = None
    resource_version: Any = None
    generation: Any = None
    creation_timestamp: Any = None
    finalizers: Any = None
    owner_references: Any = None
    managed_fields: Any = None


class Exclude(_Model, frozen=True):
    """What the kernel never brings to the sidecar."""

    ports: tuple[Ports, ...] | None = None
    cidrs: tuple[CIDR, ...] | None = None
    uids: tuple[IDs, ...] | None = None
    gids: tuple[IDs, ...] | None = None
    interfaces: tuple[Interface, ...] | None = None


class DNS(_Model, frozen=True):
    """What happens to port 53."""

    capture: bool | None = None
    server: Address | None = None
    strip_ech: bool | None = field(default=None, name="stripECH")
    strip_h3: bool | None = None
    block_doh_canary: bool | None = field(default=None, name="blockDoHCanary")
    cache: bool | None = None
    denial: DNSDenial | None = None


class Capture(_Model, frozen=True):
    """Which packets are brought to the sidecar."""

    mode: CaptureMode | None = None
    ports: NotEmpty[Ports] | None = None
    exclude: Exclude | None = None
    dns: DNS | None = None
    quic: QuicMode | None = None
    other_udp: OtherUDP | None = field(default=None, name="otherUDP")
    other_protocols: bool | None = None
    inbound: Any = None


class App(_Model, frozen=True):
    """Who sends: all given parts must hold."""

    uids: NotEmpty[IDs] | None = None
    ja4: NotEmpty[JA4] | None = None
    containers: NotEmpty[Name] | None = None


class Match(_Model, frozen=True):
    """All given parts must hold; within a part any one entry suffices."""

    hosts: NotEmpty[Host] | None = None
    cidrs: NotEmpty[CIDR] | None = None
    ports: NotEmpty[Ports] | None = None
    protocols: NotEmpty[Protocol] | None = None
    apps: NotEmpty[App] | None = None


class PathMatch(_Model, frozen=True):
    """Paths of requests."""

    value: Path
    type: PathKind = PathKind.PREFIX


class HeaderMatch(_Model, frozen=True):
    """A header field that is there, with this value if one is given."""

    name: HeaderName
    value: HeaderValue | None = None


class QueryMatch(_Model, frozen=True):
    """A query parameter that is there, with this value if one is given."""

    name: Parameter
    value: Parameter | None = None


class HTTPMatch(_Model, frozen=True):
    """All given parts must hold: one of the methods, one of the paths, each header field, each parameter."""

    methods: NotEmpty[Method] | None = None
    paths: NotEmpty[PathMatch] | None = None
    headers: NotEmpty[HeaderMatch] | None = None
    query: NotEmpty[QueryMatch] | None = None


class Header(_Model, frozen=True):
    """A header field to set."""

    name: HeaderName
    value: HeaderValue


class KeyRef(_Model, frozen=True):
    """One key of a ConfigMap or Secret in the pod's namespace."""

    name: Name
    key: str


class CredentialFrom(_Model, frozen=True):
    """A header field that the sidecar adds, with a secret that the application cannot read: of a file or a Secret."""

    header: HeaderName
    format: HeaderValue = "{}"
    file: str | None = None
    secret: KeyRef | None = None
    placeholder: HeaderValue | None = None


class HTTPRule(_Model, frozen=True):
    """One rule on requests; the first that matches decides."""

    name: RuleName | None = None
    match: HTTPMatch = HTTPMatch()
    action: RequestAction = RequestAction.ALLOW
    status: Annotated[int, msgspec.Meta(ge=200, le=599)] | None = None
    body: Body | None = None
    set_request_headers: tuple[Header, ...] = ()
    remove_request_headers: tuple[HeaderName, ...] = ()
    set_response_headers: tuple[Header, ...] = ()
    remove_response_headers: tuple[HeaderName, ...] = ()
    delay: Duration | None = None
    abort: bool | None = None
    credential_from: CredentialFrom | None = None


class Rule(_Model, frozen=True):
    """One rule; the first that matches decides."""

    action: Action
    name: RuleName | None = None
    match: Match = Match()
    http: tuple[HTTPRule, ...] = ()


class TrustPolicyRef(_Model, frozen=True):
    """Which trust policy goes with a policy."""

    name: Name
    kind: TrustPolicyKind = TrustPolicyKind.TRUST_POLICY


class InterceptionSpec(_Model, frozen=True):
    """The spec of InterceptionPolicy and ClusterInterceptionPolicy."""

    pod_selector: dict[str, Any] | None = None
    namespace_selector: dict[str, Any] | None = None
    capture: Capture = Capture()
    failure_mode: FailureMode | None = None
    startup: Startup | None = None
    default_action: Action | None = None
    verify_address: VerifyAddress | None = None
    harden_containers: bool | None = None
    priority: Annotated[int, msgspec.Meta(ge=0, le=10000)] = 1000
    """Lower comes first."""
    rules: tuple[Rule, ...] = ()
    logging: Logging = Logging()
    trust_policy_ref: TrustPolicyRef | None = None


class SecretRef(_Model, frozen=True):
    """A Secret in the pod's namespace."""

    name: Name


class CA(_Model, frozen=True):
    """The CA that signs the leaves."""

    source: CASource | None = None
    secret_ref: SecretRef | None = None
    key_algorithm: KeyAlgorithm | None = None
    leaf_lifetime: Duration | None = None


class Injection(_Model, frozen=True):
    """How the application is made to trust the CA."""

    environment: bool | None = None
    system_stores: bool | None = None
    java: bool | None = None
    nss: bool | None = None
    override: bool | None = None
    containers: NotEmpty[Name] | None = None


class Root(_Model, frozen=True):
    """PEM certificates to trust: exactly one of the three."""

    file: str | None = None
    pem: str | None = None
    config_map: KeyRef | None = None


class Upstream(_Model, frozen=True):
    """How servers are verified."""

    roots: tuple[Root, ...] | None = None
    system_roots: bool | None = None
    min_tls_version: TLSVersion | None = field(default=None, name="minTLSVersion")
    on_invalid_certificate: OnInvalidCertificate | None = None


class FailOpen(_Model, frozen=True):
    """The trust cache."""

    enabled: bool | None = None
    failure_threshold: Annotated[int, msgspec.Meta(ge=1, le=100)] | None = None
    ttl: Duration | None = None
    max_ttl: Duration | None = field(default=None, name="maxTTL")
    share: bool | None = None


class TrustSpec(_Model, frozen=True):
    """The spec of TrustPolicy and ClusterTrustPolicy."""

    ca: CA = CA()
    injection: Injection = Injection()
    upstream: Upstream = Upstream()
    fail_open: FailOpen = FailOpen()
    never_intercept: tuple[Host, ...] = ()


class InterceptionPolicy(_Model, frozen=True):
    """InterceptionPolicy or ClusterInterceptionPolicy."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: InterceptionSpec
    status: Any = None


class TrustPolicy(_Model, frozen=True):
    """TrustPolicy or ClusterTrustPolicy."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: TrustSpec
    status: Any = None


class ExceptionDecision(StrEnum):
    """A person's word on a TrustException. Auto: what is seen decides."""

    AUTO = "Auto"
    INTERCEPT = "Intercept"
    PASSTHROUGH = "Passthrough"


class WorkloadRef(_Model, frozen=True):
    """What pods belong to: a Deployment, StatefulSet, Job… of the same namespace, or a Pod that belongs to nothing."""

    kind: str
    name: Name


class ExceptionApp(_Model, frozen=True):
    """Which client: what is not given is any."""

    uid: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] | None = None
    ja4: JA4 | None = None


class TrustExceptionSpec(_Model, frozen=True):
    """The spec of a TrustException. Without `workload` it is about every pod of the namespace; host `*` is every host."""

    host: SubjectHost
    workload: WorkloadRef | None = None
    app: ExceptionApp = ExceptionApp()
    decision: ExceptionDecision = ExceptionDecision.AUTO


class TrustException(_Model, frozen=True):
    """One learned or given (host, app)."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: TrustExceptionSpec
    status: Any = None


type Document = InterceptionPolicy | TrustPolicy

CLUSTER_KINDS = ("ClusterInterceptionPolicy", "ClusterTrustPolicy")

KINDS: dict[str, type[InterceptionPolicy] | type[TrustPolicy]] = {
    "InterceptionPolicy": InterceptionPolicy,
    "ClusterInterceptionPolicy": InterceptionPolicy,
    "TrustPolicy": TrustPolicy,
    "ClusterTrustPolicy": TrustPolicy,
}

PLURALS = {
    "InterceptionPolicy": "interceptionpolicies",
    "ClusterInterceptionPolicy": "clusterinterceptionpolicies",
    "TrustPolicy": "trustpolicies",
    "ClusterTrustPolicy": "clustertrustpolicies",
    "TrustException": "trustexceptions",
}
"""What objects of each kind are called in paths."""

GROUP = f"/apis/{API_VERSION}"
"""The API server's path to them."""
