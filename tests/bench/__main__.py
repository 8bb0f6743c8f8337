"""`python -m tests.bench`: measures Weir and its peers, prints tables and writes build/bench/NAME.json."""

import argparse
import os
import platform
import shutil
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import msgspec

from .load import Work
from .measure import Contestant, Effort, direct, measure, peer, say, unread, weir
from .peers import PEERS
from .report import Machine, Report
from .site import Site, SiteError, load_core, proxy_core
from .table import render

_OUT = Path(__file__).parents[2] / "build/bench"
_DEFAULT = Effort(passes=3, seconds=2, connections=60)
_QUICK = Effort(passes=1, seconds=1, connections=20)
_MIB = 1 << 20
_NEEDED = ("nginx", "h2load", "wrk", "curl", "nft", "openssl")


def main() -> int:
    """Measure. 0 when Weir was measured without a problem, 1 otherwise."""
    names = ("direct", "weir", "weir-unread", *(each.name for each in PEERS))
    parser = argparse.ArgumentParser(prog="make bench", description="Weir beside its peers, on the same work.")
    parser.add_argument("--quick", action="store_true", help="one short pass; the figures are rough")
    parser.add_argument(
        "--only", action="append", default=[], choices=(*names, *Work), help="a contestant or a work; may be repeated"
    )
    parser.add_argument(
        "--bulk", type=int, metavar="MIB", help="size of the large download (default 256; 64 with --quick)"
    )
    parser.add_argument("--name", help="of the JSON file in build/bench (default: the time)")
    args = parser.parse_args()
    works = {Work(name) for name in args.only if name in set(Work)} or set(Work)
    wanted = [name for name in args.only if name in names] or list(names)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    # Debian keeps nginx, squid and nft where not every root shell looks.
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    started = datetime.now(UTC)
    contestants, missing = _contestants(wanted, works)
    try:
        report = _run(
            contestants, missing, works, started, quick=args.quick, bulk=args.bulk or (64 if args.quick else 256)
        )
    except SiteError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("interrupted; nothing is left behind")
        return 130
    _OUT.mkdir(parents=True, exist_ok=True)
    file = _OUT / f"{args.name or started.strftime('%Y%m%dT%H%M%SZ')}.json"
    file.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    print(render(report))
    say(f"written to {file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file}")
    return 1 if any(problem.startswith("weir") for problem in report.problems) else 0


def _contestants(wanted: list[str], works: set[Work]) -> tuple[list[Contestant], list[str]]:
    """Those that are wanted and here, and a line on each that is not."""
    found = [each for each in (direct(), weir(), unread()) if each.name in wanted]
    missing = []
    for each in PEERS:
        if each.name not in wanted or not each.works & works:
            continue
        version = each.found()
        if version is None:
            missing.append(f"{each.name} is not installed; `make bench-peers` installs it")
        else:
            found.append(peer(each, version))
    return found, missing


def _run(
    contestants: list[Contestant], missing: list[str], works: set[Work], started: datetime, *, quick: bool, bulk: int
) -> Report:
    needed = [name for name in _NEEDED if shutil.which(name) is None]
    if needed:
        raise SiteError(f"not installed: {', '.join(needed)}; `make bench-peers` installs what the bench needs")
    if Work.DNS in works and not (shutil.which("dnsperf") and shutil.which("dnsmasq")):
        missing.append("DNS, because dnsperf or dnsmasq is not installed; `make bench-peers` installs them")
        works = works - {Work.DNS}
    machine = _machine()
    problems: list[str] = []
    with Site(bulk * _MIB) as site:
        subjects = [measure(site, each, works, _QUICK if quick else _DEFAULT, problems) for each in contestants]
    return Report(
        started=started.isoformat(timespec="seconds"),
        machine=machine,
        quick=quick,
        bulk_mib=bulk,
        subjects=tuple(subjects),
        missing=tuple(missing),
        problems=tuple(problems),
    )


def _machine() -> Machine:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    return Machine(
        kernel=platform.release(),
        processor=model,
        cores=len(os.sched_getaffinity(0)),
        proxy_core=proxy_core(),
        load_core=load_core(),
        load_average=os.getloadavg(),
    )


def _leave(number: int, frame: FrameType | None) -> None:
    """End as Ctrl-C does, so that what was made is removed."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
