"""Starts one of the compared, gives it the work, and takes the figures."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from . import load, procs, varied
from .load import Outcome, Work
from .peers import MODE, Mode, Peer
from .report import Cell, Sample, Subject, cell
from .site import CLIENT, HOST, ORIGIN_CA, Site, SiteError, run
from .weir import VERSION
from .weir import start as start_weir

_SAMPLER = Path(__file__).with_name("sample.py")
_SETTLE = 1.0
_NEW = (Work.NEW, Work.PASS_NEW)


class Effort(msgspec.Struct, frozen=True):
    """How much: `passes` measurements of each work, `seconds` each, `connections` timed one by one."""

    passes: int
    seconds: float
    connections: int


class _Seen(msgspec.Struct, frozen=True):
    """What sample.py prints."""

    times: list[int]
    issuer: str
    resumed: int


class Started(msgspec.Struct, frozen=True):
    """A proxy that serves; no process is the direct way."""

    process: subprocess.Popen[bytes] | None = None
    ready_seconds: float | None = None


class Contestant(msgspec.Struct, frozen=True):
    """Who is measured: how to start it in a mode, and what it can do."""

    name: str
    version: str
    works: frozenset[Work]
    start: Callable[[Site, Mode], Started]


def direct() -> Contestant:
    """No proxy at all: what the client and the origin can do on their core."""
    works = frozenset(work for work in Work if MODE[work] is not Mode.PASSTHROUGH)
    return Contestant("direct", "no proxy", works, lambda _site, _mode: Started())


def weir() -> Contestant:
    """The product."""
    return Contestant("weir", VERSION, frozenset(Work), lambda site, mode: Started(*start_weir(site, mode)))


def unread() -> Contestant:
    """The product without its reading of HTTP: what bulk is compared with."""
    works = frozenset({Work.KEEPALIVE, Work.HTTP2, Work.BULK, Work.HTTP2_BULK, Work.PLAIN_BULK})
    return Contestant(
        "weir-unread",
        f"{VERSION} that reads no HTTP",
        works,
        lambda site, mode: Started(*start_weir(site, mode, module="tests.bench.unread")),
    )


def peer(chosen: Peer, version: str) -> Contestant:
    """One of the others."""
    return Contestant(chosen.name, version, chosen.works, lambda site, mode: Started(chosen.start(site, mode)))


def measure(site: Site, who: Contestant, works: set[Work], effort: Effort, problems: list[str]) -> Subject:
    """All the work that it can do. What goes wrong is told in `problems`, and the rest goes on."""
    cells: dict[Work, Cell] = {}
    first: Subject | None = None
    for mode in Mode:
        chosen = [work for work in Work if MODE[work] is mode and work in works & who.works]
        if not chosen:
            continue
        try:
            with _running(site, who, mode) as started:
                idle = _memory(started)
                for work in chosen:
                    say(f"{who.name}: {work}")
                    cells[work] = _work(site, who, work, started, effort)
                loaded = _memory(started)
        except (SiteError, load.LoadError, ValueError) as problem:
            problems.append(f"{who.name}, {mode}: {problem}")
            continue
        first = first or Subject(who.name, who.version, {}, idle, loaded, started.ready_seconds)
    problems += [f"{who.name}, {work}: {found.failed} failed" for work, found in cells.items() if found.failed]
    first = first or Subject(who.name, who.version, {})
    return msgspec.structs.replace(first, works=cells)


def say(text: str) -> None:
    """Progress, for the person who waits."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


@contextmanager
def _running(site: Site, who: Contestant, mode: Mode) -> Iterator[Started]:
    """Started in a fresh namespace, and checked to do what its mode says."""
    site.renew_client()
    started = Started()
    try:
        started = who.start(site, mode)
        if mode in {Mode.INTERCEPT, Mode.PASSTHROUGH}:
            _check(site, who, mode)
        if started.process:
            time.sleep(_SETTLE)
        yield started
    finally:
        site.remove_client()
        if started.process:
            started.process.wait()


def _check(site: Site, who: Contestant, mode: Mode) -> None:
    """The certificate that the client is shown tells whether the flow was intercepted. No session may be resumed."""
    seen = _sample(site, 2)
    wanted = mode is Mode.INTERCEPT and who.name != "direct"
    if (seen.issuer != ORIGIN_CA) is not wanted:
        state = "intercepted" if wanted else "untouched"
        raise SiteError(f"expected the flow to be {state}; its certificate is by {seen.issuer!r}")
    if seen.resumed:
        raise SiteError("it resumes TLS sessions, so that new connections are not comparable")


def _memory(started: Started) -> procs.Memory | None:
    return procs.memory(started.process.pid) if started.process else None


def _work(site: Site, who: Contestant, work: Work, started: Started, effort: Effort) -> Cell:
    samples = [_once(site, work, started, effort) for _ in range(effort.passes)]
    found = cell(samples)
    opens = min(sample.opens or 0 for sample in samples)
    if work in _NEW and opens < 0.95:
        raise SiteError(f"{who.name}, {work}: {opens:.2f} connections a request; each request needs its own")
    return found


def _once(site: Site, work: Work, started: Started, effort: Effort) -> Sample:
    pid = started.process.pid if started.process else None
    opened = _opened()
    before = procs.cpu_us(pid) if pid else 0.0
    read = _GENERATORS[work](site, work, effort)
    after = procs.cpu_us(pid) if pid else 0.0
    opened = _opened() - opened
    outcome = read()
    if pid and after <= before:
        raise SiteError(f"{work}: it did not pass the proxy, which took no CPU")
    if outcome.units <= 0:
        raise SiteError(f"{work}: nothing succeeded, {outcome.failed} failed")
    return Sample(outcome, (after - before) / outcome.units if pid else None, opened / outcome.units)


def _http(site: Site, work: Work, effort: Effort) -> Callable[[], Outcome]:
    log = site.dir / "h2load.log"
    log.unlink(missing_ok=True)
    out = site.client(load.h2load_argv(work, effort.seconds, str(log)))

    def read() -> Outcome:
        with log.open(encoding="ascii") as lines:
            return load.h2load(out, lines)

    return read


def _new(site: Site, work: Work, effort: Effort) -> Callable[[], Outcome]:
    del work
    out = site.client(load.wrk_argv(effort.seconds))
    return lambda: load.wrk(out, _sample(site, effort.connections).times)


def _varied(site: Site, work: Work, effort: Effort) -> Callable[[], Outcome]:
    del work
    out = site.client(load.wrk_varied_argv(effort.seconds, str(site.path("varied.lua", varied.script()))))
    return lambda: load.wrk_keepalive(out)


def _bulk(site: Site, work: Work, effort: Effort) -> Callable[[], Outcome]:
    del effort
    out = site.client(load.curl_argv(work))
    return lambda: load.curl(out)


def _dns(site: Site, work: Work, effort: Effort) -> Callable[[], Outcome]:
    del work
    names = site.path("queries", "".join(f"host{number}.bench.test A\n" for number in range(1000)))
    out = site.client(load.dnsperf_argv(effort.seconds, str(names)))
    # Telling about each query takes the client's time, so latencies have a short run of their own, at a tenth of the rate.
    return lambda: load.dnsperf(out, site.client([*load.dnsperf_argv(1, str(names)), "-v", "-Q", "2000"]))


_GENERATORS = {
    Work.KEEPALIVE: _http,
    Work.HTTP2: _http,
    Work.NEW: _new,
    Work.PASS_NEW: _new,
    Work.VARIED: _varied,
    Work.BULK: _bulk,
    Work.HTTP2_BULK: _bulk,
    Work.PLAIN_BULK: _bulk,
    Work.PASS_BULK: _bulk,
    Work.DNS: _dns,
}


def _sample(site: Site, count: int) -> _Seen:
    return msgspec.json.decode(site.client([sys.executable, str(_SAMPLER), HOST, str(count)]), type=_Seen)


def _opened() -> int:
    """TCP connections opened so far in the client's namespace (RFC 4022, tcpActiveOpens)."""
    names, numbers = [
        line.split()
        for line in run("ip", "netns", "exec", CLIENT, "cat", "/proc/net/snmp").splitlines()
        if line.startswith("Tcp:")
    ]
    return int(numbers[names.index("ActiveOpens")])
