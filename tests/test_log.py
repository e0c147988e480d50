"""The log: named events with fields, as they are documented."""

from __future__ import annotations

import ast
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from paynexus_async import PaymentOutcomeUnknown, RateLimitError
from paynexus_async._log import EVENTS, say

from .fakes import CHECKOUT_ID, PHONE, REFERENCE, FakeServer, initiated, refusal, status

DOCS = Path(__file__).parents[1] / "docs" / "observability.md"
A_RECORDS_OWN = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "event"}


def told(caplog: pytest.LogCaptureFixture, *, above: int = logging.INFO) -> list[dict[str, Any]]:
    """The fields of each record."""
    return [
        {
            name: value
            for name, value in vars(record).items()
            if name not in A_RECORDS_OWN - {"event"}
        }
        for record in caplog.records
        if record.name == "paynexus_async" and record.levelno >= above
    ]


def test_the_documentation_lists_every_event():
    """With its level and its fields, in their order."""
    rows = re.findall(
        r"^\| `([a-z._]+)` \| ([A-Z]+) \| .* \| (.*) \|$", DOCS.read_text("utf-8"), re.MULTILINE
    )
    documented = {
        name: (level, tuple(re.findall(r"`(\w+)`", fields))) for name, level, fields in rows
    }
    assert documented == {
        name: (logging.getLevelName(event.level), event.fields) for name, event in EVENTS.items()
    }


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_says_all_that_it_needs(name: str, caplog: pytest.LogCaptureFixture):
    """Its words name fields of its own, and none of these is a record's own."""
    event = EVENTS[name]
    words = set(re.findall(r"%\((\w+)\)", event.words))
    assert words <= set(event.fields)
    assert not A_RECORDS_OWN & set(event.fields)
    caplog.set_level(logging.DEBUG, "paynexus_async")
    say(name, **dict.fromkeys(event.fields, "x"))
    (record,) = caplog.records
    assert record.pathname == __file__
    assert record.getMessage().count("x") >= len(words)


def test_every_call_of_the_log_gives_the_fields_of_its_event():
    """No more and no fewer; and the log is spoken to in one place."""
    package = DOCS.parents[1] / "paynexus_async"
    used = set()
    for path in [*package.glob("*.py"), *package.glob("durable/*.py")]:
        source = path.read_text("utf-8")
        for call in ast.walk(ast.parse(source)):
            if not (isinstance(call, ast.Call) and getattr(call.func, "id", "") == "say"):
                continue
            names = [
                node.value for node in ast.walk(call.args[0]) if isinstance(node, ast.Constant)
            ]
            given = tuple(keyword.arg for keyword in call.keywords if keyword.arg != "exc_info")
            for name in names:
                used.add(name)
                assert given == EVENTS[name].fields, path
        assert path.name == "_log.py" or "getLogger" not in source
    assert used == set(EVENTS)


def test_a_value_is_told_as_text_or_a_number_and_only_if_somebody_listens(caplog):
    """A record can be written as JSON; what is costly to show is not shown in vain."""

    class Answer:
        shown = 0

        def __repr__(self) -> str:
            Answer.shown += 1
            return "<an answer>"

    caplog.set_level(logging.INFO, "paynexus_async")
    say("exchange.ended", method="GET", call="x", answer=Answer())
    assert (caplog.records, Answer.shown) == ([], 0)
    caplog.set_level(logging.DEBUG, "paynexus_async")
    say("exchange.ended", method="GET", call="x", answer=Answer())
    assert told(caplog, above=logging.DEBUG) == [
        {"event": "exchange.ended", "method": "GET", "call": "x", "answer": "<an answer>"}
    ]


@pytest.mark.anyio
async def test_the_story_of_a_payment_is_logged(server: FakeServer, caplog):
    """From its prompt to late truth; in fields, not in words alone."""
    caplog.set_level(logging.DEBUG, "paynexus_async")
    server.answers(
        initiated(), status("reversed?"), status("expired"), status("failed"), status("completed")
    )
    async with server.client() as paynexus:
        payment = await paynexus.pay(100, PHONE)
        for _ in range(2):
            await paynexus.get_payment_status(payment)
    story = [
        fields
        for fields in told(caplog, above=logging.DEBUG)
        if fields["event"] != "exchange.ended"
    ]
    about = {"payment": REFERENCE}
    assert story == [
        {"event": "payment.initiated", **about, "status": "initiated"},
        {"event": "payment.changed", **about, "status": "initiated", "previous_status": None},
        {"event": "payment.undocumented", **about, "status_text": "reversed?"},
        {"event": "payment.changed", **about, "status": "expired", "previous_status": "undocumented"},
        {"event": "payment.contradicted", **about, "status": "expired", "answered_status": "failed"},
        {"event": "payment.revised", **about, "status": "completed", "previous_status": "expired"},
    ]  # fmt: skip


@pytest.mark.anyio
async def test_what_needs_somebody_is_a_warning(server: FakeServer, caplog):
    """A lost answer, and a 429; phones are masked in fields too."""
    caplog.set_level(logging.INFO, "paynexus_async")
    server.answers(refusal(500), refusal(429, headers={"Retry-After": "7"}))
    async with server.client(max_retries=0) as paynexus:
        with pytest.raises(PaymentOutcomeUnknown) as lost:
            await paynexus.initiate_payment(100, PHONE)
        with pytest.raises(RateLimitError):
            await paynexus.get_payment_status_by_checkout_id(CHECKOUT_ID)
    assert told(caplog) == [
        {"event": "payment.unknown", "error": lost.value.message, "error_type": "PaymentOutcomeUnknown"},
        {"event": "quota.refused", "call": "get_payment_status_by_checkout_id", "seconds": 7.0},
    ]  # fmt: skip
    assert PHONE not in str([vars(record) for record in caplog.records])
