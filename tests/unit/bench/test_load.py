"""What the load generators print becomes figures; what is no result is an error that shows it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import load
from bench.load import LoadError, Outcome, Work

H2LOAD = """\
finished in 2.00s, 30123.50 req/s, 37.50MB/s
requests: 60250 total, 60250 started, 60247 done, 60240 succeeded, 10 failed, 10 errored, 0 timeout
status codes: 60240 2xx, 0 3xx, 0 4xx, 7 5xx
"""
WRK = """\
Running 2s test @ https://origin.test/1k
  1 threads and 32 connections
  2380 requests in 2.01s, 2.86MB read
Requests/sec:   1183.99
Transfer/sec:      1.42MB
"""
DNSPERF = """\
Statistics:

  Queries sent:         1010
  Queries completed:    1000 (99.01%)
  Queries lost:         10 (0.99%)

  Response codes:       NOERROR 997 (99.70%), SERVFAIL 3 (0.30%)
  Run time (s):         2.000000
  Queries per second:   500.000000

  Average Latency (s):  0.000300 (min 0.000026, max 0.003000)
"""


def test_h2load_counts_what_succeeded_and_ranks_its_log():
    log = ["1795357173885592\t200\t100\n", "1795357173885600\t200\t300\n", "1795357173885601\t503\t9\n", "cut off"]
    assert load.h2load(H2LOAD, log) == Outcome(units=60240, rate=30123.5, failed=7, p50=100, p99=300)


def test_wrk_takes_latencies_from_whole_connections():
    assert load.wrk(WRK, [2000, 4000, 3000]) == Outcome(units=2380, rate=1183.99, failed=0, p50=3000, p99=4000)


def test_wrk_counts_socket_errors_and_other_answers_as_failed():
    told = WRK + "  Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 80\n"
    outcome = load.wrk(told, [])
    assert (outcome.units, outcome.failed, outcome.p50) == (2300, 90, None)


def test_wrk_tells_latencies_of_connections_that_are_kept_itself():
    told = (
        WRK + "  Latency Distribution\n     50%  713.00us\n     75%    1.00ms\n     90%    1.12ms\n     99%    1.20s\n"
    )
    outcome = load.wrk_keepalive(told)
    assert (outcome.units, outcome.p50, outcome.p99) == (2380, 713, 1_200_000)


def test_curl_measures_gib_and_mib_a_second():
    assert load.curl("200 268435456 104857600") == Outcome(units=0.25, rate=100, failed=0)
    assert load.curl("000 0 0").failed == 1


def test_dnsperf_counts_lost_and_refused_queries_as_failed():
    verbose = "> NOERROR host1.bench.test A 0.000040\n> NOERROR host2.bench.test A 0.000060\n> T host3.bench.test A\n"
    assert load.dnsperf(DNSPERF, verbose) == Outcome(units=1000, rate=500, failed=13, p50=40, p99=60)


@pytest.mark.parametrize(
    "read", [lambda out: load.h2load(out, ()), lambda out: load.wrk(out, []), lambda out: load.dnsperf(out, "")]
)
def test_what_is_no_result_is_an_error_that_shows_it(read):
    with pytest.raises(LoadError, match="Connection refused"):
        read("connect: Connection refused")


@given(st.lists(st.integers(0, 10**9), min_size=1), st.integers(1, 100))
def test_a_percentile_is_one_of_the_times_with_that_share_at_or_below_it(times, percent):
    found = load.percentile(times, percent)
    assert found in times
    assert sum(time <= found for time in times) * 100 >= percent * len(times)
    assert sum(time < found for time in times) * 100 < percent * len(times)


def test_no_times_have_no_percentile():
    assert load.percentile([], 50) is None


def test_http2_and_keep_alive_differ_in_shape_only():
    keep_alive = load.h2load_argv(Work.KEEPALIVE, 2, "log")
    http2 = load.h2load_argv(Work.HTTP2, 2, "log")
    assert "--h1" in keep_alive
    assert "--h1" not in http2
    assert keep_alive[-3:] == http2[-3:] == ["2", "--log-file=log", "https://origin.test/1k"]


def test_downloads_differ_in_version_and_in_tls_only():
    first, second, clear = (load.curl_argv(work) for work in (Work.BULK, Work.HTTP2_BULK, Work.PLAIN_BULK))
    assert {*first} ^ {*second} == {"--http1.1", "--http2"}
    assert {*first} ^ {*clear} == {"https://origin.test/bulk", "http://origin.test/bulk"}
