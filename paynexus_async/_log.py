"""What the package logs: named events, each with its level, its words and its fields."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EVENTS", "Event", "say"]

_logger: Final = logging.getLogger("paynexus_async")


@attrs.frozen
class Event:
    """Something that is logged.

    Attributes:
        level: of the record.
        words: of its message, with the fields in them.
        fields: its attributes, besides `event`: none of them is one of a record's own.
    """

    level: int
    words: str
    fields: tuple[str, ...]


EVENTS: Final[Mapping[str, Event]] = {
    "exchange.ended": Event(
        logging.DEBUG, "%(method)s %(call)s: %(answer)s", ("method", "call", "answer")
    ),
    "payment.initiated": Event(
        logging.INFO, "payment %(payment)s was initiated", ("payment", "status")
    ),
    "payment.unknown": Event(
        logging.WARNING, "the answer to an initiate was lost: %(error)s", ("error", "error_type")
    ),
    "payment.changed": Event(
        logging.DEBUG,
        "payment %(payment)s is %(status)s; it was %(previous_status)s",
        ("payment", "status", "previous_status"),
    ),
    "payment.undocumented": Event(
        logging.WARNING,
        "payment %(payment)s has the undocumented status %(status_text)r: it counts as not ended",
        ("payment", "status_text"),
    ),
    "payment.revised": Event(
        logging.WARNING,
        "payment %(payment)s was reported %(previous_status)s and is completed after all",
        ("payment", "status", "previous_status"),
    ),
    "payment.contradicted": Event(
        logging.WARNING,
        "payment %(payment)s is %(status)s; an answer that says %(answered_status)s "
        "changes nothing",
        ("payment", "status", "answered_status"),
    ),
    "quota.refused": Event(
        logging.WARNING,
        "PayNexus answers %(call)s with 429: nothing is sent with this key for %(seconds)s s",
        ("call", "seconds"),
    ),
    "durable.stranded": Event(
        logging.ERROR,
        "workflow %(workflow)s stops at %(error_type)s, and is run again",
        ("workflow", "error_type"),
    ),
    "durable.handler_failed": Event(
        logging.ERROR,
        "the handler failed for order %(order)s, and is called again: %(error)s",
        ("order", "error"),
    ),
    "durable.taken_over": Event(
        logging.WARNING, "%(count)s workflows had no worker any more, and are run again", ("count",)
    ),
    "durable.sweep_failed": Event(
        logging.WARNING, "the sweep met %(error_type)s, and comes again", ("error_type",)
    ),
    "checkout.untold": Event(
        logging.ERROR, "a customer cannot be told of a payment: %(error)s", ("error",)
    ),
    "checkout.refused": Event(
        logging.WARNING,
        "%(route)s is answered with %(status)s: %(error)s",
        ("route", "status", "error"),
    ),
    "checkout.failed": Event(
        logging.ERROR,
        "%(route)s is answered with %(status)s: %(error)s",
        ("route", "status", "error"),
    ),
}
"""By name; `docs/observability.md` explains them."""


def say(event: str, *, exc_info: BaseException | None = None, **fields: object) -> None:
    """Log an event.

    Args:
        event: its name.
        exc_info: an exception whose traceback is to be shown.
        fields: all of its fields. A value that is no number and no text is told by its `repr`, and
            only if somebody listens.
    """
    told = EVENTS[event]
    if _logger.isEnabledFor(told.level):
        plain = {name: _plain(value) for name, value in fields.items()}
        _logger.log(
            told.level,
            told.words,
            plain,
            exc_info=exc_info,
            extra={"event": event, **plain},
            stacklevel=2,
        )


def _plain(value: object) -> str | float | None:
    if value is None or isinstance(value, int | float):
        return value
    return str(value) if isinstance(value, str) else repr(value)
