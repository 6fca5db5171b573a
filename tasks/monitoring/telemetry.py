"""Tell a collector of OpenTelemetry how steps, nights and gates went, where one is named.

OTEL_EXPORTER_OTLP_ENDPOINT names it, and the other OTEL_EXPORTER_OTLP_ variables say how it is reached (HTTP with
protobuf). All steps of a run are one trace; a step is a span. The gauges are

    lamplighter.step.seconds        product, step, status
    lamplighter.night.rows          product, rows: in, published or quarantined
    lamplighter.night.metric        product, model, metric: of a past night whose labels have come
    lamplighter.gate.value          product, gate, passed

A collector that does not answer delays a step by TIMEOUT_SECONDS, and stops nothing.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING

from tasks.monitoring.contracts import NightRecord
from tasks.monitoring.gate import Gate
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.results import Result

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TIMEOUT_SECONDS = 3.0
Values = Iterable[tuple[float, Mapping[str, str]]]
"""Values of a gauge, each with its attributes."""


@contextmanager
def traced(product: str, as_of: str, run: str, step: str) -> Iterator[list[Result]]:
    """Tell of a step of a run, whatever becomes of it; what it returns goes into the list."""
    began, results = time.time_ns(), list[Result]()
    status = "bug"
    try:
        yield results
        status = results[-1].status if results else "done"
    except UserError:
        status = "user error"
        raise
    except TransientError:
        status = "transient error"
        raise
    finally:
        about = {"product": product, "step": step, "status": status}
        _tell(lambda: _send_span(run, step, began, about | {"as_of": as_of, "run": run}))
        seconds = (time.time_ns() - began) / 1e9
        _tell(lambda: _send_gauges({"lamplighter.step.seconds": [(seconds, about)]}))


def tell_night(product: str, record: NightRecord | None, measured: Sequence[NightRecord]) -> None:
    """Tell of a night that is published, and of the newest of those whose labels have come."""
    gauges: dict[str, Values] = {}
    if record:
        counts = {"in": record.rows_in, "published": record.published, "quarantined": record.quarantined}
        gauges["lamplighter.night.rows"] = [
            (float(count), {"product": product, "rows": name}) for name, count in counts.items()
        ]
    truths = [(each, each.truth) for each in measured[-1:] if each.truth and each.truth.value is not None]
    gauges["lamplighter.night.metric"] = [
        (float(truth.value or 0), {"product": product, "model": each.model_version or "", "metric": truth.metric})
        for each, truth in truths
    ]
    _tell(lambda: _send_gauges(gauges))


def tell_gates(product: str, gates: Iterable[Gate]) -> None:
    """Tell of the gates at which a model was measured."""
    values = [
        (each.value, {"product": product, "gate": each.name, "passed": str(each.passed).lower()})
        for each in gates
        if each.value is not None
    ]
    _tell(lambda: _send_gauges({"lamplighter.gate.value": values}))


def _tell(send: Callable[[], None]) -> None:
    """Send where a collector is named; what goes wrong is said, and stops nothing."""
    if not os.environ.get(ENDPOINT):
        return
    try:
        send()
    except Exception as error:  # the step itself has ended as it has
        print(f"the collector that {ENDPOINT} names was not told: {type(error).__name__}", flush=True)


def _resource() -> "Resource":
    from opentelemetry.sdk.resources import Resource

    return Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "lamplighter")})


def _send_span(run: str, step: str, began: int, about: Mapping[str, str]) -> None:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
    from opentelemetry.trace import Status, StatusCode

    class OfTheRun(RandomIdGenerator):
        def generate_trace_id(self) -> int:
            return int.from_bytes(blake2b(run.encode(), digest_size=16).digest())

    provider = TracerProvider(resource=_resource(), id_generator=OfTheRun(), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(timeout=TIMEOUT_SECONDS)))
    named = {f"lamplighter.{name}": value for name, value in about.items()}
    span = provider.get_tracer("lamplighter").start_span(step, start_time=began, attributes=named)
    if about["status"] not in ("done", "reused"):
        span.set_status(Status(StatusCode.ERROR, about["status"]))
    span.end()
    provider.shutdown()


def _send_gauges(gauges: Mapping[str, Values]) -> None:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    reader = PeriodicExportingMetricReader(OTLPMetricExporter(timeout=TIMEOUT_SECONDS), export_interval_millis=1e9)
    provider = MeterProvider([reader], resource=_resource(), shutdown_on_exit=False)
    meter = provider.get_meter("lamplighter")
    for name, values in gauges.items():
        gauge = meter.create_gauge(name)
        for value, attributes in values:
            gauge.set(value, {f"lamplighter.{key}": text for key, text in attributes.items()})
    provider.shutdown(timeout_millis=TIMEOUT_SECONDS * 1000)
