"""The set-up of a pod, step by step. Each step may have been done before: an init container may run again.

In CNI mode the node's agent has loaded the rules, and this process has no capability: it asks whether they are there.

Order: what only root may read is read; rules, which need NET_ADMIN, are loaded; privileges are dropped for good; files are
made as the user that the sidecar will be. A pod whose sandbox was made anew has no rules but its old volumes: it gets
rules, and keeps its CA.
"""

import datetime as dt
import time
from collections.abc import Callable

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from weir_sidecar.certs import bundle, provided
from weir_sidecar.certs.authority import Authority
from weir_sidecar.certs.provided import Provided, ProvidedError
from weir_sidecar.contract import config as contract
from weir_sidecar.contract import pod as paths
from weir_sidecar.contract.config import ConfigError, FailureMode, Setup, SidecarConfig
from weir_sidecar.edge import authority_files, handed_over, handover_key, privileges
from weir_sidecar.edge.privileges import Capability
from weir_sidecar.edge.rules_answer import has_rules
from weir_sidecar.netfilter.literals import RulesetError
from weir_sidecar.netsetup import capture
from weir_sidecar.netsetup.errors import CaptureError
from weir_sidecar.podsetup import trust_files
from weir_sidecar.podsetup.errors import NoRulesError, SetupError
from weir_sidecar.podsetup.volume import Directory, read_together

CONFIG = "config.json"
RUN = "run"
TRUSTED = "trusted.crt"
"""In the sidecar's directory: what applications were told to trust when the CA came from a Secret."""

PATIENCE = 30.0
"""Seconds that a pod waits for rules that it may not start without. The kubelet then tries again, ever later."""
_LOOK_SECONDS = 0.1

_NO_RULES = "no rules"
_NEEDED = (Capability.NET_ADMIN, Capability.SETUID, Capability.SETGID)


class Places(msgspec.Struct, frozen=True):
    """Where the volumes are mounted; see `__main__`."""

    info: str
    pod: str
    trust: str


class Edge(msgspec.Struct, frozen=True):
    """What is outside: the kernel, the clock, and where to say things that do not end the set-up."""

    apply: Callable[[SidecarConfig], None]
    check: Callable[[SidecarConfig], tuple[str, ...]]
    answers: Callable[[SidecarConfig], bool]
    """Whether rules are here, asked without a capability (`edge.rules_answer`)."""
    claim: Callable[[bytes], None]
    """Makes a key the one of the pod's hand-over (`edge.handed_over`). OSError."""
    status: Callable[[], privileges.Status]
    drop: Callable[[int, int], object]
    sleep: Callable[[float], None]
    now: Callable[[], dt.datetime]
    warn: Callable[[str], None]


class _Read(msgspec.Struct, frozen=True):
    """What was read with privileges."""

    config: SidecarConfig
    roots: tuple[bytes, ...]
    secret: dict[str, bytes] | None


def run(places: Places, edge: Edge) -> str:
    """Set the pod up; what was done, in words. Raises `SetupError`."""
    read = _read(places, edge)
    said_of_rules = (
        _require_rules(read.config, edge) if read.config.setup is Setup.CNI else _load_rules(read.config, edge)
    )
    identity = read.config.identity
    try:
        edge.drop(identity.uid, identity.gid)
    except privileges.PrivilegeError as error:
        raise SetupError(f"{error}; the container needs the capabilities SETUID and SETGID") from error
    run_dir = Directory.volume(places.pod).subdirectory(RUN, 0o700)
    run_dir.write(CONFIG, contract.encode(read.config), 0o600)
    if read.config.setup is Setup.CNI and said_of_rules != _NO_RULES:
        _claim(run_dir, edge)
    ours, said = _authority(run_dir, read, edge)
    made = trust_files.make(read.roots, ours.trusted, places.trust)
    _publish(places.trust, made)
    return f"{said_of_rules}, CA {ours.authority.fingerprint()[:16]} {said}, bundle of {made.certificates} certificates"


def _read(places: Places, edge: Edge) -> _Read:
    path = f"{places.info}/{CONFIG}"
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib is slow to import
            config = contract.decode(file.read())
    except OSError as error:
        raise SetupError(f"{path}: {error.strerror}; it must hold the pod's annotation weir.dev/config") from error
    except ConfigError as error:
        raise SetupError(
            f"{path}: {error}; it is the pod's annotation weir.dev/config, which only Weir writes"
        ) from error
    directory = config.trust.authority_dir
    try:
        secret = None if directory is None else read_together(directory, provided.NAMES)
    except OSError as error:
        raise SetupError(f"{directory}: {error.strerror}; the Secret of ca.secretRef must be mounted there") from error
    return _Read(config, _roots(config, edge), secret)


def _roots(config: SidecarConfig, edge: Edge) -> tuple[bytes, ...]:
    """PEM texts: the public roots, and those of the policy that can be read."""
    upstream = config.trust.upstream
    given = [("a root of the policy", text.encode()) for text in upstream.roots_pem]
    for path in upstream.roots_files:
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - as above
                given.append((path, file.read()))
        except FileNotFoundError:
            continue  # an optional ConfigMap that is not there
        except OSError as error:
            edge.warn(f"{path}: {error.strerror}; left out of what applications trust")
    texts = [bundle.system_roots(bundle.system_bundles())]
    for name, text in given:
        try:
            # One certificate that cannot be read would make a Java trust store unreadable as a whole.
            read = x509.load_pem_x509_certificates(text)
        except ValueError as error:
            edge.warn(f"{name}: found no readable PEM certificates ({error}); left out of what applications trust")
        else:
            texts.append(bundle.to_pem(one.public_bytes(Encoding.DER) for one in read))
    return tuple(texts)


def _require_capabilities(status: privileges.Status) -> None:
    missing = [capability.name for capability in _NEEDED if not status.has(capability)]
    if missing:
        raise SetupError(
            f"found uid {min(status.uids)} without the capabilities {', '.join(missing)}; this container must start as root"
            f" with capabilities.add [{', '.join(one.name for one in _NEEDED)}]: see whether the namespace's Pod Security"
            " level or an admission policy forbids it"
        )


def _require_rules(config: SidecarConfig, edge: Edge) -> str:
    """In CNI mode the rules were loaded before this container started, or never will be."""
    uids = edge.status().uids
    if uids != {config.identity.uid}:
        raise SetupError(
            f"found uid {min(uids)}; in CNI mode this container must run as {config.identity.uid}: only this user is answered"
            " when it asks for the rules"
        )
    if edge.answers(config):
        return "rules are there"
    text = "this pod has no rules of Weir: the CNI plugin weir-cni did not run when its sandbox was made"
    if config.failure_mode is FailureMode.OPEN:
        edge.warn(
            f"{text}; failureMode is Open, so it starts all the same, and is captured once the node's agent repairs it"
        )
        return _NO_RULES
    edge.warn(f"{text}; failureMode is Closed, so it waits for the node's agent to load them, {PATIENCE:.0f} s at most")
    if not _wait_for_rules(config, edge):
        raise NoRulesError(
            f"{text}, and nobody has loaded them since; failureMode is Closed, so it does not start unguarded. See that the"
            " DaemonSet weir-node runs on this node and that the node's CNI configuration names weir-cni; the pod starts when"
            " it is repaired (cni.repair.mode InPlace), or is made anew"
        )
    return "rules are there now"


def _claim(run_dir: Directory, edge: Edge) -> None:
    """Before any application runs: after that somebody else might."""
    try:
        edge.claim(handover_key.load_or_create(run_dir.descriptor))
    except OSError as error:
        edge.warn(f"the node's agent did not take the key of the hand-over ({error.strerror}); the sidecar tries again")


def _wait_for_rules(config: SidecarConfig, edge: Edge) -> bool:
    """Whether they came. A pod that is never restarted has but this one attempt."""
    for _ in range(round(PATIENCE / _LOOK_SECONDS)):
        edge.sleep(_LOOK_SECONDS)
        if edge.answers(config):
            return True
    return False


def _load_rules(config: SidecarConfig, edge: Edge) -> str:
    """Load the rules, and look that they are there; how long it took, in words."""
    _require_capabilities(edge.status())
    started = time.monotonic()
    try:
        edge.apply(config)
        missing = edge.check(config)
    except RulesetError as error:
        raise SetupError(f"the config asks for rules that cannot be: {error}; correct the policy") from error
    except CaptureError as error:
        raise SetupError(
            f"the rules could not be loaded: {error.command}: {error.found}; the node's kernel needs nf_tables, with tproxy"
            " and socket matches unless capture.mode is Redirect (modules nf_tables, nft_tproxy, nft_socket, nft_fib_inet,"
            " nft_ct, nft_reject_inet)"
        ) from error
    if missing:
        raise SetupError(f"the rules were loaded and are not there: {'; '.join(missing)}; something else changes them")
    return f"rules loaded in {time.monotonic() - started:.2f} s"


def _authority(run_dir: Directory, read: _Read, edge: Edge) -> tuple[Provided, str]:
    """The CA that signs and the CAs to be trusted, and where it comes from.

    A pod keeps the CA that it began with while leaves of full length can be signed: its applications have loaded it.
    """
    now = edge.now()
    kept = authority_files.load(run_dir.descriptor)
    if kept is not None and kept.not_valid_after - now <= dt.timedelta(seconds=read.config.trust.leaf_lifetime):
        kept = None
    if read.secret is None:
        authority = kept or Authority.create(now)
        chosen, said = Provided(authority, (authority.certificate,)), "kept" if kept else "made"
    else:
        chosen, said = _from_secret(run_dir, read, kept, edge)
        run_dir.write(TRUSTED, _pem(chosen.trusted), 0o600)
    if kept is None:
        authority_files.store(run_dir.descriptor, chosen.authority)
    return chosen, said


def _from_secret(run_dir: Directory, read: _Read, kept: Authority | None, edge: Edge) -> tuple[Provided, str]:
    assert read.secret is not None
    try:
        given = provided.read(read.secret, edge.now())
    except ProvidedError as error:
        text = f"the CA of the Secret at {read.config.trust.authority_dir} cannot be used: {error}"
        if kept is None:
            raise SetupError(text) from error
        edge.warn(f"{text}; the CA that this pod began with stays")
        given = None
    if given is not None and kept is None:
        return given, "from the Secret"
    assert kept is not None
    before = run_dir.read(TRUSTED)
    trusted = x509.load_pem_x509_certificates(before) if before else [kept.certificate]
    return Provided(kept, tuple(dict.fromkeys((*trusted, *(given.trusted if given else ()))))), "kept"


def _publish(path: str, made: trust_files.TrustFiles) -> None:
    volume = Directory.volume(path)
    hashed = volume.subdirectory(paths.CERTS, 0o755)
    hashed.hold(made.hashed, made.links, 0o644)
    for name, data in made.files.items():
        volume.write(name, data, 0o644)


def _pem(certificates: tuple[x509.Certificate, ...]) -> bytes:
    return bundle.to_pem(one.public_bytes(Encoding.DER) for one in certificates)


def edge_of(now: Callable[[], dt.datetime], warn: Callable[[str], None]) -> Edge:
    """The real one."""
    return Edge(
        apply=capture.apply,
        check=capture.check,
        answers=has_rules,
        claim=handed_over.claim,
        status=privileges.read_status,
        drop=lambda uid, gid: privileges.drop(uid, gid, keep=()),
        sleep=time.sleep,
        now=now,
        warn=warn,
    )
