"""What the sidecar takes while it is root: files, listeners, the config. Everything else comes after the drop."""

import os
import resource
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from ipaddress import IPv4Address, IPv6Address

import msgspec

from weir_sidecar.certs.bundle import SYSTEM_BUNDLES, system_bundles, system_roots
from weir_sidecar.contract import config as contract
from weir_sidecar.contract.config import CaptureMode, ConfigError, FailureMode, Setup, SidecarConfig
from weir_sidecar.core.held import hold
from weir_sidecar.edge import config_file, handover_key, privileges, resolver
from weir_sidecar.edge.context import Endpoint
from weir_sidecar.edge.handed_over import HandedOver
from weir_sidecar.edge.listeners import Listeners
from weir_sidecar.edge.privileges import Capability
from weir_sidecar.edge.records import open_record_file, open_stdout
from weir_sidecar.edge.rules_answer import has_rules
from weir_sidecar.edge.sockets import NoSockets, OwnSockets, Sockets
from weir_sidecar.edge.stream_client import PodIdentity
from weir_sidecar.edge.syn_tap import SynTap
from weir_sidecar.edge.tidy import malloc_trim
from weir_sidecar.edge.udp_listener import DNS_PORT


class Options(msgspec.Struct, frozen=True):
    """Where the sidecar finds and leaves things; see `__main__`."""

    run_dir: str
    state_dir: str
    record: str | None = None
    ready_fd: int | None = None
    started_config: str | None = None
    pod: PodIdentity | None = None
    group: int | None = None


class Opened(msgspec.Struct, frozen=True):
    """What was opened with privileges."""

    config: SidecarConfig
    started: SidecarConfig | None
    """The config whose rules the kernel has, where that is known to be another file's."""
    run_dir: int
    state_dir: int
    record: int | None
    tap: SynTap | None
    listeners: Listeners
    sockets: Sockets
    """Opens more of them."""
    resolver: Endpoint | None
    """Mode Redirect: whom every DNS query is taken to be for."""
    system_roots: bytes
    trim: Callable[[], None]


def open_all(options: Options, say: Callable[[str], None]) -> Opened:
    """Open it all. Raises `ConfigError`, `ListenError` and `OSError`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    record = _open_record(options.record)
    started = None if options.started_config is None else _started(options.started_config)
    with _entering(started):
        run_dir = _directory(options.run_dir)
        state_dir = _directory(options.state_dir)
        config = config_file.read(run_dir) if started is None else _last_good(run_dir, started, say)
    sockets = _sockets(config, run_dir, say)
    # Before the listeners: from the moment they are there, the rules hold every SYN.
    tap = sockets.tap() if _connects_first(config) and not isinstance(sockets, NoSockets) else None
    listeners = sockets.listeners()
    if isinstance(sockets, HandedOver) and config.capture.dns.capture:
        sockets.foresee((str(server), DNS_PORT) for server in _nameservers())
    return Opened(
        config=config,
        started=started,
        run_dir=run_dir,
        state_dir=state_dir,
        record=record,
        tap=tap,
        listeners=listeners,
        sockets=sockets,
        resolver=_resolver(config),
        system_roots=system_roots(system_bundles(SYSTEM_BUNDLES)),
        trim=malloc_trim(),
    )


def _sockets(config: SidecarConfig, run_dir: int, say: Callable[[str], None]) -> Sockets:
    if config.setup is not Setup.CNI:
        return OwnSockets(config)
    if config.failure_mode is FailureMode.OPEN and not has_rules(config):
        say(
            "this pod is not captured: the CNI plugin weir-cni did not run when its sandbox was made; failureMode is Open, so it"
            " runs all the same, and its flows go direct until the node's agent repairs it, or it is made anew"
        )
        return NoSockets()
    if config.capture.mode is CaptureMode.REDIRECT:
        return OwnSockets(config)  # none takes a capability
    return HandedOver(config, handover_key.load_or_create(run_dir), say)


def _open_record(record: str | None) -> int | None:
    match record:
        case None:
            return None
        case "-":
            return open_stdout()
        case path:
            return open_record_file(path)


def _started(path: str) -> SidecarConfig:
    with open(path, "rb") as file:  # noqa: PTH123 - pathlib stays out of the sidecar
        return contract.decode(file.read())


def _last_good(run_dir: int, started: SidecarConfig, say: Callable[[str], None]) -> SidecarConfig:
    """The config that was in force last; where that cannot be read, the one that the pod was started with."""
    try:
        return hold(config_file.read(run_dir), started)[0]
    except (OSError, ConfigError) as problem:
        say(f"the last good config cannot be read, the pod's first one is in force: {problem}")
        return started


def _entering(started: SidecarConfig | None) -> AbstractContextManager[None]:
    """The proxy's directories are the proxy's alone. A container's root may not enter them; the root of a machine may."""
    if started is None or os.geteuid() != 0 or privileges.read_status().has(Capability.DAC_OVERRIDE):
        return nullcontext()
    return privileges.acting_as(started.identity.uid)


def _directory(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _connects_first(config: SidecarConfig) -> bool:
    return config.capture.mode is CaptureMode.TPROXY and config.capture.connect_first


def _nameservers() -> list[IPv4Address | IPv6Address]:
    with open(resolver.RESOLV_CONF, encoding="utf-8", errors="replace") as file:  # noqa: PTH123  (see pyproject)
        return resolver.nameservers(file.read())


def _resolver(config: SidecarConfig) -> Endpoint | None:
    if config.capture.mode is CaptureMode.TPROXY or not config.capture.dns.capture:
        return None
    server = config.capture.dns.server
    if server is None:
        servers = _nameservers()
        if not servers:
            raise ConfigError(
                f"mode Redirect needs a resolver: {resolver.RESOLV_CONF} has none; set capture.dns.server"
            )
        server = str(servers[0])
    return server, DNS_PORT
