"""Spans and metrics: what OpenTelemetry is told, and what it is not."""

from __future__ import annotations

import gc
import importlib
import re
import subprocess
import sys
import threading
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Histogram, InMemoryMetricReader, Sum
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from paynexus_async import (
    AsyncPayNexus,
    PaymentOutcomeUnknown,
    PaymentStillPending,
    PayNexusError,
)
from paynexus_async.telemetry import Telemetry

from .fakes import (
    CHECKOUT_ID,
    PHONE,
    PUBLIC_KEY,
    REFERENCE,
    SECRET_KEY,
    FakeServer,
    initiated,
    refusal,
    status,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.anyio

DOCS = (Path(__file__).parents[1] / "docs" / "observability.md").read_text("utf-8")
STATUS = "paynexus.payment.status"


class Ears:
    """Providers that keep what they are told."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._metrics = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meters = MeterProvider([self._metrics])

    def telemetry(self) -> Telemetry:
        return Telemetry(tracer_provider=self.tracers, meter_provider=self.meters)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._spans.get_finished_spans()

    @property
    def metrics(self) -> dict[str, Any]:
        data = self._metrics.get_metrics_data()
        scopes = data.resource_metrics[0].scope_metrics if data else ()
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def points(self, name: str) -> dict[frozenset[tuple[str, Any]], Any]:
        """The value, or the sum, of each combination of attributes."""
        metric = self.metrics.get(name)
        return {
            frozenset(point.attributes.items()): getattr(
                point, "value", getattr(point, "sum", None)
            )
            for point in (metric.data.data_points if metric else ())
        }

    def everything(self) -> str:
        """All words: numbers of spans and moments could look like anything."""
        words: list[object] = []
        for span in self.spans:
            words += [
                span.name,
                dict(span.attributes or {}),
                span.status.description,
                *events(span),
            ]
        for name, metric in self.metrics.items():
            words += [
                name,
                metric.description,
                *(dict(p.attributes) for p in metric.data.data_points),
            ]
        return "\n".join(map(str, words))


@pytest.fixture
def ears() -> Ears:
    """Whatever a client tells."""
    return Ears()


def events(span: ReadableSpan) -> list[tuple[str, Mapping[str, Any]]]:
    return [(event.name, dict(event.attributes or {})) for event in span.events]


async def test_an_initiate_is_a_span_of_a_client(server: FakeServer, ears: Ears):
    """With the status that came back, and no other attribute."""
    server.answers(initiated())
    async with server.client(telemetry=ears.telemetry()) as paynexus:
        await paynexus.initiate_payment(100, PHONE)
    (span,) = ears.spans
    assert (span.name, span.kind) == ("paynexus.initiate_payment", SpanKind.CLIENT)
    assert span.attributes == {STATUS: "initiated"}
    assert span.status.status_code is StatusCode.UNSET
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "paynexus_async"


async def test_a_wait_tells_each_poll_and_each_transition(server: FakeServer, ears: Ears):
    """In their order, polls with errors too; a payment that failed is no error."""
    server.answers(
        initiated(), refusal(503), status("initiated"), status("processing"), status("failed")
    )
    async with server.client(telemetry=ears.telemetry()) as paynexus:
        payment = await paynexus.initiate_payment(100, PHONE)
        await paynexus.wait_for_completion(payment)
    span = ears.spans[-1]
    assert (span.name, span.kind) == ("paynexus.wait_for_completion", SpanKind.INTERNAL)
    assert span.attributes == {STATUS: "failed"}
    assert span.status.status_code is StatusCode.UNSET
    polled, changed = "paynexus.payment.polled", "paynexus.payment.changed"
    attempt, before = "paynexus.poll.attempt", "paynexus.payment.previous_status"
    revised = {"paynexus.payment.revised": False}
    error = {
        "error.type": "paynexus_async.exceptions.InternalServerError",
        "http.response.status_code": 503,
    }
    assert events(span) == [
        (polled, {attempt: 1, **error}),
        (polled, {attempt: 2, STATUS: "initiated"}),
        (polled, {attempt: 3, STATUS: "processing"}),
        (changed, {STATUS: "processing", before: "initiated", **revised}),
        (polled, {attempt: 4, STATUS: "failed"}),
        (changed, {STATUS: "failed", before: "processing", **revised}),
    ]


async def test_everybody_who_waits_has_a_span_of_his_own(server: FakeServer, ears: Ears):
    """With the polls since he came: one loop serves them all."""
    server.answers(status("initiated"), status("processing"), status("completed"))
    server.latency_seconds = 0.1

    async def wait(after: float) -> None:
        await anyio.sleep(after)
        await paynexus.wait_for_completion(REFERENCE)

    async with (
        server.client(telemetry=ears.telemetry()) as paynexus,
        anyio.create_task_group() as group,
    ):
        group.start_soon(wait, 0.0)
        group.start_soon(wait, 0.2)
    attempts = [
        [told["paynexus.poll.attempt"] for name, told in events(span) if name.endswith("polled")]
        for span in ears.spans
    ]
    assert sorted(attempts, key=len) == [[1, 2], [1, 2, 3]]


async def test_a_wait_that_runs_out_has_not_failed(server: FakeServer, ears: Ears):
    """Its span shows where the payment stands, if that is known, and no error."""
    server.answers(status("processing"))
    async with server.client(telemetry=ears.telemetry()) as paynexus:
        with pytest.raises(PaymentStillPending):
            await paynexus.wait_for_completion(REFERENCE, max_wait=5)
        server.answers(refusal(503))
        with pytest.raises(PaymentStillPending):
            await paynexus.wait_for_completion("PNXANOTHER99", max_wait=5)
    assert [dict(span.attributes or {}) for span in ears.spans] == [{STATUS: "processing"}, {}]
    assert {span.status.status_code for span in ears.spans} == {StatusCode.UNSET}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            refusal(422),
            {"error.type": "UnprocessableEntityError", "http.response.status_code": 422},
        ),
        (refusal(500), {"error.type": "PaymentOutcomeUnknown"}),
    ],
    ids=["rejected", "unknown"],
)
async def test_an_error_is_told_by_its_type(server: FakeServer, ears: Ears, answer: Any, told: Any):
    """And not by its message, which names a payment; nor is there a traceback."""
    server.answers(answer)
    async with server.client(telemetry=ears.telemetry()) as paynexus:
        with pytest.raises(PayNexusError):
            await paynexus.initiate_payment(100, PHONE)
    (span,) = ears.spans
    told = {**told, "error.type": f"paynexus_async.exceptions.{told['error.type']}"}
    assert dict(span.attributes or {}) == told
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert span.events == ()


async def test_a_caller_who_leaves_is_no_error(server: FakeServer, ears: Ears):
    """His span says that he left."""
    server.answers(status("processing"))
    async with server.client(telemetry=ears.telemetry()) as paynexus:
        with anyio.move_on_after(3):
            await paynexus.wait_for_completion(REFERENCE)
    (span,) = ears.spans
    assert span.attributes == {"paynexus.cancelled": True}
    assert span.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("verb", ["check_payments", "wait_many"])
async def test_a_bulk_is_one_span(server: FakeServer, ears: Ears, verb: str):
    """With how many results it had, and how many of them were errors; left early, it says so."""
    server.answers(status("completed"))
    items = [REFERENCE, "no/reference", CHECKOUT_ID]
    async with server.client(telemetry=ears.telemetry()) as paynexus:
        results = [result async for result in getattr(paynexus, verb)(items)]
        async with aclosing(getattr(paynexus, verb)(items)) as stream:
            await anext(stream)
    counted = {"paynexus.bulk.results": 3, "paynexus.bulk.errors": 1}
    assert len(results) == 3
    whole, left = ears.spans
    assert (whole.name, whole.kind) == (f"paynexus.{verb}", SpanKind.INTERNAL)
    assert dict(whole.attributes or {}) == counted
    assert dict(left.attributes or {}) | {"paynexus.bulk.errors": 0} == {
        "paynexus.bulk.results": 1, "paynexus.bulk.errors": 0, "paynexus.cancelled": True
    }  # fmt: skip
    assert {span.status.status_code for span in ears.spans} == {StatusCode.UNSET}


async def test_an_iterable_that_breaks_is_the_bulks_error(server: FakeServer, ears: Ears):
    """The caller's own."""

    def items() -> Any:
        yield REFERENCE
        msg = "a row is damaged"
        raise ValueError(msg)

    server.answers(status("completed"))
    async with server.client(telemetry=ears.telemetry()) as paynexus:
        with pytest.raises(ValueError, match="damaged"):
            _ = [result async for result in paynexus.check_payments(items())]
    (span,) = ears.spans
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "builtins.ValueError"


async def test_what_is_called_inside_is_a_child(server: FakeServer, ears: Ears):
    """So the spans of an HTTP library stand below those of a payment; a bulk is nobody's parent."""
    seen: list[Any] = []

    def look(_: Any) -> Any:
        seen.append(trace.get_current_span().get_span_context().span_id)
        return initiated()

    server.answers(look)
    async with server.client(telemetry=ears.telemetry()) as paynexus:
        await paynexus.initiate_payment(100, PHONE)
        server.answers(status("completed"))
        async for _ in paynexus.check_payments([REFERENCE]):
            assert not trace.get_current_span().get_span_context().is_valid
    context = ears.spans[0].context
    assert context is not None
    assert seen == [context.span_id]


async def test_payments_are_counted_by_status(server: FakeServer, ears: Ears):
    """Each status once, however often it is told; late truth apart."""
    server.answers(
        initiated(), status("processing"), status("processing"), status("expired"),
        status("expired"), status("completed"),
    )  # fmt: skip
    async with server.client(telemetry=ears.telemetry()) as paynexus:
        payment = await paynexus.pay(100, PHONE)
        for _ in range(2):
            await paynexus.get_payment_status(payment)
    revised = "paynexus.payment.revised"
    assert ears.points("paynexus.payments") == {
        frozenset({(STATUS, "initiated"), (revised, False)}): 1,
        frozenset({(STATUS, "processing"), (revised, False)}): 1,
        frozenset({(STATUS, "expired"), (revised, False)}): 1,
        frozenset({(STATUS, "completed"), (revised, True)}): 1,
    }


async def test_what_a_caller_brings_is_not_counted(server: FakeServer, ears: Ears):
    """Another process has counted it."""
    server.answers(initiated(), status("completed"))
    async with server.client() as other:
        payment = await other.initiate_payment(100, PHONE)
    async with server.client(telemetry=ears.telemetry()) as paynexus:
        await paynexus.wait_for_completion(payment)
    assert set(ears.points("paynexus.payments")) == {
        frozenset({(STATUS, "completed"), ("paynexus.payment.revised", False)})
    }


async def test_what_two_names_turn_out_to_share_is_not_counted_again(
    server: FakeServer, ears: Ears
):
    """Each was told of by the name it was asked by."""
    server.answers(
        status("processing", checkout_request_id=None),
        status("completed", reference=None),
        status("completed"),
    )
    async with server.client(telemetry=ears.telemetry()) as paynexus:
        await paynexus.get_payment_status(REFERENCE)
        await paynexus.get_payment_status_by_checkout_id(CHECKOUT_ID)
        await paynexus.get_payment_status(REFERENCE)
    assert sorted(ears.points("paynexus.payments").values()) == [1, 1]


async def test_the_time_and_the_calls_to_the_end_are_measured(server: FakeServer, ears: Ears):
    """Of a payment that was seen open, once; one that had ended before tells nothing of either."""
    server.answers(initiated(), status("processing"), status("completed"))
    async with server.client(telemetry=ears.telemetry()) as paynexus:
        began = anyio.current_time()
        await paynexus.pay(100, PHONE)
        seconds, words = anyio.current_time() - began, ("expired", "completed")
        server.answers(status("failed", reference="PNXOLD000000", checkout_request_id=None))
        await paynexus.wait_for_completion("PNXOLD000000")
        names = {"reference": "PNXLATE00000", "checkout_request_id": "ws_CO_1"}
        server.answers(
            initiated(**names, amount=7), *(status(word, **names, amount=7) for word in words)
        )
        late = await paynexus.pay(7, PHONE)
        await paynexus.get_payment_status(late)
    completed = frozenset({(STATUS, "completed")})
    assert ears.points("paynexus.payment.duration")[completed] == pytest.approx(seconds)
    expired = frozenset({(STATUS, "expired")})
    assert ears.points("paynexus.payment.status_calls") == {completed: 2, expired: 1}


async def test_an_end_that_no_wait_has_seen_took_no_polls(server: FakeServer, ears: Ears):
    """Nobody followed: the calls of whoever asked by himself are his own."""
    server.answers(initiated(), status("completed"))
    async with server.client(telemetry=ears.telemetry()) as paynexus:
        payment = await paynexus.initiate_payment(100, PHONE)
        await anyio.sleep(7)
        await paynexus.get_payment_status(payment)
    assert ears.points("paynexus.payment.duration") == {frozenset({(STATUS, "completed")}): 7}
    assert ears.points("paynexus.payment.status_calls") == {}


async def test_an_end_without_a_birth_has_no_duration(server: FakeServer, ears: Ears):
    """Nobody knows how old the payment is: it was brought by name, and asked for once before."""
    server.answers(status("processing"), status("completed"))
    async with server.client(telemetry=ears.telemetry()) as paynexus:
        for _ in range(2):
            await paynexus.get_payment_status(REFERENCE)
    assert ears.points("paynexus.payment.duration") == {}
    assert len(ears.points("paynexus.payments")) == 2


async def test_gauges_are_read_from_another_thread(server: FakeServer, ears: Ears):
    """As an exporter does: the calls left to each key that was used, and who waits."""
    server.answers(status("processing"))
    public = frozenset({("paynexus.key.kind", "public")})
    read: list[Any] = []

    def export() -> None:
        read.append((ears.points("paynexus.quota.remaining"), ears.points("paynexus.waiters")))

    def export_in_a_thread() -> None:
        thread = threading.Thread(target=export)
        thread.start()
        thread.join()

    async with server.client(telemetry=ears.telemetry(), plan={"minute": 60}) as paynexus:
        export_in_a_thread()
        async with anyio.create_task_group() as group:
            for asked in (REFERENCE, REFERENCE, CHECKOUT_ID):
                group.start_soon(paynexus.wait_for_completion, asked)
            await anyio.sleep(1)
            looks = len(server.requests)
            export_in_a_thread()
            group.cancel_scope.cancel()
    export_in_a_thread()
    none = frozenset()
    assert read == [({}, {none: 0}), ({public: 60 - looks}, {none: 3}), ({}, {none: 0})]


async def test_of_two_clients_the_fewest_calls_left_are_told_and_all_waiters(
    server: FakeServer, ears: Ears
):
    """One telemetry serves many clients, and so do two: a client that is gone is asked no more."""
    server.answers(status("processing"))
    few = server.client(telemetry=ears.telemetry(), plan={"minute": 30})
    many = server.client(telemetry=ears.telemetry(), plan={"minute": 60})
    for client in (few, many):
        await client.get_payment_status(REFERENCE)
    public = frozenset({("paynexus.key.kind", "public")})
    assert ears.points("paynexus.quota.remaining") == {public: 29}
    await few.aclose()
    assert ears.points("paynexus.quota.remaining") == {public: 59}
    await many.aclose()
    del many, few, client
    server.requests.clear()  # which know who asked
    gc.collect()
    telemetry = ears.telemetry()
    server.client(telemetry=telemetry)
    assert len(telemetry._meters._clients) == 1
    assert ears.points("paynexus.quota.remaining") == {}
    assert ears.points("paynexus.waiters") == {frozenset(): 0}


async def test_with_one_key_there_is_one_quota(server: FakeServer, ears: Ears):
    """The secret one's."""
    server.answers(status("processing"))
    telemetry = ears.telemetry()
    async with server.client(public_key=None, telemetry=telemetry, plan={"minute": 9}) as paynexus:
        await paynexus.get_payment_status(REFERENCE)
        secret = frozenset({("paynexus.key.kind", "secret")})
        assert ears.points("paynexus.quota.remaining") == {secret: 8}


async def test_no_secret_is_told(server: FakeServer, ears: Ears):
    """No key, phone, reference or amount, in whatever ends well or badly."""
    server.answers(initiated(amount=4711), status("processing", amount="4711.00"), refusal(401))
    async with server.client(telemetry=ears.telemetry(), plan="trial") as paynexus:
        payment = await paynexus.initiate_payment(4711, PHONE, "Order #1")
        for asked in (payment, CHECKOUT_ID, payment.reference):
            with pytest.raises(PayNexusError):
                await paynexus.wait_for_completion(asked, max_wait=20)
        server.answers(refusal(500, f"no, {PHONE}"))
        with pytest.raises(PaymentOutcomeUnknown):
            await paynexus.initiate_payment(4712, PHONE, "Order #2")
        _ = [one async for one in paynexus.check_payments([REFERENCE, PHONE])]
    said = ears.everything()
    assert "paynexus.payment.polled" in said
    secrets = (PHONE, PHONE[3:], REFERENCE, CHECKOUT_ID, SECRET_KEY, PUBLIC_KEY, "471", "Order")
    assert [secret for secret in secrets if secret in said] == []


async def test_without_an_sdk_nothing_happens(server: FakeServer):
    """The API alone makes spans that nobody records."""
    server.answers(initiated(), status("completed"))
    async with server.client(telemetry=Telemetry()) as paynexus:
        assert (await paynexus.pay(100, PHONE)).succeeded
        (result,) = [one async for one in paynexus.check_payments([REFERENCE])]
    assert result.payment is not None


async def test_the_documentation_lists_every_metric(server: FakeServer, ears: Ears):
    """Name, instrument and unit; a row for each, and none besides."""
    server.answers(initiated(), status("processing"), status("completed"))
    async with server.client(telemetry=ears.telemetry(), plan="trial") as paynexus:
        await paynexus.pay(100, PHONE)
        told = {name: (_instrument(m), m.unit) for name, m in ears.metrics.items()}
    rows = re.findall(
        r"^\| `(paynexus\.[a-z._]+)` \| ([a-z -]+) \| `(s|{\w+})` \|", DOCS, re.MULTILINE
    )
    assert {name: (instrument, unit) for name, instrument, unit in rows} == told


def _instrument(metric: Any) -> str:
    if isinstance(metric.data, Sum):
        return "counter" if metric.data.is_monotonic else "observable up-down counter"
    return "histogram" if isinstance(metric.data, Histogram) else "observable gauge"


def test_the_documentation_names_every_span_event_and_attribute():
    """And names nothing that is not told."""
    source = (Path(__file__).parents[1] / "paynexus_async" / "telemetry.py").read_text("utf-8")
    told = set(re.findall(r'"((?:paynexus|error|http)\.[a-z._]+)"', source))
    told |= {f"paynexus.{verb}" for verb in VERBS}
    assert set(re.findall(r"`((?:paynexus|error|http)\.[a-z._]+)`", DOCS)) == told


VERBS = ("initiate_payment", "wait_for_completion", "check_payments", "wait_many")


def test_whoever_does_not_ask_pays_nothing():
    """OpenTelemetry is not imported by a client without telemetry; with it, no SDK is."""
    code = "import sys, paynexus_async as p; p.AsyncPayNexus('sk_x'){}; print(*sys.modules)"
    for more, expected in (("", False), ("; import paynexus_async.telemetry", True)):
        done = subprocess.run(
            [sys.executable, "-c", code.format(more)], capture_output=True, text=True, check=True
        )
        loaded = done.stdout.split()
        assert ("opentelemetry" in loaded) is expected
        assert "opentelemetry.sdk" not in loaded


def test_the_process_own_providers_are_the_default():
    """Whoever sets them up later is told too: OpenTelemetry's stand-ins pass it on."""
    client = AsyncPayNexus(SECRET_KEY, telemetry=Telemetry())
    assert repr(client) == "<AsyncPayNexus production>"
    assert Telemetry()._meters is Telemetry()._meters
    assert isinstance(metrics.get_meter_provider(), metrics.MeterProvider)


def test_without_its_extra_the_module_says_so(monkeypatch):
    """Which one to install."""
    monkeypatch.delitem(sys.modules, "paynexus_async.telemetry")
    monkeypatch.setitem(sys.modules, "opentelemetry.metrics", None)
    with pytest.raises(ImportError, match=r"paynexus-async\[otel\]"):
        importlib.import_module("paynexus_async.telemetry")
