"""What a checkout answers a customer whose order met an error of this room."""

from __future__ import annotations

from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import attrs

from .._checkout import CustomerState, customer_answer, not_known, problem
from ..exceptions import PayNexusError
from ._orders import OrderConflictError, OrderState, OrderStillOpenError
from ._payments import OrderNotPromptedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._checkout import Answer, Tokens

__all__: list[str] = []

_CONFLICT: Final = (
    HTTPStatus.CONFLICT,
    "order-conflict",
    (
        "This order was asked for before, and not like this: nothing was sent now. If a request is "
        "on your phone, it counts."
    ),
)

_NOT_PROMPTED: Final[Mapping[OrderState, tuple[HTTPStatus, str, str]]] = MappingProxyType(
    {
        OrderState.REJECTED: (
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "refused",
            "The payment service refused this request: none was sent to your phone.",
        ),
        OrderState.NEVER_SENT: (
            HTTPStatus.SERVICE_UNAVAILABLE,
            "not-sent",
            "The request could not be sent. Nothing is on your phone: you may try again.",
        ),
    }
)

_STANDS: Final[Mapping[OrderState, CustomerState]] = MappingProxyType(
    {
        OrderState.PROMPTING: CustomerState.PENDING,
        OrderState.PENDING: CustomerState.PENDING,
        OrderState.COMPLETED: CustomerState.COMPLETED,
    }
)


@customer_answer.register(OrderConflictError)
def _conflict(error: OrderConflictError, _: Tokens) -> Answer:
    return _again(problem(error, _CONFLICT))


@customer_answer.register(OrderNotPromptedError)
def _not_prompted(error: OrderNotPromptedError, tokens: Tokens) -> Answer:
    """Answer as to what the prompt met, where that is known here."""
    cause = error.__cause__
    if isinstance(cause, PayNexusError):
        answer = customer_answer(cause, tokens)
        if answer.status != HTTPStatus.ACCEPTED:
            return _again(answer)
    return _again(problem(error, _NOT_PROMPTED[error.state]))


@customer_answer.register(OrderStillOpenError)
def _still_open(error: OrderStillOpenError, _: Tokens) -> Answer:
    """Tell how the order stands, and no more: that it is this customer's was not proven."""
    state = _STANDS.get(error.state, CustomerState.UNKNOWN)
    if state is CustomerState.COMPLETED:
        return not_known(state, is_over=True)
    return _again(not_known(state), is_next=False)


def _again(answer: Answer, *, is_next: bool = True) -> Answer:
    """Say to the page whether the next request for this order is to ask for another attempt.

    Without that, a request is for the last attempt, and whoever may follow it is given its token.
    """
    return attrs.evolve(answer, document={**answer.document, "again": is_next})
