"""The work: what each load generator is told, and what it says, as figures."""

import re
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from .site import HOST, ORIGIN_ADDRESS

_URL = f"https://{HOST}"
_GIB = 1 << 30
_WRK_LATENCY = re.compile(r"^ +(50|99)% +([\d.]+)(us|ms|s)$", re.MULTILINE)


class Work(StrEnum):
    """What is measured. A unit is a request, a connection, a GiB or a query."""

    KEEPALIVE = "keep-alive"
    VARIED = "varied-heads"
    NEW = "new-connection"
    HTTP2 = "http2"
    BULK = "bulk"
    HTTP2_BULK = "http2-bulk"
    PLAIN_BULK = "plain-bulk"
    PASS_NEW = "passthrough-new-connection"
    PASS_BULK = "passthrough-bulk"
    DNS = "dns"


class Outcome(msgspec.Struct, frozen=True):
    """What one run of a load generator did. Latencies in microseconds, None when it does not tell them."""

    units: float
    rate: float
    failed: int
    p50: float | None = None
    p99: float | None = None


class LoadError(ValueError):
    """A load generator said something that is no result; the text holds it."""


def h2load(out: str, log: Iterable[str]) -> Outcome:
    """Read h2load's summary, and its log (start, status, microseconds; tab-separated) for the latencies."""
    totals = re.search(r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded", out)
    rate = re.search(r"finished in [^,]+, ([\d.]+) req/s", out)
    if not totals or not rate:
        raise LoadError(f"h2load: no summary in {out!r}")
    done, succeeded = int(totals[1]), int(totals[2])
    times = [int(fields[2]) for line in log if len(fields := line.split("\t")) == 3 and fields[1] == "200"]
    return Outcome(succeeded, float(rate[1]), done - succeeded, percentile(times, 50), percentile(times, 99))


def wrk(out: str, times: list[int]) -> Outcome:
    """Read wrk's summary. Its latencies start after the handshake, so `times` of whole connections are given."""
    totals = re.search(r"(\d+) requests in", out)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    if not totals or not rate:
        raise LoadError(f"wrk: no summary in {out!r}")
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
    failed = (int(bad[1]) if bad else 0) + (sum(int(number) for number in errors.groups()) if errors else 0)
    succeeded = int(totals[1]) - (int(bad[1]) if bad else 0)
    return Outcome(succeeded, float(rate[1]), failed, percentile(times, 50), percentile(times, 99))


def wrk_keepalive(out: str) -> Outcome:
    """Read wrk's summary of connections that are kept, with the latencies that `--latency` tells."""
    found = {int(percent): _microseconds(*rest) for percent, *rest in _WRK_LATENCY.findall(out)}
    return msgspec.structs.replace(wrk(out, []), p50=found.get(50), p99=found.get(99))


def _microseconds(number: str, unit: str) -> float:
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]


def curl(out: str) -> Outcome:
    """Read `status bytes bytes/s`. A unit is a GiB, the rate MiB/s."""
    status, size, speed = out.split()
    return Outcome(int(size) / _GIB, float(speed) / (1 << 20), 0 if status == "200" else 1)


def dnsperf(out: str, verbose: str) -> Outcome:
    """Read dnsperf's summary, and for the latencies what `-v` said about each query (`> NOERROR name type seconds`)."""
    completed = re.search(r"Queries completed:\s+(\d+)", out)
    lost = re.search(r"Queries lost:\s+(\d+)", out)
    rate = re.search(r"Queries per second:\s+([\d.]+)", out)
    codes = re.search(r"Response codes:\s+NOERROR (\d+)", out)
    if not completed or not lost or not rate:
        raise LoadError(f"dnsperf: no summary in {out!r}")
    wrong = int(completed[1]) - (int(codes[1]) if codes else 0)
    times = [
        round(float(seconds) * 1e6) for seconds in re.findall(r"^> NOERROR \S+ \S+ ([\d.]+)$", verbose, re.MULTILINE)
    ]
    return Outcome(
        int(completed[1]), float(rate[1]), int(lost[1]) + wrong, percentile(times, 50), percentile(times, 99)
    )


def percentile(times: list[int], percent: int) -> float | None:
    """The nearest rank; None of nothing."""
    ranked = sorted(times)
    return float(ranked[max(0, -(-len(ranked) * percent // 100) - 1)]) if ranked else None


def h2load_argv(work: Work, seconds: float, log: str) -> list[str]:
    """32 HTTP/1.1 connections, or 8 HTTP/2 connections with 16 streams each."""
    shape = ["-c", "8", "-m", "16"] if work is Work.HTTP2 else ["--h1", "-c", "32"]
    return ["h2load", *shape, "-D", f"{seconds:g}", f"--log-file={log}", f"{_URL}/1k"]


def wrk_argv(seconds: float) -> list[str]:
    """32 at a time, each request on a TLS connection of its own."""
    return ["wrk", "-t1", "-c32", f"-d{max(1, round(seconds))}s", "-H", "Connection: close", f"{_URL}/1k"]


def wrk_varied_argv(seconds: float, script: str) -> list[str]:
    """32 connections that are kept, each request with another head."""
    return ["wrk", "-t1", "-c32", f"-d{max(1, round(seconds))}s", "--latency", "-s", script, _URL]


def curl_argv(work: Work) -> list[str]:
    """One download. The client does not verify: that is no work of the proxy."""
    url = f"http://{HOST}" if work is Work.PLAIN_BULK else _URL
    version = "--http2" if work is Work.HTTP2_BULK else "--http1.1"
    told = "%{http_code} %{size_download} %{speed_download}"
    return ["curl", "-sk", version, "-o", "/dev/null", "-w", told, f"{url}/bulk"]


def dnsperf_argv(seconds: float, queries: str) -> list[str]:
    """100 queries outstanding from 32 sockets."""
    return ["dnsperf", "-s", ORIGIN_ADDRESS, "-d", queries, "-l", str(max(1, round(seconds))), "-c", "32", "-q", "100"]
