"""The sandbox as tests use it: in process, in virtual time, with assertions that read well."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Self

from ..phone import mask_phones, normalize_phone
from ._engine import PUBLIC_KEY, SECRET_KEY, Ledger
from ._faults import Fault
from ._in_process import InProcess
from ._virtual_time import VirtualTime

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator, Mapping

    import httpx

    from ..models import Payment
    from ._engine import Call, Prompt
    from ._scenarios import Scenario

__all__ = ["Sandbox"]

_REJECTIONS: Final = (400, 401, 403, 404, 409, 422, 429)
"""The answers to an initiate that a client takes for a proof that nobody was prompted."""


class Sandbox:
    """A PayNexus for one test, in process and in virtual time.

    An event loop that uses `transport` jumps over all waiting, until the `with` block ends.

    Attributes:
        ledger: what is true.
        transport: reaches it without a socket: `httpx.AsyncClient(transport=sandbox.transport)`.
        base_url: of a client on this transport; nothing listens there.
        secret_key: initiates.
        public_key: reads.
    """

    base_url: Final = "https://sandbox.invalid/api"
    secret_key: Final = SECRET_KEY
    public_key: Final = PUBLIC_KEY

    def __init__(self, *, scenarios: Mapping[str, Scenario] | None = None) -> None:
        """Open a sandbox in which nothing has happened yet.

        Args:
            scenarios: some of your own, such as `load_scenarios` returns.

        Raises:
            ValueError: if one takes a name, a phone or an amount of the sandbox's own.
        """
        self._time = VirtualTime()
        self.ledger: Ledger = Ledger(clock=self._time, scenarios=scenarios)
        self._in_process = InProcess(self.ledger, self._time)
        self.transport: httpx.AsyncBaseTransport = self._in_process
        self._began_at = self._time()

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Let the event loops wait again as they did."""
        self._time.release()

    def __repr__(self) -> str:
        """Show how much has happened."""
        return f"<Sandbox {len(self.prompts)} prompts, {len(self.calls)} calls>"

    @property
    def loops(self) -> tuple[asyncio.AbstractEventLoop, ...]:
        """The event loops of asyncio's that have used `transport`."""
        return self._time.loops

    def adopt_running_loop(self) -> None:
        """Let the running event loop jump from now on, not only from its first request on.

        Raises:
            RuntimeError: if its clock cannot jump; the message says what to do.
        """
        self._time.adopt()

    # --- What is to happen

    def script(self, scenario: str | Scenario, *, phone: str | None = None) -> None:
        """Let the next payment (to *phone*) play a scenario, such as `"cancelled"`.

        Raises:
            ValueError: if there is no scenario of this name; the message lists all.
        """
        try:
            self.ledger.script(scenario, phone=phone)
        except KeyError:
            msg = f"scenario must be one of {', '.join(self.ledger.scenarios)}, not {scenario!r}"
            raise ValueError(msg) from None

    def lose_next_answer(self) -> None:
        """Lose the answer to the next initiate: its prompt goes out."""
        self.ledger.faults.add(Fault("reset-after", call="initiate", times=1))

    def refuse_next(self, status_code: int = 422) -> None:
        """Reject the next initiate: no prompt goes out.

        Args:
            status_code: 400, 401, 403, 404, 409 or 422; 429 rejects all initiates of a minute.

        Raises:
            ValueError: for another status code; its prompt may have gone out.
        """
        if status_code not in _REJECTIONS:
            codes = ", ".join(map(str, _REJECTIONS))
            msg = (
                f"status_code must be one of {codes}, not {status_code!r}: after any other, a "
                f"prompt may be out; that is lose_next_answer()"
            )
            raise ValueError(msg)
        kind = "rate-limit" if status_code == 429 else f"{status_code}-before"
        self.ledger.faults.add(Fault(kind, call="initiate", times=1))

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        """Refuse every connection of `transport` inside the block: nothing is sent."""
        self._in_process.reachable = False
        try:
            yield
        finally:
            self._in_process.reachable = True

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass at once, for the payments and for whoever waits in process."""
        self._time.advance(seconds)

    # --- What has happened

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """Every prompt that went out, in order: a customer sees each of them."""
        return self.ledger.prompts

    @property
    def calls(self) -> tuple[Call, ...]:
        """The latest API calls that arrived, in order."""
        return self.ledger.calls

    def status(self, payment: Payment | Prompt | str) -> str:
        """Return the true status of a payment (or of a prompt's, or of a reference's), now.

        Raises:
            KeyError: if there is no such payment.
        """
        reference = payment if isinstance(payment, str) else payment.reference
        return self.ledger.status(reference or "")

    def assert_prompted_once(self, phone: str) -> Prompt:
        """Fail unless exactly one prompt went to *phone*; return it."""
        __tracebackhide__ = True
        self._assert_prompted(phone, 1)
        normalized = normalize_phone(phone)
        return next(prompt for prompt in self.prompts if prompt.phone == normalized)

    def assert_not_prompted(self, phone: str) -> None:
        """Fail if any prompt went to *phone*."""
        __tracebackhide__ = True
        self._assert_prompted(phone, 0)

    def _assert_prompted(self, phone: str, expected: int) -> None:
        __tracebackhide__ = True
        prompted = self.ledger.prompted(phone)
        if prompted != expected:
            wanted = f"{'one' if expected else 'no'} prompt on {mask_phones(phone)}"
            msg = f"expected {wanted}, but {prompted} went out\n{self.story()}"
            raise AssertionError(msg)

    def story(self) -> str:
        """Tell all that has happened, line by line, phones masked."""
        lines = [(call.at, _line(call)) for call in self.calls]
        lines += self._in_process.notes
        told = [f"  {at - self._began_at:6.1f} s  {words}" for at, words in sorted(lines)]
        prompts = [
            f"  KES {prompt.amount} to {mask_phones(prompt.phone)}: {prompt.reference}, "
            f"now {self.status(prompt)}"
            for prompt in self.prompts
        ]
        return "\n".join(
            ("What happened:", *(told or ["  nothing"]), "Prompts:", *(prompts or ["  none"]))
        )


def _line(call: Call) -> str:
    words = (
        str(call.status_code or "---"),
        f"{call.method} {call.path}",
        call.reference,
        call.fault,
    )
    return "  ".join(word for word in words if word)
