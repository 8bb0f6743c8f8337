"""What the serving process counts, and its text for Prometheus (exposition format 0.0.4).

Label values are enumerated words, never names: the number of series is bounded.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator

DURATION_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds in seconds: an admission is given up after five."""


class Counter:
    """How often something happened, by the values of its labels."""

    def __init__(self, name: str, text: str, *labels: str) -> None:
        self.name = name
        self.text = text
        self.kind = "counter"
        self._labels = labels
        self._counts: dict[tuple[str, ...], int] = {} if labels else {(): 0}

    def add(self, *values: str, amount: int = 1) -> None:
        """Count; one value for each label."""
        self._counts[values] = self._counts.get(values, 0) + amount

    def value(self, *values: str) -> int:
        """The count so far."""
        return self._counts.get(values, 0)

    def lines(self) -> Iterator[str]:
        """Its samples."""
        for values, count in sorted(self._counts.items()):
            pairs = ",".join(f'{label}="{value}"' for label, value in zip(self._labels, values, strict=True))
            yield f"{self.name}{{{pairs}}} {count}" if pairs else f"{self.name} {count}"


class Gauge:
    """A value that is asked for when it is told."""

    def __init__(self, name: str, text: str, ask: Callable[[], float]) -> None:
        self.name = name
        self.text = text
        self.kind = "gauge"
        self._ask = ask

    def lines(self) -> Iterator[str]:
        """Its sample."""
        yield f"{self.name} {self._ask():g}"


class Histogram:
    """Durations in seconds."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.kind = "histogram"
        self._buckets = [0] * (len(DURATION_BUCKETS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Take one duration."""
        self._buckets[bisect_left(DURATION_BUCKETS, seconds)] += 1
        self._sum += seconds

    def lines(self) -> Iterator[str]:
        """Its samples."""
        below = 0
        for bound, count in zip((*DURATION_BUCKETS, "+Inf"), self._buckets, strict=True):
            below += count
            yield f'{self.name}_bucket{{le="{bound}"}} {below}'
        yield f"{self.name}_sum {self._sum:.9g}"
        yield f"{self.name}_count {below}"


class Metrics:
    """The metrics of one serving process. Attributes are counted where things happen; `render` writes them all."""

    def __init__(self) -> None:
        self.admissions = Counter(
            "weir_admissions_total", "Admission requests answered, by webhook and result.", "webhook", "result"
        )
        self.admission_seconds = Histogram("weir_admission_duration_seconds", "Time to answer an admission request.")
        self.refusals = Counter("weir_stream_refusals_total", "Config streams refused or ended, by cause.", "cause")
        self.opened = Counter("weir_streams_opened_total", "Config streams opened.")
        self.configs_sent = Counter("weir_configs_sent_total", "Configs sent to running sidecars.")
        self.exceptions_sent = Counter("weir_exceptions_sent_total", "Sets of trust exceptions sent to sidecars.")
        self.applied = Counter("weir_configs_applied_total", "Answers of sidecars to a config, by result.", "result")
        self.reports = Counter("weir_trust_reports_total", "Trust entries that sidecars told.")
        self.unreadable = Counter(
            "weir_stream_messages_unreadable_total", "Messages of sidecars that are of no known form."
        )
        self.token_reviews = Counter(
            "weir_token_reviews_total", "Tokens reviewed by the API server, by result.", "result"
        )
        self.exception_writes = Counter(
            "weir_trust_exception_writes_total", "Writes of TrustExceptions, by result.", "result"
        )
        self.exceptions_dropped = Counter(
            "weir_trust_reports_dropped_total", "Trust entries of which no TrustException was made, by cause.", "cause"
        )
        self._gauges: list[Gauge] = []

    def gauge(self, name: str, text: str, ask: Callable[[], float]) -> None:
        """Add a value that is asked for at each `render`."""
        self._gauges.append(Gauge(name, text, ask))

    def render(self) -> bytes:
        """All metrics as text."""
        lines: list[str] = []
        families = [one for one in vars(self).values() if isinstance(one, Counter | Histogram)]
        for family in (*families, *self._gauges):
            lines += (f"# HELP {family.name} {family.text}", f"# TYPE {family.name} {family.kind}", *family.lines())
        return ("\n".join(lines) + "\n").encode()
