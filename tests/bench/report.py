"""What was measured, as values: medians, aims, and the report that is written as JSON."""

from statistics import median

import msgspec

from .load import Outcome, Work
from .procs import Memory


class Sample(msgspec.Struct, frozen=True):
    """One measurement. `cpu_us` is the proxy's CPU for one unit; None where there is no proxy."""

    outcome: Outcome
    cpu_us: float | None = None
    opens: float | None = None
    """TCP connections opened in the client's namespace, the proxy's with it, for each unit."""


class Cell(msgspec.Struct, frozen=True):
    """The medians of all samples of one work, and the samples."""

    rate: float
    cpu_us: float | None
    p50_us: float | None
    p99_us: float | None
    failed: int
    samples: tuple[Sample, ...]


class Subject(msgspec.Struct, frozen=True):
    """One of the compared. Memory in MiB: `idle` before any flow, `loaded` after the intercepted work."""

    name: str
    version: str
    works: dict[Work, Cell]
    idle: Memory | None = None
    loaded: Memory | None = None
    ready_seconds: float | None = None


class Machine(msgspec.Struct, frozen=True):
    """Where it was measured."""

    kernel: str
    processor: str
    cores: int
    proxy_core: int
    load_core: int
    load_average: tuple[float, float, float]
    """At the start: above 0.5 something else was using the machine, and rates say less than ratios."""


class Report(msgspec.Struct, frozen=True):
    """One run of the bench."""

    started: str
    machine: Machine
    quick: bool
    bulk_mib: int
    subjects: tuple[Subject, ...]
    missing: tuple[str, ...]
    problems: tuple[str, ...]

    def subject(self, name: str) -> Subject | None:
        """The one of that name."""
        return next((subject for subject in self.subjects if subject.name == name), None)


class Aim(msgspec.Struct, frozen=True):
    """A figure that Weir is to reach. `limit` is an upper bound, or a lower one when `at_least`."""

    what: str
    unit: str
    limit: float
    measured: float | None
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """None: not measured."""
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def cell(samples: list[Sample]) -> Cell:
    """Medians, each figure by itself."""

    def middle(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return median(known) if known else None

    return Cell(
        rate=median(sample.outcome.rate for sample in samples),
        cpu_us=middle([sample.cpu_us for sample in samples]),
        p50_us=middle([sample.outcome.p50 for sample in samples]),
        p99_us=middle([sample.outcome.p99 for sample in samples]),
        failed=sum(sample.outcome.failed for sample in samples),
        samples=tuple(samples),
    )


def aims(weir: Subject, unread: Subject | None = None) -> tuple[Aim, ...]:
    """The aims, with what was measured. CPU is the proxy's, on this machine on this day. `unread`: Weir reading no HTTP."""

    def cpu(work: Work, scale: float = 1.0) -> float | None:
        found = weir.works.get(work)
        return None if found is None or found.cpu_us is None else found.cpu_us / scale

    def over_unread(work: Work) -> float | None:
        read = cpu(work)
        found = None if unread is None else unread.works.get(work)
        return None if read is None or found is None or not found.cpu_us else read / found.cpu_us

    http2 = weir.works.get(Work.HTTP2)
    return (
        Aim("intercepted keep-alive request, read and recorded", "µs", 45, cpu(Work.KEEPALIVE)),
        Aim("the same, each with another head", "µs", 45, cpu(Work.VARIED)),
        Aim("new intercepted connection", "µs", 800, cpu(Work.NEW)),
        Aim("HTTP/2 request", "µs", 50, cpu(Work.HTTP2)),
        Aim("HTTP/2 requests", "/s", 18_000, http2.rate if http2 else None, at_least=True),
        Aim("passthrough connection, at first", "µs", 200, cpu(Work.PASS_NEW)),
        Aim("passthrough connection, in the end", "µs", 110, cpu(Work.PASS_NEW)),
        Aim("intercepted bulk", "s/GiB", 3.5, cpu(Work.BULK, 1e6)),
        Aim("HTTP/1.1 bulk over the same unread", "times", 1.1, over_unread(Work.BULK)),
        Aim("HTTP/2 bulk over the same unread", "times", 1.1, over_unread(Work.HTTP2_BULK)),
        Aim("bulk without TLS over the same unread", "times", 1.1, over_unread(Work.PLAIN_BULK)),
        Aim("spliced bulk", "s/GiB", 0.75, cpu(Work.PASS_BULK, 1e6)),
        Aim("DNS query", "µs", 40, cpu(Work.DNS)),
        Aim("idle memory (PSS)", "MiB", 35, weir.idle.pss if weir.idle else None),
        Aim("ready after start", "s", 0.5, weir.ready_seconds),
    )


def ratio(report: Report, name: str, work: Work) -> float | None:
    """Weir's CPU for a unit over that of a peer: below 1 Weir takes less. None without both."""
    weir, peer = report.subject("weir"), report.subject(name)
    mine = weir.works.get(work) if weir else None
    theirs = peer.works.get(work) if peer else None
    if not mine or not theirs or mine.cpu_us is None or not theirs.cpu_us:
        return None
    return mine.cpu_us / theirs.cpu_us
