"""Medians, aims and ratios are taken as docs/benchmarks.md says, and the tables say what was not measured."""

import msgspec
import pytest

from bench.load import Outcome, Work
from bench.procs import Memory
from bench.report import Machine, Report, Sample, Subject, aims, cell, ratio
from bench.table import render

MACHINE = Machine("6.1", "a processor", 2, 0, 1, (0.1, 0.2, 0.3))


def sample(rate: float, cpu_us: float | None, failed: int = 0) -> Sample:
    return Sample(Outcome(units=100, rate=rate, failed=failed, p50=rate, p99=None), cpu_us)


def subject(name: str, works: dict[Work, float | None], **facts: object) -> Subject:
    cells = {work: cell([sample(1000, cpu)]) for work, cpu in works.items()}
    return msgspec.structs.replace(Subject(name, f"{name} 1.0", cells), **facts)


def report(*subjects: Subject, missing: tuple[str, ...] = (), problems: tuple[str, ...] = ()) -> Report:
    return Report("2026-01-01T00:00:00+00:00", MACHINE, False, 256, subjects, missing, problems)


def test_each_figure_of_a_cell_is_a_median_and_failures_add_up():
    found = cell([sample(10, 5, 1), sample(30, 1), sample(20, 100, 2)])
    assert (found.rate, found.cpu_us, found.p50_us, found.p99_us, found.failed) == (20, 5, 20, None, 3)
    assert len(found.samples) == 3


def test_what_was_not_measured_is_neither_met_nor_missed():
    assert {aim.met for aim in aims(Subject("weir", "1", {}))} == {None}


@pytest.mark.parametrize(("cpu", "met"), [(45.0, True), (45.1, False)])
def test_cpu_aims_are_upper_bounds(cpu, met):
    found = {aim.what: aim for aim in aims(subject("weir", {Work.KEEPALIVE: cpu}))}
    assert found["intercepted keep-alive request, read and recorded"].met is met


def test_the_rate_of_http2_is_a_lower_bound():
    found = [aim for aim in aims(subject("weir", {Work.HTTP2: 10.0})) if aim.at_least]
    assert [(aim.measured, aim.met) for aim in found] == [(1000, False)]


def test_bulk_is_told_in_seconds_a_gib():
    found = {aim.what: aim for aim in aims(subject("weir", {Work.PASS_BULK: 500_000.0}))}
    assert (found["spliced bulk"].measured, found["spliced bulk"].met) == (0.5, True)


def test_what_reading_costs_is_told_over_the_same_unread():
    read, unread = subject("weir", {Work.HTTP2_BULK: 1.5e6}), subject("weir-unread", {Work.HTTP2_BULK: 1.25e6})
    found = {aim.what: aim for aim in aims(read, unread)}
    assert (found["HTTP/2 bulk over the same unread"].measured, found["HTTP/2 bulk over the same unread"].met) == (
        1.2,
        False,
    )
    assert found["HTTP/1.1 bulk over the same unread"].met is None


def test_the_ratio_is_weirs_cpu_over_the_peers():
    both = report(subject("weir", {Work.DNS: 20.0}), subject("dnsmasq", {Work.DNS: 40.0, Work.NEW: 1.0}))
    assert ratio(both, "dnsmasq", Work.DNS) == 0.5
    assert ratio(both, "dnsmasq", Work.NEW) is None
    assert ratio(both, "squid", Work.DNS) is None


def test_the_direct_way_has_no_ratio():
    assert (
        ratio(report(subject("weir", {Work.NEW: 9.0}), subject("direct", {Work.NEW: None})), "direct", Work.NEW) is None
    )


def test_the_tables_hold_figures_missing_peers_and_problems():
    weir = subject("weir", {Work.NEW: 400.0}, idle=Memory(20.5, 33.25), ready_seconds=0.25)
    text = render(report(weir, subject("squid", {Work.NEW: 800.0}), missing=("mitmproxy",), problems=("squid broke",)))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "| squid | 1,000 | 1.00 | | 800.0 | 0.50 | 0 |" in lines
    assert "| weir | 20.5 (33.2) | | 0.25 |" in lines
    assert "| new intercepted connection | ≤ 800 µs | 400.0 | yes |" in lines
    assert "| DNS query | ≤ 40 µs | | not measured |" in lines
    assert "Not measured: mitmproxy" in lines
    assert "Problem: squid broke" in lines


def test_rows_of_a_table_have_one_width():
    text = render(report(subject("weir", {Work.NEW: 400.0}), subject("a-long-name", {Work.NEW: 8.0})))
    assert all(len({len(line) for line in block.splitlines()}) == 1 for block in text.split("\n\n") if block[0] == "|")


def test_a_report_survives_json():
    first = report(subject("weir", {Work.NEW: 400.0}, idle=Memory(1, 2)))
    assert msgspec.json.decode(msgspec.json.encode(first), type=Report) == first
