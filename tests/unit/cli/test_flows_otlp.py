"""`weir flows --otlp`: to a collector that decodes what comes, from a file, and from pods."""

import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lab import records
from lab.collector import collector
from lab.fake_kubectl import FakeKubectl
from weir_cli.cluster.services import attributes_of
from weir_cli.flows import otlp
from weir_cli.flows.spans import span
from weir_cli.main import main
from weir_sidecar.contract.request import TraceRecord

WEIR = Path(sys.executable).with_name("weir")
TRACE, CALLER, OWN = "a" * 32, "b" * 16, "c" * 16


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def target():
    with collector() as one:
        yield one


@pytest.fixture
def file(tmp_path):
    def write(*some):
        path = tmp_path / "records.jsonl"
        path.write_bytes(b"".join(map(records.line, some)))
        return str(path)

    return write


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_requests_of_a_file_as_spans(target, file, capsys):
    traced = records.request(1, trace=TraceRecord(TRACE, CALLER, True, OWN), status=500)
    unsampled = records.request(3, trace=TraceRecord(TRACE, CALLER, False))
    path = file(traced, records.request(2), unsampled, records.flow())
    assert main(["flows", path, "--otlp", target.url]) == 0
    assert capsys.readouterr().err == (
        f"{target.url}: 2 spans sent, 1 not wanted: their traces are not sampled\n"
    )  # fmt: skip
    assert target.asked == [("/v1/traces", "application/x-protobuf")]
    one, two = target.spans
    span = one.span
    assert (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()) == (TRACE, OWN, CALLER)
    assert (span.name, span.kind, span.status.code) == ("GET", span.SPAN_KIND_CLIENT, span.status.STATUS_CODE_ERROR)
    assert span.end_time_unix_nano - span.start_time_unix_nano == 2_340_000
    assert (one.attributes["network.peer.address"], one.attributes["error.type"]) == ("192.0.2.1", "500")
    assert (one.resource["service.name"], one.scope) == ("shop", "weir")
    assert two.span.parent_span_id == b""
    assert two.span.status.code == span.status.STATUS_CODE_UNSET


def test_many_and_a_filter(target, file):
    path = file(*(records.request(number, status=500 + number % 2) for number in range(1500)))
    assert main(["flows", path, "--filter", "status:500", "--otlp", f"{target.url}/own/path"]) == 0
    assert len(target.spans) == 750
    assert {path for path, _ in target.asked} == {"/own/path"}
    assert len(target.asked) == 2


def test_spans_of_pods_have_their_resources(target, capsys, tmp_path, monkeypatch):
    kubectl = FakeKubectl(tmp_path)
    monkeypatch.setenv("PATH", kubectl.path)
    monkeypatch.setattr("sys.stdin", None)
    line = records.line(records.request()).decode()
    gone = records.line(records.request(2)).decode()
    kubectl.answer("logs", "--follow", out=f"[pod/web-1/weir-sidecar] {line}" * 2 + f"[pod/web-2/weir-sidecar] {gone}")
    kubectl.answer("get", "pod", "web-1", out={"metadata": METADATA})
    kubectl.answer("get", "pod", "web-2", err='Error from server (NotFound): pods "web-2" not found', status=1)
    assert main(["flows", "-n", "shop", "-f", "--otlp", target.url]) == 0
    assert [one.resource["service.name"] for one in target.spans] == ["web", "web", "web-2"]
    assert target.spans[0].resource.items() >= {"k8s.namespace.name": "shop", "k8s.pod.name": "web-1"}.items()
    assert len([asked for asked in kubectl.asked() if "get" in asked]) == 2
    (logs,) = [asked for asked in kubectl.asked() if "logs" in asked]
    assert logs[logs.index("--tail") + 1] == "0"
    assert "have its own name as their service" in capsys.readouterr().err


METADATA = {
    "name": "web-1", "namespace": "shop", "labels": {"pod-template-hash": "5f"},
    "ownerReferences": [{"kind": "ReplicaSet", "name": "web-5f", "controller": True}],
}  # fmt: skip
ANNOTATION = "resource.opentelemetry.io/service.name"


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({}, "web"),
        ({"labels": {"app.kubernetes.io/name": "n"}}, "n"),
        ({"labels": {"app.kubernetes.io/name": "n", "app.kubernetes.io/instance": "i"}}, "i"),
        ({"labels": {"app.kubernetes.io/name": "n"}, "annotations": {ANNOTATION: "a"}}, "a"),
        ({"ownerReferences": None}, "web-1"),
    ],
)
def test_the_service_of_a_pod(more, name):
    assert attributes_of(METADATA | more)["service.name"] == name


def test_following_sends_what_comes_and_what_is_left_at_ctrl_c(target, file):
    path = file(records.request(1))
    follow = [WEIR, "flows", path, "-f", "--last", "1", "--otlp", target.url]
    with subprocess.Popen(follow, stderr=subprocess.PIPE, text=True) as program:
        assert target.came.wait(60)
        with Path(path).open("ab") as more:
            more.write(records.line(records.request(2)))
        program.send_signal(signal.SIGINT)
        _, words = program.communicate(timeout=60)
    assert program.returncode == 0
    assert words == f"{target.url}: {len(target.spans)} spans sent\n"


def test_a_collector_that_is_away_ends_it(file, capsys):
    url = f"http://127.0.0.1:{closed_port()}"
    assert main(["flows", file(records.request()), "--otlp", url]) == 1
    assert capsys.readouterr().err == (
        f"{url}: 0 spans sent, 1 lost\nweir flows: {url}/v1/traces: Connection refused\n"
    )  # fmt: skip


@pytest.mark.parametrize("status", [400, 302, 404])
def test_a_collector_that_refuses_is_told(target, file, capsys, status):
    target.status = status
    assert main(["flows", file(records.request()), "--otlp", target.url]) == 1
    assert f"{target.url}/v1/traces: it answered {status}" in (told := capsys.readouterr().err)
    assert "no room" in told


def test_what_a_collector_does_not_keep_is_told(target, file, capsys):
    target.rejects = 2
    assert main(["flows", file(*map(records.request, range(5))), "--otlp", target.url]) == 1
    assert "3 spans sent, 2 lost" in (told := capsys.readouterr().err)
    assert "it refused 2 spans: too many" in told


def test_with_patience_it_goes_on_when_the_collector_is_back(target, monkeypatch):
    monkeypatch.setattr(otlp, "_PAUSE", 0.01)
    warned = threading.Event()
    said = []
    sender = otlp.Sender(target.url, lambda words: (said.append(words), warned.set()), patient=True)
    source = otlp.Sources(lambda pod: {"service.name": pod or "?"})
    target.status = 400
    sender.put(otlp_span(1), source.of("web"))
    assert warned.wait(30)
    target.status = 200
    sender.put(otlp_span(2), source.of("web"))
    assert target.came.wait(30)
    sender.close()
    assert (sender.sent, sender.lost, sender.why, len(said)) == (1, 1, None, 1)


def otlp_span(number):
    return span(records.request(number), None)


@pytest.mark.parametrize("url", ["localhost:4318", "grpc://a:4317", "http://", "http://a:x", "http://a:0", ""])
def test_urls_that_are_none(file, capsys, url):
    assert main(["flows", file(records.request()), "--otlp", url]) == 1
    assert "--otlp" in capsys.readouterr().err


def test_it_is_not_for_the_screen_or_an_archive(file, capsys):
    assert main(["flows", file(records.request()), "--har", "-", "--otlp", "http://a"]) == 1
    assert "not with --live, --har or --curl" in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(file, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "weir_cli.flows.otlp", None)
    monkeypatch.delattr("weir_cli.flows.otlp")
    assert main(["flows", file(records.request()), "--otlp", "http://a"]) == 1
    assert "pip install 'weir[otel]'" in capsys.readouterr().err
