"""What the client tells of its work to whoever observes it: by default, nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from contextlib import AbstractContextManager

    from .exceptions import PayNexusError
    from .models import Payment, PaymentResult, PaymentUpdate

__all__ = ["NOBODY", "Bulk", "Calls", "Observer", "Operation", "Verb", "Waits"]

Verb = Literal["initiate_payment", "wait_for_completion"]
Bulk = Literal["check_payments", "wait_many"]


class Operation(Protocol):
    """Hears how one call of the interface goes."""

    def looked(self, attempt: int, found: Payment | PayNexusError) -> None:
        """Hear of a status call: the how manyth of this wait, and what came of it."""
        ...

    def changed(self, update: PaymentUpdate) -> None:
        """Hear of a change of the payment that is waited for."""
        ...

    def ended(self, payment: Payment) -> Payment:
        """Hear what is returned, and return it."""
        ...


class Waits(Protocol):
    """Knows who waits. Asked from any thread."""

    def waiters(self) -> int:
        """Count those who wait for a payment."""
        ...


class Calls(Protocol):
    """Knows the quota. Asked from any thread."""

    def calls_left(self) -> Mapping[str, int]:
        """Return the calls left to each key, by its kind, where that is known."""
        ...


class Observer(Protocol):
    """Hears how a client works; nothing that it is told names a customer or holds a key.

    It is called in the midst of the work: it must be quick, and raise nothing.
    """

    def attach(self, waits: Waits, calls: Calls) -> None:
        """Learn whom to ask how things stand."""
        ...

    def operation(self, verb: Verb) -> AbstractContextManager[Operation]:
        """Hear of a call from its beginning to its end."""
        ...

    def bulk(
        self, verb: Bulk, results: AsyncGenerator[PaymentResult, None]
    ) -> AsyncGenerator[PaymentResult, None]:
        """Pass on the results of a call about many payments."""
        ...

    def changed(self, update: PaymentUpdate, age_seconds: float | None) -> None:
        """Hear that an answer tells another status of a payment than was known.

        Args:
            update: the change; what was not known before is one too.
            age_seconds: how old the payment is, if that is known.
        """
        ...


class _Nobody:
    """Hears nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def looked(self, attempt: int, found: Payment | PayNexusError) -> None:
        pass

    def ended(self, payment: Payment) -> Payment:
        return payment

    def attach(self, waits: Waits, calls: Calls) -> None:
        pass

    def operation(self, verb: Verb) -> Self:
        return self

    def bulk(
        self, verb: Bulk, results: AsyncGenerator[PaymentResult, None]
    ) -> AsyncGenerator[PaymentResult, None]:
        return results

    def changed(self, update: PaymentUpdate, age_seconds: float | None = None) -> None:
        pass


NOBODY: Final = _Nobody()
"""Observes neither an operation nor a client, at the price of a call of a method."""
