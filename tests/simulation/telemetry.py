"""What OpenTelemetry is told in a run, for the judge to read.

The SDK rolls the dice that the client's jitter comes from, for its numbers and its exemplars: here
it has dice of its own, or none, so that a world is the same with telemetry as without.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator

from paynexus_async.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HEARD"]


class _Ids(IdGenerator):
    """Numbers of spans and traces."""

    _rng: Final = Random(0)

    def generate_span_id(self) -> int:
        return self._rng.getrandbits(63) + 1

    def generate_trace_id(self) -> int:
        return self._rng.getrandbits(127) + 1


class _Heard(SpanProcessor):
    """The words of spans and metrics, in whichever run is going on."""

    def __init__(self) -> None:
        self.hear: Callable[[str], None] = str
        tracers = TracerProvider(id_generator=_Ids(), shutdown_on_exit=False)
        tracers.add_span_processor(self)
        self._metrics = InMemoryMetricReader()
        meters = MeterProvider(
            [self._metrics], shutdown_on_exit=False, exemplar_filter=AlwaysOffExemplarFilter()
        )
        self.telemetry: Final = Telemetry(tracer_provider=tracers, meter_provider=meters)

    def on_end(self, span: ReadableSpan) -> None:
        told = [dict(event.attributes or {}) for event in span.events]
        self.hear(f"{span.name} {dict(span.attributes or {})} {span.status.description} {told}")

    def collect(self) -> None:
        """Hear of the metrics too."""
        data = self._metrics.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    told = [dict(point.attributes or {}) for point in metric.data.data_points]
                    self.hear(f"{metric.name} {told}")


HEARD: Final = _Heard()
