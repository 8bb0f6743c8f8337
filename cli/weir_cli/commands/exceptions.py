"""`weir exceptions`: what the trust cache learned about (host, app), and a person's word on it.

With --state or --name it is about a run on this machine. Asks the sidecar when one runs there; then a word counts from the
next flow on. Otherwise it is written into the file that the next run begins with. Without them it is about TrustException
objects of a cluster.
"""

import argparse
import json
import os
import sys
import time
from datetime import UTC, datetime

import msgspec

from weir_cli.cluster import exceptions as objects
from weir_cli.cluster import kubectl
from weir_cli.cluster.kubectl import KubectlError
from weir_cli.control import Control, ControlError, state_directory
from weir_cli.text import printable, table
from weir_sidecar.contract.config import FailOpen
from weir_sidecar.contract.trust import Word
from weir_sidecar.core import trust_dump
from weir_sidecar.core.trust_cache import TrustCache
from weir_sidecar.core.trust_change import TrustChange
from weir_sidecar.core.trust_dump import TrustDumpError
from weir_sidecar.core.trust_entry import ANY_HOST, Entry
from weir_sidecar.edge import trust_file

_HEAD = ("HOST", "UID", "JA4", "STATE", "REASON", "ALERT", "FAILED", "OK", "LAST SEEN", "UNTIL")
_LIST = "list"
_VERBS = {
    _LIST: "show what was learned and said",
    Word.APPROVE: "intercept from now on, whatever was seen",
    Word.PIN: "never intercept from now on",
    Word.FORGET: "drop what was learned and said; it is learned anew",
}
_DONE = {
    Word.APPROVE: "approved {}: intercepted from now on, whatever was seen",
    Word.PIN: "pinned {}: never intercepted from now on",
    Word.FORGET: "forgot {}: it is learned anew",
}
# Nothing is dropped here to make room: the limit is the policy's, which this program does not have.
_NO_LIMIT = FailOpen(max_entries=2**31)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    verbs = parser.add_subparsers(dest="verb", metavar="list|approve|pin|forget", required=True)
    for verb, summary in _VERBS.items():
        sub = verbs.add_parser(verb, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        where = sub.add_mutually_exclusive_group()
        where.add_argument("--state", metavar="DIR", help="the state directory of a run, or of one that has ended")
        where.add_argument("--name", metavar="NAME", help="the name of a run that has no state directory")
        kubectl.add_arguments(sub, all_namespaces=verb == _LIST)
        sub.add_argument("-o", dest="output", choices=("table", "json"), default="table", help="default: table")
        if verb != _LIST:
            sub.add_argument("host", metavar="HOST", type=_host, help=f"the host; {ANY_HOST}: every host of the app")
            sub.add_argument("--uid", type=_uid, metavar="U", help="only the app with this UID")
            sub.add_argument("--ja4", metavar="F", help="only the app with this JA4")
            sub.add_argument(
                "--workload",
                metavar="KIND/NAME",
                type=_workload,
                help="in a cluster: only this workload, such as Deployment/web (default: every one of the namespace)",
            )


def run(args: argparse.Namespace) -> int:
    """Do it. Status 1: it cannot be done; 2: it would concern everything."""
    change = None if args.verb == _LIST else TrustChange(Word(args.verb), args.host, args.uid, args.ja4)
    if change is not None and change.word is not Word.FORGET and change.subject == ANY_HOST:
        print(f"weir exceptions: {change.word} of every host is about one app: name it with --uid or --ja4; "
              "what is meant for every app is a policy's defaultAction", file=sys.stderr)  # fmt: skip
        return 2
    try:
        if args.state is None and args.name is None:
            return _in_cluster(args, change)
        with Control(state_directory(args.state, args.name)) as control:
            if change is None:
                _print_entries(_entries(control, args), args.output)
            else:
                _apply(control, args, change)
                print(json.dumps(msgspec.to_builtins(change)) if args.output == "json" else _done(change))
    except (ControlError, KubectlError) as error:
        print(f"weir exceptions: {printable(str(error))}", file=sys.stderr)
        return 1
    return 0


def _in_cluster(args: argparse.Namespace, change: TrustChange | None) -> int:
    cluster = kubectl.from_arguments(args)
    if change is None:
        found = objects.listed(cluster)
        print(json.dumps(found, indent=2) if args.output == "json" else objects.as_table(found))
        return 0
    for done in objects.apply(cluster, change, args.workload):
        print(json.dumps(done) if args.output == "json" else printable(done))
    return 0


def _served(control: Control, args: argparse.Namespace) -> bool:
    """Whether to ask the sidecar. Without --state nothing outlives it, so there is nobody else to ask."""
    return args.state is None or control.runs()


def _entries(control: Control, args: argparse.Namespace) -> tuple[Entry, ...]:
    data = control.get("/trust") if _served(control, args) else _read(control)
    return () if data is None else _decoded(control, data).entries


def _apply(control: Control, args: argparse.Namespace, change: TrustChange) -> None:
    if _served(control, args):
        control.post(f"/trust/{change.word}", {"host": change.host, "uid": change.uid, "ja4": change.ja4})
    else:
        _apply_to_file(control, change)


def _apply_to_file(control: Control, change: TrustChange) -> None:
    data = _read(control)
    cache = TrustCache(_NO_LIMIT)
    if data is not None:
        _decoded(control, data)  # says what is wrong, and where
        cache = TrustCache.load(data, _NO_LIMIT)
    now = time.time()
    if refused := change.apply(cache, now):
        raise ControlError(f"{refused}; `weir exceptions list` shows what is known")
    try:
        trust_file.write(control.descriptor, cache.dump(now))
        # Whoever runs this, the file stays the proxy's, as its directory is.
        owner = os.fstat(control.descriptor)
        os.chown(trust_file.NAME, owner.st_uid, owner.st_gid, dir_fd=control.descriptor, follow_symlinks=False)
    except OSError as error:
        raise ControlError(f"{control.directory / trust_file.NAME}: {error.strerror}") from error


def _read(control: Control) -> bytes | None:
    try:
        return trust_file.read(control.descriptor)
    except OSError as error:
        raise ControlError(f"{control.directory / trust_file.NAME}: {error.strerror}") from error


def _decoded(control: Control, data: bytes) -> trust_dump.Dump:
    try:
        return trust_dump.decode(data)
    except TrustDumpError as error:
        raise ControlError(f"{control.directory / trust_file.NAME}: {error}; move it away to begin anew") from error


def _done(change: TrustChange) -> str:
    return printable(_DONE[change.word].format(change.subject))


def _print_entries(entries: tuple[Entry, ...], output: str) -> None:
    if output == "json":
        print(json.dumps([_plain(entry) for entry in entries], indent=2))
    elif entries:
        print(table(_HEAD, map(_row, entries)))
    else:
        print("nothing is known yet: no intercepted client has shown whether it trusts the CA")


def _plain(entry: Entry) -> dict[str, object]:
    """An entry with times as people write them."""
    plain: dict[str, object] = msgspec.to_builtins(entry)
    for field in ("first_seen", "last_seen", "trusted_at", "expires_at"):
        moment = getattr(entry, field)
        plain[field] = None if moment is None else _time(moment)
    return plain


def _row(entry: Entry) -> tuple[str, ...]:
    return (
        entry.host,
        "any" if entry.uid is None else str(entry.uid),
        entry.ja4 or "any",
        entry.state,
        entry.reason or "",
        "" if entry.alert is None else str(entry.alert),
        str(entry.failures),
        str(entry.successes),
        _time(entry.last_seen),
        "" if entry.expires_at is None else _time(entry.expires_at),
    )


def _time(moment: float) -> str:
    """Seconds since the epoch as RFC 3339, to the second."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _host(text: str) -> str:
    """A host as the cache knows it: lower case, A-labels, without its final dot."""
    try:
        host = text.rstrip(".").encode("idna").decode().lower()
    except UnicodeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a host name") from None
    if host != ANY_HOST and (not host or "*" in host or not host.isprintable() or " " in host):
        raise argparse.ArgumentTypeError(f"{text!r} is not a host name, an address, or {ANY_HOST} alone")
    return host


def _workload(text: str) -> tuple[str, str]:
    kind, slash, name = text.partition("/")
    if not (kind and slash and name):
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: a kind and a name, such as Deployment/web")
    return kind, name


def _uid(text: str) -> int:
    uid = int(text)
    if not 0 <= uid < 2**32 - 1:
        raise argparse.ArgumentTypeError(f"{uid} is not a UID")
    return uid
