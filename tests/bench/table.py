"""The report as Markdown tables, for the terminal and for docs/benchmarks.md."""

from collections.abc import Iterable

from .load import Work
from .procs import Memory
from .report import Aim, Report, aims, ratio

_TITLES = {
    Work.KEEPALIVE: "Intercepted, keep-alive: 1 KiB over HTTPS, HTTP/1.1, 32 connections",
    Work.VARIED: "Intercepted, keep-alive, each request with another head: 1 KiB over HTTPS, HTTP/1.1, 32 connections",
    Work.NEW: "Intercepted, a new TLS connection for each request, 32 at a time",
    Work.HTTP2: "Intercepted, HTTP/2: 8 connections of 16 streams",
    Work.BULK: "Intercepted, one large download over HTTP/1.1",
    Work.HTTP2_BULK: "Intercepted, one large download over HTTP/2",
    Work.PLAIN_BULK: "Read without TLS, one large download over HTTP/1.1",
    Work.PASS_NEW: "Passed through, a new TLS connection for each request, 32 at a time",
    Work.PASS_BULK: "Passed through, one large download",
    Work.DNS: "DNS over UDP: 100 queries outstanding",
}
_BULK = (Work.BULK, Work.HTTP2_BULK, Work.PLAIN_BULK, Work.PASS_BULK)


def render(report: Report) -> str:
    """All tables, with what is missing and what went wrong."""
    parts = [
        _where(report),
        "; ".join(subject.version for subject in report.subjects if subject.name != "direct"),
    ]
    parts += [_work(report, work) for work in Work if any(work in subject.works for subject in report.subjects)]
    parts.append(_memory(report))
    weir = report.subject("weir")
    if weir:
        parts.append(_aims(aims(weir, report.subject("weir-unread"))))
    parts += [f"Not measured: {text}" for text in report.missing]
    parts += [f"Problem: {text}" for text in report.problems]
    return "\n\n".join(part for part in parts if part) + "\n"


def _where(report: Report) -> str:
    machine = report.machine
    return (
        f"{report.started}, Linux {machine.kernel}, {machine.processor}, {machine.cores} cores; proxy on core "
        f"{machine.proxy_core}, client and origin on core {machine.load_core}; load average at the start "
        f"{machine.load_average[0]:.2f}{'; quick: one short pass' if report.quick else ''}"
    )


def _work(report: Report, work: Work) -> str:
    bulk = work in _BULK
    head = (
        "",
        "MiB/s" if bulk else "/s",
        "p50 ms",
        "p99 ms",
        "CPU s/GiB" if bulk else "CPU µs",
        "Weir's CPU ÷ this",
        "failed",
    )
    rows = []
    for subject in report.subjects:
        cell = subject.works.get(work)
        if cell:
            cpu = None if cell.cpu_us is None else cell.cpu_us / (1e6 if bulk else 1)
            share = ratio(report, subject.name, work) if subject.name != "weir" else None
            rows.append(
                (
                    subject.name,
                    f"{cell.rate:,.0f}",
                    _number(cell.p50_us and cell.p50_us / 1000, 2),
                    _number(cell.p99_us and cell.p99_us / 1000, 2),
                    _number(cpu, 2 if bulk else 1),
                    _number(share, 2),
                    str(cell.failed),
                )
            )
    return f"**{_TITLES[work]}**\n\n{_markdown(head, rows)}"


def _memory(report: Report) -> str:
    rows = [
        (subject.name, _mib(subject.idle), _mib(subject.loaded), _number(subject.ready_seconds, 2))
        for subject in report.subjects
        if subject.idle
    ]
    head = ("", "idle PSS (RSS) MiB", "after the work", "ready after s")
    return f"**Memory**\n\n{_markdown(head, rows)}" if rows else ""


def _aims(chosen: tuple[Aim, ...]) -> str:
    words = {True: "yes", False: "no", None: "not measured"}
    rows = [
        (
            aim.what,
            f"{'≥' if aim.at_least else '≤'} {aim.limit:,g} {aim.unit}",
            _number(aim.measured, 2 if aim.limit < 10 else 1),
            words[aim.met],
        )
        for aim in chosen
    ]
    return f"**Aims**\n\n{_markdown(('Weir', 'aim', 'measured', 'met'), rows)}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _mib(memory: Memory | None) -> str:
    return "" if memory is None else f"{memory.pss:.1f} ({memory.rss:.1f})"


def _markdown(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Columns padded, so that it reads as well in a terminal."""
    rows = list(rows)
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(row: tuple[str, ...]) -> str:
        fields = [
            row[0].ljust(widths[0]),
            *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)),
        ]
        return f"| {' | '.join(fields)} |"

    rule = f"|{'-' * (widths[0] + 2)}|" + "".join(f"{'-' * (width + 1)}:|" for width in widths[1:])
    return "\n".join((line(head), rule, *(line(row) for row in rows)))
