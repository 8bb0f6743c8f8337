"""One run, from the first look at the machine to the last trace removed.

The order is the promise: rules are in place before the command exists, the command starts when the sidecar serves, and
whatever was made is removed by its name, however far the set-up came.
"""

import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from weir_cli.pod import cleanup, command, host, identity, ledger, names, namespace, storage, summary, trust_env, view
from weir_cli.pod.addresses import Link
from weir_cli.pod.command import CommandError, Launch
from weir_cli.pod.errors import SetupError
from weir_cli.pod.sidecar import Sidecar, SidecarCommand, replace_file
from weir_cli.pod.storage import Storage
from weir_cli.pod.supervise import BLOCKED, Supervisor
from weir_operator.compile import Injection
from weir_sidecar.certs import bundle, truststore
from weir_sidecar.contract import config as contract
from weir_sidecar.contract.config import CaptureMode, SidecarConfig, Startup
from weir_sidecar.edge.resolver import nameservers


class Options(msgspec.Struct, frozen=True):
    """What `weir run` was asked for."""

    argv: tuple[str, ...]
    policies: tuple[str, ...] = ()
    record: Path | None = None
    state: Path | None = None
    user: str | None = None
    name: str | None = None
    quiet: bool = False
    restart: bool = True


class Parts(msgspec.Struct, frozen=True):
    """What a run is made of that is not its own: policies → config, rules, and the sidecar's program.

    `load` returns the config or an error's text: a reload must survive what a start refuses.
    """

    load: Callable[[], SidecarConfig | str]
    apply: Callable[[SidecarConfig], None]
    program: Sequence[str]


def run(options: Options, config: SidecarConfig, injection: Injection, parts: Parts) -> int:
    """Run the command in a pod; returns its exit status, or 125, 126, 127 when it could not be started."""
    unblocked = frozenset(map(signal.Signals, signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)))
    try:
        with ExitStack() as stack:
            return _Session(options, config, injection, parts, unblocked).run(stack)
    except CommandError as error:
        say(str(error))
        return error.status
    except SetupError as error:
        say(str(error))
        return command.SETUP_FAILED
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)


def say(text: str) -> None:
    """Tell the user, beside what the command writes."""
    print(f"weir: {text}", file=sys.stderr, flush=True)


class _Session:
    """The state of one run: what is decided before the pod exists, and the config that may change."""

    def __init__(
        self,
        options: Options,
        config: SidecarConfig,
        injection: Injection,
        parts: Parts,
        unblocked: frozenset[signal.Signals],
    ) -> None:
        self._options = options
        self._config = config
        self._nameserver: str | None = None
        self._injection = injection
        self._parts = parts
        self._unblocked = unblocked
        self._pod = names.pod(options.name) if options.name is not None else names.generated(os.urandom(5))
        self._user = identity.invoking(os.environ, options.user)
        identity.refuse_proxy(self._user.uid if self._user else os.getuid(), config.identity.uid)

    def run(self, stack: ExitStack) -> int:
        store = self._storage()
        link, resolver_text, notices = self._make_pod(stack)
        self._nameserver = next(map(str, nameservers(resolver_text)), None)
        storage.prepare_run(self._pod, self._owner())
        self._write_config()
        sidecar = self._start_sidecar(store, stack)
        self._apply()
        roots = bundle.system_bundles()
        pem = bundle.system_roots(roots)
        sidecar.wait_ready()
        authority = storage.read_no_follow(self._pod.run / "ca.crt")
        launch = self._launch(store, roots, self._publish(pem, authority, resolver_text))
        self._introduce(link, authority, notices)
        return self._supervise(launch, sidecar, store)

    def _storage(self) -> Storage:
        person = (self._user.uid, self._user.gid) if self._user else (os.getuid(), os.getgid())
        return storage.prepare(self._pod, self._options.state, self._options.record, person, self._owner())

    def _make_pod(self, stack: ExitStack) -> tuple[Link, str, tuple[str, ...]]:
        """The namespace, connected, and from here on removed whatever happens."""
        with ledger.exclusive():
            removed = cleanup.remove_stale()
            lock = ledger.claim(self._pod)
            stack.callback(os.close, lock)
            if self._pod.netns_path.exists():
                self._pod.lock.unlink()
                raise SetupError(f"a network namespace {self._pod.netns} exists that is no pod; choose another --name")
            stack.callback(self._remove)
            notices = host.prepare()
            link = namespace.create(self._pod)
            resolver = host.connect(self._pod, link)
        gone = (f"removed what a killed run had left: {', '.join(removed)}",) if removed else ()
        return link, resolver.text, gone + notices

    def _remove(self) -> None:
        with ledger.exclusive():
            cleanup.remove(self._pod)

    def _owner(self) -> tuple[int, int]:
        return self._config.identity.uid, self._config.identity.gid

    def _write_config(self) -> None:
        config = self._config
        if config.capture.mode is CaptureMode.REDIRECT and config.capture.dns.server is None:
            # The sidecar sees this machine's files, whose resolver need not be the pod's.
            dns = msgspec.structs.replace(config.capture.dns, server=self._nameserver)
            config = msgspec.structs.replace(config, capture=msgspec.structs.replace(config.capture, dns=dns))
        replace_file(self._pod.run / "config.json", contract.encode(config), self._owner(), 0o600)

    def _apply(self) -> None:
        """Load the rules in the pod's namespace."""
        # The command starts when the sidecar serves, so there is nothing to start without, and rules that are loaded again
        # must not begin again.
        config = msgspec.structs.replace(self._config, startup=Startup.HOLD)
        with namespace.entered(self._pod.netns_path):
            self._parts.apply(config)

    def _start_sidecar(self, store: Storage, stack: ExitStack) -> Sidecar:
        started = SidecarCommand(tuple(self._parts.program), self._pod, store.sidecar, store.record, store.pid_files)
        sidecar = Sidecar(started, lambda: bool(signal.sigpending() & {signal.SIGINT, signal.SIGTERM}))
        stack.callback(store.forget_process)
        stack.callback(sidecar.stop)
        sidecar.start(first=True)
        return sidecar

    def _publish(self, roots: bytes, authority: bytes, resolv_conf: str) -> dict[str, str]:
        """Write what the command may read; returns the variables that tell it where."""
        merged = bundle.merge(roots, authority)
        added = trust_env.variables(os.environ, view.trust_files(self._pod), self._injection)
        self._pod.trust.mkdir(mode=0o755, exist_ok=True)
        files = {
            view.BUNDLE: merged,
            view.AUTHORITY: authority,
            view.JAVA: truststore.serialize(bundle.certificates(merged), time.time()),
            view.RESOLV_CONF: resolv_conf.encode(),
            view.ENVIRONMENT: trust_env.shell_text(added).encode(),
        }
        for name, data in files.items():
            replace_file(self._pod.trust / name, data)
        self._pod.trust.chmod(0o755)
        return added

    def _launch(self, store: Storage, bundles: tuple[str, ...], added: dict[str, str]) -> Launch:
        environ = dict(os.environ) | (self._user.environment() if self._user else {}) | added
        return Launch(
            self._options.argv,
            environ,
            self._user,
            view.View(
                self._pod,
                bundles=bundles if self._injection.system_stores else (),
                java=self._injection.java,
                hidden=store.hidden,
                read_only=store.read_only,
            ),
            self._unblocked,
        )

    def _introduce(self, link: Link, authority: bytes, notices: tuple[str, ...]) -> None:
        if self._options.quiet:
            return
        fingerprint = hashlib.sha256(bundle.certificates(authority)[0]).hexdigest()
        say(f"pod {self._pod.name}: network namespace {self._pod.netns}, {link.pod4}, {link.pod6}")
        say(f"CA of this run: SHA-256 {fingerprint[:16]}…; trusted by the command only")
        say("policies: " + (", ".join(self._options.policies) or "none; TLS and HTTP are intercepted on all ports"))
        if self._options.record:
            say(f"flow records: {self._options.record}")
        kept = trust_env.kept(os.environ, bundle.SYSTEM_BUNDLES)
        if kept:
            say(f"left as they are set, so their programs may not trust the CA: {', '.join(kept)}")
        if not self._user and os.getuid() == 0:
            say("the command runs as root: root can go round the proxy; use --user for what you do not trust")
        for notice in notices:
            say(notice)

    def _supervise(self, launch: Launch, sidecar: Sidecar, store: Storage) -> int:
        tty = command.terminal()
        supervisor = Supervisor(
            sidecar, tty, restart=self._options.restart, reload=lambda: self._reload(sidecar), say=say
        )
        start = store.record_size()
        try:
            status = supervisor.wait(command.start(launch, tty))
        finally:
            tty.give(os.getpgrp())
        counted = None if store.record else summary.from_admin(self._pod, self._config.ports.admin)
        sidecar.stop()
        counted = summary.from_record(store.record, start) if store.record else counted
        if counted is not None and not self._options.quiet:
            say(summary.sentence(counted))
        return status

    def _reload(self, sidecar: Sidecar) -> None:
        """SIGHUP: the policies anew. What is bad changes nothing."""
        loaded = self._parts.load()
        if isinstance(loaded, str):
            for line in loaded.splitlines():
                say(line)
            say("the policies in force stay as they were")
            return
        changed = loaded.capture != self._config.capture or loaded.failure_mode != self._config.failure_mode
        before = self._config
        self._config = msgspec.structs.replace(loaded, generation=before.generation + 1)
        try:
            if changed:
                self._apply()
        except SetupError as error:
            self._config = before
            say(f"{error}; the policies in force stay as they were")
            return
        self._write_config()
        sidecar.reload()
        if not self._options.quiet:
            say(f"policies read again: generation {self._config.generation}")
