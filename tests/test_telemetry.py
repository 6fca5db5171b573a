"""Oracle: a receiver of OTLP over HTTP, which decodes what it is sent by OpenTelemetry's own protobuf."""

import threading
import time
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import free_port
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tasks.monitoring.contracts import NightRecord, Predictions, Truth
from tasks.monitoring.gate import Gate
from tasks.monitoring.telemetry import ENDPOINT, tell_gates, tell_night, traced
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.results import Result

DAY = date(2024, 2, 9)
KINDS = {"/v1/traces": ExportTraceServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}


class Collector(BaseHTTPRequestHandler):
    def do_POST(self):
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.taken.append((self.path, KINDS[self.path].FromString(raw), dict(self.headers)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def taken(monkeypatch):
    """All that a collector is sent: path, message, headers."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    server.taken = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=secret")
    yield server.taken
    server.shutdown()
    server.server_close()


def of(attributes):
    return {each.key.removeprefix("lamplighter."): each.value.string_value for each in attributes}


def spans(taken):
    messages = [message for path, message, _ in taken if path == "/v1/traces"]
    scopes = [scope for each in messages for group in each.resource_spans for scope in group.scope_spans]
    return [span for scope in scopes for span in scope.spans]


def gauges(taken):
    messages = [message for path, message, _ in taken if path == "/v1/metrics"]
    scopes = [scope for each in messages for group in each.resource_metrics for scope in group.scope_metrics]
    points = {metric.name: metric.gauge.data_points for scope in scopes for metric in scope.metrics}
    return {name: [(of(each.attributes), each.as_double) for each in points[name]] for name in points}


def test_steps_of_a_run_are_one_trace_with_times_and_outcomes(taken):
    began = time.time_ns()
    with traced("tiny", "2024-02-09", "tiny-run", "ingest") as results:
        results.append(Result(status="reused"))
    with traced("tiny", "2024-02-09", "tiny-run", "train"):
        time.sleep(0.05)
    with traced("tiny", "2024-02-09", "another-run", "train"):
        pass
    first, second, third = spans(taken)
    assert [each.name for each in spans(taken)] == ["ingest", "train", "train"]
    assert first.trace_id == second.trace_id != third.trace_id
    assert of(first.attributes) == {
        "product": "tiny", "as_of": "2024-02-09", "run": "tiny-run", "step": "ingest", "status": "reused",
    }  # fmt: skip
    assert began <= first.start_time_unix_nano <= first.end_time_unix_nano <= second.start_time_unix_nano
    assert second.end_time_unix_nano - second.start_time_unix_nano >= 0.05e9
    [(about, seconds)] = gauges(taken)["lamplighter.step.seconds"]
    assert about == {"product": "tiny", "step": "train", "status": "done"}
    assert 0 <= seconds < 60
    assert all(headers["x-api-key"] == "secret" for _, _, headers in taken)


@pytest.mark.parametrize(
    ("error", "status"),
    [(UserError("a"), "user error"), (TransientError("b"), "transient error"), (KeyError("c"), "bug")],
)
def test_step_that_fails_is_told_and_fails_as_it_would(taken, error, status):
    with pytest.raises(type(error)), traced("tiny", "2024-02-09", "tiny-run", "train"):
        raise error
    [span] = spans(taken)
    assert (of(span.attributes)["status"], span.status.code, span.status.message) == (status, 2, status)


def test_nights_and_gates_are_gauges(taken):
    rows = {"rows_in": 10, "quarantined": 2, "published": 8}
    night = NightRecord(
        as_of=DAY,
        scored_day=DAY,
        run="x",
        model_version="v1.0.0",
        predictions=Predictions(mean=None, deciles=(), shares={}),
        **rows,
    )
    truth = Truth(as_of=DAY, labelled=8, metric="auc", value=0.75)
    before = NightRecord(**{**vars(night), "as_of": DAY - timedelta(days=1), "truth": truth, "model_version": "v0.9.0"})
    tell_night("tiny", night, [before])
    found = gauges(taken)
    assert {about["rows"]: value for about, value in found["lamplighter.night.rows"]} == {
        "in": 10, "quarantined": 2, "published": 8,
    }  # fmt: skip
    assert found["lamplighter.night.metric"] == [({"product": "tiny", "model": "v0.9.0", "metric": "auc"}, 0.75)]
    taken.clear()
    tell_gates(
        "tiny",
        [
            Gate(name="limit", passed=False, value=0.5, wanted="at least 0.6"),
            Gate(name="x", passed=True, value=None, wanted=""),
        ],
    )
    assert gauges(taken)["lamplighter.gate.value"] == [({"product": "tiny", "gate": "limit", "passed": "false"}, 0.5)]


def test_collector_that_does_not_answer_delays_little_and_stops_nothing(monkeypatch, capsys):
    monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{free_port()}")
    began = time.monotonic()
    with traced("tiny", "2024-02-09", "tiny-run", "train") as results:
        results.append(Result(status="done"))
    assert time.monotonic() - began < 30
    tell_night("tiny", None, [])


def test_nothing_is_sent_or_imported_where_no_collector_is_named(monkeypatch, taken):
    monkeypatch.delenv(ENDPOINT)
    with traced("tiny", "2024-02-09", "tiny-run", "train"):
        pass
    assert taken == []
