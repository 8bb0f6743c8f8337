"""`weir flows`: the last records of flows and of the requests in them, and with --follow those that come.

From pods, a sidecar of a run, or a file.
"""

import argparse
import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import msgspec

from weir_cli.cluster import kubectl
from weir_cli.cluster.kubectl import KubectlError
from weir_cli.cluster.records import Line, records
from weir_cli.control import Control, ControlError, state_directory
from weir_cli.text import printable
from weir_sidecar.contract.flow import FlowRecord
from weir_sidecar.contract.request import IS_REQUEST, RequestRecord

_POLL = 0.2
_HEAD = ("TIME", "CLIENT", "PROTO", "DESTINATION", "DECISION", "REASON", "UP", "DOWN", "MS")
_ROW = "{:12}  {:>15}  {:5}  {:44}  {:11}  {:28}  {:>6}  {:>6}  {:>9}"
_POD = "{:32}  "
_KIB = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("file", metavar="FILE", nargs="?", help="a file that `weir run --record FILE` writes")
    source.add_argument("--state", metavar="DIR", help="the state directory of a run")
    source.add_argument("--name", metavar="NAME", help="the name of a run that has no state directory")
    source.add_argument("--pod", metavar="NAME", help="a pod (without any source: all captured pods of the namespace)")
    source.add_argument("-l", "--selector", metavar="LABELS", help="the pods with these labels, such as app=web")
    kubectl.add_arguments(parser)
    parser.add_argument("--last", type=_count, default=20, metavar="N", help="how many to show (default: 20)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with those that come")
    parser.add_argument("-o", dest="output", choices=("table", "json"), default="table", help="default: table")


def run(args: argparse.Namespace) -> int:
    """Print the records. Status 1: they cannot be had, or some lines are not records."""
    try:
        with ExitStack() as stack:
            return _show(_lines(args, stack), args.output, pods=_of_cluster(args), follow=args.follow)
    except (ControlError, KubectlError) as error:
        print(f"weir flows: {printable(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0  # how following ends
    except BrokenPipeError:
        # The reader has seen enough. What is left in the buffer must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _of_cluster(args: argparse.Namespace) -> bool:
    return args.file is None and args.state is None and args.name is None


def _lines(args: argparse.Namespace, stack: ExitStack) -> Iterator[Line]:
    if _of_cluster(args):
        return records(kubectl.from_arguments(args), args.pod, args.selector, args.last, follow=args.follow)
    if args.file is not None:
        return map(Line, _from_file(args, stack))
    control = stack.enter_context(Control(state_directory(args.state, args.name)))
    return map(Line, control.lines(f"/flows?last={args.last}{'&follow=1' if args.follow else ''}"))


def _from_file(args: argparse.Namespace, stack: ExitStack) -> Iterator[bytes]:
    try:
        file = stack.enter_context(Path(args.file).open("rb"))  # noqa: SIM115 - the stack closes it
    except OSError as error:
        raise ControlError(f"{args.file}: {error.strerror}") from error
    return _tail(file, args.last, follow=args.follow)


def _tail(file: BinaryIO, last: int, *, follow: bool) -> Iterator[bytes]:
    """The last lines of a file, and with `follow` what is appended to it, for ever."""
    lines = deque(file, maxlen=last + 1)
    # A line without its end is still being written.
    unfinished = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
    yield from list(lines)[-last:] if last else ()
    while follow:
        unfinished += file.readline()
        if unfinished.endswith(b"\n"):
            yield unfinished
            unfinished = b""
        else:
            time.sleep(_POLL)


def _show(lines: Iterator[Line], output: str, *, pods: bool, follow: bool) -> int:
    if output == "table":
        print((_POD.format("POD") if pods else "") + _ROW.format(*_HEAD).rstrip(), flush=True)
    status = 0
    told: Iterable[_Told] = map(_read, lines)
    for line, record in told if follow or output == "json" else _grouped(told):
        if isinstance(record, str):
            print(f"weir flows: not a flow record: {record}: {line.record[:80]!r}", file=sys.stderr)
            status = 1
        else:
            print(_as_json(line) if output == "json" else row(record, line.pod), flush=True)
    return status


type _Record = FlowRecord | RequestRecord
type _Told = tuple[Line, _Record | str]
"""A line and its record, or why it is none."""

_flow_decoder = msgspec.json.Decoder(FlowRecord)
_request_decoder = msgspec.json.Decoder(RequestRecord)


def _read(line: Line) -> _Told:
    decoder: msgspec.json.Decoder[FlowRecord] | msgspec.json.Decoder[RequestRecord] = _flow_decoder
    if line.record.startswith(IS_REQUEST):
        decoder = _request_decoder
    try:
        return line, decoder.decode(line.record)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return line, str(error)


def _grouped(told: Iterable[_Told]) -> Iterator[_Told]:
    """Requests after their flow, whose record comes when all of them have ended; those of open flows come last."""
    waiting: dict[str, list[_Told]] = {}
    for one in told:
        record = one[1]
        if isinstance(record, RequestRecord):
            waiting.setdefault(record.flow, []).append(one)
        else:
            yield one
            if isinstance(record, FlowRecord):
                yield from waiting.pop(record.id, ())
    for requests in waiting.values():
        yield from requests


def _as_json(line: Line) -> str:
    """In ASCII: JSON leaves some characters as they are that would steer a terminal."""
    pod = {} if line.pod is None else {"pod": line.pod}
    return json.dumps(pod | json.loads(line.record))


def row(record: _Record, pod: str | None = None) -> str:
    """A record as one line of the table."""
    text = _ROW.format(*map(printable, _cells(record)))
    if pod is not None:
        text = _POD.format(printable(pod)) + text
    return f"{text}  {printable(record.error)}" if record.error else text


def _cells(record: _Record) -> tuple[str, ...]:
    time = record.time.partition("T")[2].rstrip("Z")[:12]
    rule = f" ({record.rule})" if record.rule else ""
    if isinstance(record, RequestRecord):
        return (
            time,
            "",
            f"#{record.number}",
            f"{record.method} {record.host or ''}{record.path}",
            record.decision,
            f"{record.status or 'no answer'}{rule}",
            amount(record.request_bytes),
            amount(record.response_bytes),
            f"{record.duration_ms:.1f}",
        )
    address = f"[{record.address}]" if ":" in record.address else record.address
    client = record.client
    return (
        time,
        f"uid {client.uid}" if client.uid is not None else client.address or "?",
        record.protocol,
        f"{record.host or address}:{record.port}",
        record.decision,
        f"{record.reason}{rule}",
        amount(record.bytes_up),
        amount(record.bytes_down),
        f"{record.duration_ms:.1f}",
    )


def amount(count: float) -> str:
    """Bytes in at most six characters."""
    for unit in ("", "K", "M", "G"):
        if count < 10 * _KIB or unit == "G":
            return f"{count:.0f}{unit}"
        count /= _KIB
    raise AssertionError


def _count(text: str) -> int:
    count = int(text)
    if count < 0:
        raise argparse.ArgumentTypeError(f"{count} is less than 0")
    return count
