"""`weir flows`: records of flows and of the requests in them: as a table, live, as an HTTP Archive, a curl command, spans.

From pods, a sidecar of a run, or a file.
"""

import argparse
import json
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

from weir_cli.cluster import kubectl, services
from weir_cli.cluster.kubectl import KubectlError
from weir_cli.cluster.records import Line, Pods
from weir_cli.control import ControlError
from weir_cli.flows import curl, har, ids, table
from weir_cli.flows.filters import Filter, FilterError, parse
from weir_cli.flows.messages import ExportError
from weir_cli.flows.source import File, Run, Source, lines
from weir_cli.flows.spans import is_wanted, span
from weir_cli.flows.told import Told, Unreadable, capture_told, read
from weir_cli.text import printable
from weir_sidecar.contract.request import RequestRecord

_LAST = 20
_LAST_LIVE = 1000
_STDOUT = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("file", metavar="FILE", nargs="?", help="a file that `weir run --record FILE` writes")
    source.add_argument("--state", metavar="DIR", help="the state directory of a run")
    source.add_argument("--name", metavar="NAME", help="the name of a run that has no state directory")
    source.add_argument("--pod", metavar="NAME", help="a pod (without any source: all captured pods of the namespace)")
    source.add_argument("-l", "--selector", metavar="LABELS", help="the pods with these labels, such as app=web")
    kubectl.add_arguments(parser)
    parser.add_argument(
        "--filter",
        type=_filter,
        default=Filter(),
        metavar="EXPR",
        help="only such as 'host:*.example.com status:>=400'",
    )
    parser.add_argument(
        "--last", type=_count, metavar="N",
        help=f"how many to show (default: {_LAST}; --live: {_LAST_LIVE}; --har, --curl and --otlp: all)",
    )  # fmt: skip
    what = parser.add_mutually_exclusive_group()
    what.add_argument("-f", "--follow", action="store_true", help="go on with those that come")
    what.add_argument("--live", action="store_true", help="on the full screen, with those that come")
    what.add_argument("--har", metavar="FILE", help="write the requests as an HTTP Archive (-: to standard output)")
    what.add_argument("--curl", type=_id, metavar="ID", help="print the curl command that repeats a request")
    parser.add_argument(
        "--otlp", metavar="URL", help="send the requests as spans to a collector; with -f those that come"
    )
    parser.add_argument("-o", dest="output", choices=("table", "json"), default="table", help="default: table")


def run(args: argparse.Namespace) -> int:
    """Do what was asked. Status 1: the records cannot be had, some lines are not records, or there is no such request."""
    try:
        with ExitStack() as stack:
            return _run(args, _source(args), stack)
    except (ControlError, KubectlError, ExportError) as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        return 0  # how following ends
    except BrokenPipeError:
        # The reader has seen enough. What is left in the buffer must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _source(args: argparse.Namespace) -> Source:
    if args.file is not None:
        return File(args.file)
    if args.state is not None or args.name is not None:
        return Run(args.state, args.name)
    return Pods(kubectl.from_arguments(args), args.pod, args.selector)


def _run(args: argparse.Namespace, source: Source, stack: ExitStack) -> int:
    if args.otlp is not None:
        return _send(args, source, stack)
    if args.live:
        return _live(source, args)
    found = _found(args, source, stack)
    if args.har is not None:
        return _archive(found, args.har)
    return _repeat(found, args.curl) if args.curl is not None else _print(found, source, args)


def _found(args: argparse.Namespace, source: Source, stack: ExitStack) -> Iterator[Told | Unreadable]:
    """The records that are asked for."""
    exported = any(one is not None for one in (args.har, args.curl, args.otlp))
    if args.follow:
        last = args.last if args.last is not None else 0 if exported else _LAST
        return _matching(_read(lines(source, last, stack, follow=True)), args.filter)
    # A filter looks at all there is, so that N of what it lets through are shown.
    everything = bool(args.filter.terms) or exported
    wanted = args.last if args.last is not None or everything else _LAST
    found = _read(lines(source, None if everything else wanted, stack, follow=False))
    if everything or args.output == "table":
        found = table.grouped(found)
    chosen = _matching(found, args.filter)
    return iter(deque(chosen, maxlen=wanted)) if everything and wanted is not None else chosen


def _live(source: Source, args: argparse.Namespace) -> int:
    try:
        from weir_cli.flows import live  # noqa: PLC0415 - curses is not in every Python, and only this needs it
    except ImportError as error:
        return _failed(f"--live needs Python's curses module: {error}")
    try:
        live.show(source, _LAST_LIVE if args.last is None else args.last, args.filter)
    except live.TerminalError as error:
        return _failed(str(error))
    return 0


def _read(found: Iterable[Line]) -> Iterator[Told | Unreadable]:
    """What the lines say; what they say of capture is told at once, beside the records."""
    for line in found:
        if (told := capture_told(line)) is None:
            yield read(line)
        else:
            print(f"weir flows: {told}", file=sys.stderr)


def _matching(found: Iterable[Told | Unreadable], wanted: Filter) -> Iterator[Told | Unreadable]:
    """What the filter lets through; what is no record is told in any case."""
    return (one for one in found if isinstance(one, Unreadable) or wanted.matches(one))


def _print(found: Iterable[Told | Unreadable], source: Source, args: argparse.Namespace) -> int:
    layout = table.printed(pods=isinstance(source, Pods) and source.several)
    if args.output == "table":
        print(table.head(layout), flush=True)
    status = 0
    for told in found:
        if isinstance(told, Unreadable):
            status = _unreadable(told)
        else:
            print(_as_json(told.line) if args.output == "json" else table.row(told, layout), flush=True)
    return status


def _archive(found: Iterable[Told | Unreadable], path: str) -> int:
    archive = har.Archive()
    status = 0
    for one in found:
        if isinstance(one, Unreadable):
            status = _unreadable(one)
        else:
            archive.add(one)
    if path == _STDOUT:
        sys.stdout.writelines(archive.pieces())
        sys.stdout.flush()
        return status
    try:
        # Bodies and header fields may be in it, which are not everybody's.
        Path(path).touch(mode=0o600)
        with Path(path).open("w", encoding="ascii") as file:
            file.writelines(archive.pieces())
    except OSError as error:
        return _failed(f"{path}: {error.strerror}")
    words = "" if archive else "; only flows that are intercepted have any"
    print(f"{path}: {len(archive)} requests{words}", file=sys.stderr)
    return status


def _send(args: argparse.Namespace, source: Source, stack: ExitStack) -> int:
    if args.live or args.har is not None or args.curl is not None:
        return _failed("--otlp goes with -f, and not with --live, --har or --curl")
    try:
        from weir_cli.flows import otlp  # noqa: PLC0415 - of an extra, and slow to import
    except ImportError as error:
        return _failed(f"--otlp needs the extra otel: pip install 'weir[otel]' ({error})")
    sources = otlp.Sources(lambda pod: _resource(source, pod))
    sender = otlp.Sender(args.otlp, _failed, patient=args.follow)
    status = unwanted = 0
    try:
        for one in _found(args, source, stack):
            if isinstance(one, Unreadable):
                status = _unreadable(one)
            elif isinstance(one.record, RequestRecord):
                if is_wanted(one.record):
                    sender.put(span(one.record, one.flow), sources.of(one.line.pod))
                else:
                    unwanted += 1
    finally:
        sender.close()
        words = f", {sender.lost} lost" if sender.lost else ""
        words += f", {unwanted} not wanted: their traces are not sampled" if unwanted else ""
        print(f"{args.otlp}: {sender.sent} spans sent{words}", file=sys.stderr)
    return status if sender.why is None else _failed(sender.why)


def _resource(source: Source, pod: str | None) -> dict[str, str]:
    """What is known of where records come from: a pod, a named run, or nothing."""
    if isinstance(source, Pods) and pod is not None:
        return services.attributes(source.kubectl, pod, _failed)
    return {"service.name": source.name} if isinstance(source, Run) and source.name else {}


def _repeat(found: Iterable[Told | Unreadable], name: ids.Name) -> int:
    meant: list[Told] = []
    for one in found:
        if isinstance(one, Unreadable):
            _unreadable(one)
        elif name.means(one.flow_id):
            meant.append(one)
    requests = [
        one for one in meant if isinstance(one.record, RequestRecord) and name.request in (None, one.record.number)
    ]
    if len(requests) != 1:
        return _failed(_which(name, meant, requests))
    made = curl.command(requests[0])
    print(made.text)
    if made.missing:
        print(
            f"weir flows: not recorded, so put in what you need: {printable(', '.join(made.missing))}", file=sys.stderr
        )
    return 0


def _which(name: ids.Name, meant: list[Told], requests: list[Told]) -> str:
    """Why a name does not mean one request."""
    if requests:
        flows = {one.flow_id for one in requests}
        of = [
            ids.name(one.record) if len(flows) == 1 else f"{one.flow_id}/{one.record.number}"
            for one in requests
            if isinstance(one.record, RequestRecord)
        ]
        return f"{name} may be any of {', '.join(of[:20])}{' …' if len(of) > 20 else ''}"
    if meant:
        return f"{name}: the flow is there, and no such request in it: {meant[0].record.decision}"
    return f"{name}: there is no such flow among the records; the column ID of the table has those there are"


def _unreadable(line: Unreadable) -> int:
    return _failed(f"not a flow record: {line.why}: {line.line.record[:80]!r}")


def _failed(why: str) -> int:
    print(f"weir flows: {printable(why)}", file=sys.stderr)
    return 1


def _as_json(line: Line) -> str:
    """In ASCII: JSON leaves some characters as they are that would steer a terminal."""
    pod = {} if line.pod is None else {"pod": line.pod}
    return json.dumps(pod | json.loads(line.record))


def _filter(text: str) -> Filter:
    try:
        return parse(text)
    except FilterError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _id(text: str) -> ids.Name:
    found = ids.parse(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected an ID as the table has it, such as 3f0a-1c/2")
    return found


def _count(text: str) -> int:
    count = int(text)
    if count < 0:
        raise argparse.ArgumentTypeError(f"{count} is less than 0")
    return count
