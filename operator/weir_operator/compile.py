"""Policies to the sidecar config. Pure: what the policies name by file is an argument.

`rules` and `neverIntercept` of all policies are joined in order. Every other field is decided on its own, by the first
policy that gives it; what none gives is the config's default.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from weir_operator import models
from weir_operator.arrange import Arranged
from weir_operator.load import Loaded
from weir_operator.models_logging import Logging
from weir_sidecar.contract import config, http, pod
from weir_sidecar.contract import request_log as log

type Roots = Mapping[tuple[str, str], str]
"""PEM text by policy file and `roots[].file` as written in it."""

ROOTS_DIR = "/run/weir/roots"
"""Where a pod's sidecar finds the ConfigMaps that `roots[].configMap` names, a directory each."""

AUTHORITY_DIR = "/run/weir/ca"
"""Where it finds the Secret that `ca.secretRef` names."""


class Injection(msgspec.Struct, frozen=True):
    """How the pod is made to trust the CA: the part of a trust policy that is not the sidecar's.

    `containers` None: all. `override`: set a variable also where the container sets it itself. `secret` is the CA's,
    `config_maps` are those with roots; both are in the pod's namespace, and mounted into the sidecar. `harden`: take from
    the containers what they could get round the proxy with.
    """

    environment: bool = True
    system_stores: bool = True
    java: bool = True
    nss: bool = True
    override: bool = False
    containers: tuple[str, ...] | None = None
    secret: str | None = None
    config_maps: tuple[str, ...] = ()
    credentials: tuple[tuple[str, str], ...] = ()
    """Secrets, and the key of each, that rules add to requests: mounted into the sidecar alone."""
    harden: bool = False


def compile_policies(policies: Arranged, roots: Roots) -> config.SidecarConfig:
    """The config that these policies, already checked, ask for. Without any it is the default config."""
    specs = [one.document.spec for one in policies.interception]
    return replace(
        _overlay(config.SidecarConfig(), specs, "failure_mode", "startup", "default_action", "verify_address"),
        rules=tuple(rule for one in policies.interception for rule in rules_of(one.document)),
        logging=_logging([spec.logging for spec in specs]),
        capture=_capture([spec.capture for spec in specs]),
        trust=_trust(policies.trust, roots),
    )


def compile_injection(policies: Arranged) -> Injection:
    """What these policies ask for in the application's own file system and environment."""
    specs = [one.document.spec for one in policies.trust]
    injection = _overlay(
        Injection(),
        [spec.injection for spec in specs],
        *("environment", "system_stores", "java", "nss", "override", "containers"),
    )
    maps = (root.config_map.name for root in _roots(policies.trust) if root.config_map is not None)
    hardened = (one.document.spec.harden_containers for one in policies.interception)
    return replace(
        injection,
        secret=_secret(specs),
        config_maps=tuple(dict.fromkeys(maps)),
        credentials=tuple(dict.fromkeys(_secrets_of(policies.interception))),
        harden=next((word for word in hardened if word is not None), False),
    )


def _capture(parts: Sequence[models.Capture]) -> config.Capture:
    dns = [part.dns for part in parts if part.dns is not None]
    exclude = [part.exclude for part in parts if part.exclude is not None]
    return replace(
        _overlay(config.Capture(), parts, "mode", "ports", "quic", "other_udp", "other_protocols"),
        dns=_overlay(config.DNS(), dns, *config.DNS.__struct_fields__),
        exclude=_overlay(config.Exclude(), exclude, *config.Exclude.__struct_fields__),
    )


def _logging(parts: Sequence[Logging]) -> log.RequestLog | msgspec.UnsetType:
    """What any of the policies redacts is redacted; all else is the first's that gives it."""
    asked = replace(
        _overlay(log.RequestLog(), parts, "sample", "headers", "query", "tracing"),
        redact_headers=tuple(dict.fromkeys(name for part in parts for name in part.redact.headers)),
        redact_query=tuple(dict.fromkeys(name for part in parts for name in part.redact.query)),
        bodies=_overlay(log.BodyLog(), [part.bodies for part in parts], *log.BodyLog.__struct_fields__),
        web_socket=_overlay(
            log.WebSocketLog(), [part.web_socket for part in parts], *log.WebSocketLog.__struct_fields__
        ),
    )
    return msgspec.UNSET if asked == log.RequestLog() else asked


def _trust(policies: Sequence[Loaded[models.TrustPolicy]], roots: Roots) -> config.Trust:
    specs = [one.document.spec for one in policies]
    fail_open = _overlay(
        config.FailOpen(), [spec.fail_open for spec in specs], "enabled", "failure_threshold", "ttl", "max_ttl"
    )
    never = (host for spec in specs for host in spec.never_intercept)
    return replace(
        _overlay(config.Trust(), [spec.ca for spec in specs], "leaf_lifetime"),
        authority_dir=None if _secret(specs) is None else AUTHORITY_DIR,
        never_intercept=tuple(dict.fromkeys(never)),
        upstream=_upstream(policies, roots),
        fail_open=replace(fail_open, max_ttl=max(fail_open.ttl, fail_open.max_ttl)),
    )


def _upstream(policies: Sequence[Loaded[models.TrustPolicy]], roots: Roots) -> config.Upstream:
    parts = [one.document.spec.upstream for one in policies]
    rooted = _rooted(policies)
    given = _roots(policies)
    pem = (roots[rooted.file, root.file] if root.file else root.pem for root in given) if rooted else ()
    upstream = _overlay(config.Upstream(), parts, "system_roots", "min_tls_version", "on_invalid_certificate")
    return replace(
        upstream,
        min_tls_version=str(upstream.min_tls_version),
        roots_pem=tuple(text for text in pem if text is not None),
        roots_files=tuple(f"{ROOTS_DIR}/{ref.name}/{ref.key}" for ref in (root.config_map for root in given) if ref),
    )


def _rooted(policies: Sequence[Loaded[models.TrustPolicy]]) -> Loaded[models.TrustPolicy] | None:
    """The policy whose `roots` count: the first that gives any."""
    return next((one for one in policies if one.document.spec.upstream.roots is not None), None)


def _roots(policies: Sequence[Loaded[models.TrustPolicy]]) -> tuple[models.Root, ...]:
    rooted = _rooted(policies)
    return () if rooted is None else rooted.document.spec.upstream.roots or ()


def _secret(specs: Iterable[models.TrustSpec]) -> str | None:
    """The Secret that holds the CA; None: the pod makes one. The first policy that gives a source decides."""
    ca = next((spec.ca for spec in specs if spec.ca.source is not None), models.CA())
    return ca.secret_ref.name if ca.source is models.CASource.SECRET and ca.secret_ref else None


def rules_of(policy: models.InterceptionPolicy) -> Iterator[config.Rule]:
    """A policy's rules. A rule for several apps becomes one rule for each: any of them suffices."""
    for number, rule in enumerate(policy.spec.rules, 1):
        name = f"{policy.metadata.name}/{rule.name or f'rule-{number}'}"
        requests = tuple(_http_rule(f"{name}/{one.name or f'http-{n}'}", one) for n, one in enumerate(rule.http, 1))
        for app in rule.match.apps or (models.App(),):
            match = config.Match(
                hosts=rule.match.hosts or (),
                cidrs=rule.match.cidrs or (),
                ports=rule.match.ports or (),
                protocols=tuple(protocol.value for protocol in rule.match.protocols or ()),
                uids=app.uids or (),
                ja4=app.ja4 or (),
            )
            yield config.Rule(name, match, rule.action, http=requests)


def _http_rule(name: str, rule: models.HTTPRule) -> http.RequestRule:
    match = rule.match
    return http.RequestRule(
        name=name,
        match=http.RequestMatch(
            methods=match.methods or (),
            paths=tuple(http.PathMatch(path.value, path.type) for path in match.paths or ()),
            headers=tuple(http.HeaderMatch(one.name, one.value) for one in match.headers or ()),
            query=tuple(http.QueryMatch(one.name, one.value) for one in match.query or ()),
        ),
        action=rule.action,
        status=http.DENIED if rule.status is None else rule.status,
        body=rule.body,
        set_request_headers=tuple(http.Header(one.name, one.value) for one in rule.set_request_headers),
        remove_request_headers=rule.remove_request_headers,
        set_response_headers=tuple(http.Header(one.name, one.value) for one in rule.set_response_headers),
        remove_response_headers=rule.remove_response_headers,
        delay=rule.delay or 0.0,
        abort=bool(rule.abort),
        credential=None if rule.credential_from is None else _credential(rule.credential_from),
    )


def _credential(given: models.CredentialFrom) -> http.Credential:
    """A credential of a file, or of the file that a Secret's key is in the sidecar; the checks let no third through."""
    secret = given.secret
    file = (given.file or "") if secret is None else f"{pod.CREDENTIALS}/{secret.name}/{secret.key}"
    return http.Credential(given.header, file, given.format, given.placeholder, limited=secret is not None)


def _secrets_of(policies: Iterable[Loaded[models.InterceptionPolicy]]) -> Iterator[tuple[str, str]]:
    for policy in policies:
        for given in (one.credential_from for rule in policy.document.spec.rules for one in rule.http):
            if given is not None and given.secret is not None:
                yield given.secret.name, given.secret.key


def _overlay[C: msgspec.Struct](default: C, parts: Iterable[msgspec.Struct], *names: str) -> C:
    """`default` with each named field replaced by that of the first part that gives it."""
    given: dict[str, object] = {}
    for part in parts:
        for name in names:
            value = getattr(part, name)
            if value is not None:
                given.setdefault(name, value)
    return replace(default, **given)
