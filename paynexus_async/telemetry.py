"""Spans and metrics for OpenTelemetry; `docs/observability.md` lists them.

    from paynexus_async.telemetry import Telemetry

    paynexus = AsyncPayNexus(telemetry=Telemetry())

Needs the extra `[otel]`, which is opentelemetry-api alone. Without an SDK behind it, everything
here does nothing. No key, phone, reference or amount is in a name or an attribute.
"""

from __future__ import annotations

from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary, ref

try:
    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation
    from opentelemetry.metrics import get_meter_provider as _global_meters
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
    from opentelemetry.trace import get_tracer_provider as _global_tracers
except ImportError as _error:
    _msg = f"{_error.name} is missing: pip install 'paynexus-async[otel]'"
    raise ImportError(_msg, name=_error.name) from _error

from ._observer import Observer, Operation
from ._version import __version__
from .exceptions import APIStatusError, PaymentStillPending, PayNexusError
from .models import PaymentRevision

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator

    from opentelemetry.util.types import AttributeValue

    from ._observer import Bulk, Calls, Verb, Waits
    from .models import Payment, PaymentResult, PaymentUpdate

__all__ = ["Telemetry"]

_SCOPE: Final = "paynexus_async"
_STATUS: Final = "paynexus.payment.status"
_PREVIOUS: Final = "paynexus.payment.previous_status"
_REVISED: Final = "paynexus.payment.revised"
_CANCELLED: Final = "paynexus.cancelled"
_DURATIONS: Final = (1, 2, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600)
_CALLS: Final = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30)


class Telemetry(Observer):
    """Tells OpenTelemetry of the clients that it is given to.

    A span for each `initiate_payment`, each `wait_for_completion` and each bulk; metrics of
    payments, quota and waiters. `pay` makes two spans, `wait_for_all` is a bulk.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        """Tell the process's own providers, or these.

        Args:
            tracer_provider: makes the spans.
            meter_provider: keeps the metrics.
        """
        tracers = _global_tracers() if tracer_provider is None else tracer_provider
        self._tracer = tracers.get_tracer(_SCOPE, __version__)
        self._meters = _meters_of(_global_meters() if meter_provider is None else meter_provider)

    def attach(self, waits: Waits, calls: Calls) -> None:
        """Ask a client for its gauges, as long as it lives."""
        self._meters.attach(waits, calls)

    def changed(self, update: PaymentUpdate, age_seconds: float | None) -> None:
        """Count a payment's new status."""
        self._meters.changed(update, age_seconds)

    @contextmanager
    def operation(self, verb: Verb) -> Iterator[_Operation]:
        """Open a span around one call."""
        kind = SpanKind.CLIENT if verb == "initiate_payment" else SpanKind.INTERNAL
        with self._tracer.start_as_current_span(
            f"paynexus.{verb}", kind=kind, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield _Operation(span)
            except BaseException as error:
                _tell_error(span, error)
                raise

    async def bulk(
        self, verb: Bulk, results: AsyncGenerator[PaymentResult, None]
    ) -> AsyncGenerator[PaymentResult, None]:
        """Open a span around many results.

        It is nobody's parent: between two results, the caller's own work goes on.
        """
        span, done, failed = self._tracer.start_span(f"paynexus.{verb}"), 0, 0
        try:
            async with aclosing(results):
                async for result in results:
                    done += 1
                    failed += result.error is not None
                    yield result
        except BaseException as error:
            _tell_error(span, error)
            raise
        finally:
            span.set_attributes({"paynexus.bulk.results": done, "paynexus.bulk.errors": failed})
            span.end()


class _Operation(Operation):
    """The span of one call."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def looked(self, attempt: int, found: Payment | PayNexusError) -> None:
        attributes: dict[str, AttributeValue] = {"paynexus.poll.attempt": attempt}
        if isinstance(found, PayNexusError):
            attributes |= _described(found)
        else:
            attributes[_STATUS] = str(found.status)
        self._span.add_event("paynexus.payment.polled", attributes)

    def changed(self, update: PaymentUpdate) -> None:
        self._span.add_event("paynexus.payment.changed", _transition(update))

    def ended(self, payment: Payment) -> Payment:
        self._span.set_attribute(_STATUS, str(payment.status))
        return payment


def _transition(update: PaymentUpdate) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        _STATUS: str(update.payment.status),
        _REVISED: isinstance(update, PaymentRevision),
    }
    if update.previous is not None:
        attributes[_PREVIOUS] = str(update.previous)
    return attributes


def _tell_error(span: Span, error: BaseException) -> None:
    """Say how a call ended without a payment: its message would name one."""
    if isinstance(error, PaymentStillPending):  # has not failed
        if error.payment is not None:
            span.set_attribute(_STATUS, str(error.payment.status))
    elif isinstance(error, Exception):
        span.set_status(Status(StatusCode.ERROR))
        span.set_attributes(_described(error))
    else:  # its caller has left
        span.set_attribute(_CANCELLED, value=True)


def _described(error: Exception) -> dict[str, AttributeValue]:
    kind = type(error)
    attributes: dict[str, AttributeValue] = {"error.type": f"{kind.__module__}.{kind.__qualname__}"}
    if isinstance(error, APIStatusError):
        attributes["http.response.status_code"] = error.status_code
    return attributes


# --- Metrics


class _Meters:
    """The instruments of one provider, which would hear a second one of a name in vain."""

    def __init__(self, meter: Meter) -> None:
        self._clients: tuple[tuple[ref[Waits], ref[Calls]], ...] = ()
        self._payments = meter.create_counter(
            "paynexus.payments",
            unit="{payment}",
            description="Payments of which an answer told a status that was not known before",
        )
        self._durations = meter.create_histogram(
            "paynexus.payment.duration",
            unit="s",
            description="Age of payments when their end was seen",
            explicit_bucket_boundaries_advisory=_DURATIONS,
        )
        self._calls = meter.create_histogram(
            "paynexus.payment.status_calls",
            unit="{call}",
            description="Status calls until the end of a payment was seen",
            explicit_bucket_boundaries_advisory=_CALLS,
        )
        meter.create_observable_gauge(
            "paynexus.quota.remaining",
            [self._observe_calls],
            unit="{call}",
            description="Calls that a key has left",
        )
        meter.create_observable_up_down_counter(
            "paynexus.waiters",
            [self._observe_waiters],
            unit="{waiter}",
            description="Callers who wait for a payment",
        )

    def attach(self, waits: Waits, calls: Calls) -> None:
        living = [client for client in self._clients if client[0]() is not None]
        self._clients = (*living, (ref(waits), ref(calls)))  # whole: it is read in another thread

    def changed(self, update: PaymentUpdate, age_seconds: float | None) -> None:
        status, previous = update.payment.status, update.previous
        revised = isinstance(update, PaymentRevision)
        self._payments.add(1, {_STATUS: str(status), _REVISED: revised})
        if previous is None or previous.is_terminal or not status.is_terminal:
            return
        if age_seconds is not None:
            self._durations.record(age_seconds, {_STATUS: str(status)})
        if update.attempts > 0:
            self._calls.record(update.attempts, {_STATUS: str(status)})

    def _observe_calls(self, _: CallbackOptions) -> Iterable[Observation]:
        """Of several clients with a key of a kind, tell the one with the fewest calls left."""
        lefts: dict[str, int] = {}
        for _waits, calls in self._clients:
            living = calls()
            for kind, left in ({} if living is None else living.calls_left()).items():
                lefts[kind] = min(left, lefts.get(kind, left))
        return [Observation(left, {"paynexus.key.kind": kind}) for kind, left in lefts.items()]

    def _observe_waiters(self, _: CallbackOptions) -> Iterable[Observation]:
        waits = [living for client in self._clients if (living := client[0]()) is not None]
        return [Observation(sum(one.waiters() for one in waits))]


_METERS: Final[WeakKeyDictionary[MeterProvider, _Meters]] = WeakKeyDictionary()


def _meters_of(provider: MeterProvider) -> _Meters:
    if provider not in _METERS:
        _METERS[provider] = _Meters(provider.get_meter(_SCOPE, __version__))
    return _METERS[provider]
