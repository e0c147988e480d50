"""The commands about webhooks: `webhooks listen`, and `webhooks send`."""

from __future__ import annotations

import json as jsons
import time
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import httpx
from cyclopts import App, Parameter

from .. import ConfigurationError, InvalidRequestError
from .._discreet import quoted
from .._wire import Secret, expect_reference
from ..phone import normalize_phone
from ._listener import Heard, Listener
from ._numbers import Kes, ListeningPort  # noqa: TC001  # read when a command runs
from ._outcome import Exit

__all__ = ["webhooks"]

webhooks = App(
    name="webhooks",
    help="Receive webhooks on this machine, or send signed ones to an endpoint of yours.",
    help_epilogue=(
        "The webhook's secret (whsec_…) comes from PAYNEXUS_WEBHOOK_SECRET, or from --secret, "
        "which others on this machine can read. A delivery is a reason to look, and no proof: ask "
        "for the payment's status before you act on one."
    ),
)

SecretOption = Annotated[str | None, Parameter(env_var="PAYNEXUS_WEBHOOK_SECRET")]
Event = Literal["payment.completed", "payment.failed", "payment.initiated"]

_STATUS: Final = {
    "payment.completed": "completed",
    "payment.failed": "failed",
    "payment.initiated": "initiated",
}
_SEND_SECONDS: Final = 30.0
_ANSWER_BYTES_SHOWN_MAX: Final = 2_000


@webhooks.command
def listen(
    *,
    secret: SecretOption = None,
    port: ListeningPort = 8000,
    host: str = "127.0.0.1",
    forward: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Receive deliveries until Ctrl-C: verify each, print it, and pass it on.

    One with a wrong signature is refused with 401. What --forward's application does not answer
    with a 2xx is not acknowledged, so that it comes again.

    Parameters
    ----------
    secret
        The webhook's secret.
    port
        Where to listen; 0 takes a free one.
    host
        The address to listen on; 0.0.0.0 lets others in.
    forward
        A URL that gets each verified delivery, byte by byte and with its headers.
    json
        Print one JSON object for each delivery.
    """
    known, secret = _known(secret), None  # an error reporter shows what a function is called with
    if forward is not None:
        _check_url("--forward", forward)
    try:
        from ..sandbox._server import serve
    except ImportError as error:
        msg = f"{error.name} is missing: pip install 'paynexus-async[cli,sandbox]'"
        raise ImportError(msg, name=error.name) from error

    count = {True: 0, False: 0}

    def tell(heard: Heard) -> None:
        count[heard.status_code == 200] += 1
        print(heard.as_json() if json else heard, flush=True)

    def began(url: str) -> None:
        goes = f", passing on to {quoted(forward)}" if forward else ""
        if not json:
            print(f"Listening on {url}{goes}. Ctrl-C stops.", flush=True)

    try:
        serve(Listener(known, tell, forward), host=host, port=port, began=began)
    except OSError as error:
        msg = f"{error.strerror}; choose another with --port or --host"
        raise InvalidRequestError(msg) from error
    if not json:
        print(f"stopped: {count[True]:,} acknowledged, {count[False]:,} not", flush=True)
    return Exit.COMPLETED


@webhooks.command
def send(
    url: str,
    /,
    *,
    secret: SecretOption = None,
    event: Event = "payment.completed",
    reference: str = "PNXTEST00001",
    amount: Kes = 100,
    phone: str = "0712345678",
    forged: Annotated[bool, Parameter(negative="")] = False,
    stale: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Send a signed test delivery to an endpoint, or a bad one, and print its answer.

    Exit codes: 0 the endpoint did as it should: it took a good one, or refused (4xx) a bad one; 1
    it did not; 2 usage.

    Parameters
    ----------
    url
        The endpoint's.
    secret
        The secret that it verifies with.
    event
        What happened.
    reference
        The payment's.
    amount
        The payment's, in whole KES.
    phone
        The customer's.
    forged
        Sign it with another secret.
    stale
        Say in its timestamp that it is an hour old.
    json
        Print the answer as one JSON object.
    """
    known, secret = _known(secret), None  # an error reporter shows what a function is called with
    _check_url("the endpoint", url)
    expect_reference(reference)
    body = _body(event, reference, amount, normalize_phone(phone))
    from ..sandbox._webhooks import signed_headers

    faults = {"wrong-signature": forged, "stale-timestamp": stale}
    disorder = {name for name, is_asked in faults.items() if is_asked}
    headers = signed_headers(body, known.reveal(), now=time.time(), disorder=disorder)
    code, said = _post(url, body, headers)
    did_well, words = _verdict(code, forged=forged, stale=stale)
    if json:
        told = {
            "event": "answer",
            "name": event,
            "status_code": code,
            "body": said,
            "as_it_should": did_well,
            "message": words,
        }
        print(jsons.dumps(told, ensure_ascii=False), flush=True)
    else:
        print(f"{code or '---'}  {said}".rstrip(), words, sep="\n", flush=True)
    return Exit.COMPLETED if did_well else Exit.ERROR


def _known(secret: str | None) -> Secret:
    if secret is None or not secret.strip():
        msg = (
            "the webhook's secret (whsec_…) is missing: set PAYNEXUS_WEBHOOK_SECRET, or give "
            "--secret. It is told where a webhook is registered, by the sandbox too"
        )
        raise ConfigurationError(msg)
    return Secret(secret.strip())


def _check_url(name: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in {"http", "https"} and bool(parts.hostname and httpx.URL(url).host)
        is_one = is_one and parts.port != 0  # which raises, where it is none
    except (httpx.InvalidURL, ValueError):
        is_one = False
    if not is_one:
        msg = f"{name} must be a URL such as http://127.0.0.1:8000/webhooks, not {quoted(url)}"
        raise InvalidRequestError(msg)


def _body(event: Event, reference: str, amount: int, phone: str) -> bytes:
    """Write what the sandbox would tell of such a payment."""
    from ..sandbox import SCENARIOS, Prompt, Record, Step
    from ..sandbox._webhooks import event_body

    now = time.time()
    prompt = Prompt(
        reference=reference,
        checkout_request_id=f"ws_CO_{time.strftime('%d%m%Y%H%M%S')}{phone}",
        phone=phone,
        amount=amount,
        description="Test delivery",
        sent_at=now,
    )
    record = Record(number=1, prompt=prompt, scenario=SCENARIOS["paid"], receipt="TESTRECEI1")
    return event_body(event, record, Step(0.0, _STATUS[event]), now).encode()


def _post(url: str, body: bytes, headers: dict[str, str]) -> tuple[int | None, str]:
    """Return the status and the beginning of the answer; no status where none came."""
    try:
        with (
            httpx.Client(trust_env=False, timeout=_SEND_SECONDS) as client,
            client.stream("POST", url, content=body, headers=headers) as response,
        ):
            said = next(response.iter_bytes(_ANSWER_BYTES_SHOWN_MAX), b"")
            return response.status_code, quoted(said.decode("utf-8", "replace"))
    except (httpx.HTTPError, ValueError) as error:  # of hosts that are no names, idna's
        return None, quoted(f"{type(error).__name__}: {error}".removesuffix(": "))


def _verdict(code: int | None, *, forged: bool, stale: bool) -> tuple[bool, str]:
    """Return whether an endpoint did as it should, and what to think of it."""
    if code is None:
        return False, "No answer: is the endpoint running there?"
    is_taken, is_refused = 200 <= code < 300, 400 <= code < 500
    if not (forged or stale):
        words = "Acknowledged." if is_taken else "Not acknowledged: PayNexus would send it again."
        return is_taken, words
    if is_refused:
        return True, "Refused, as it should be."
    if not is_taken:
        return False, "Neither taken nor refused: a bad delivery is answered with 400 to 499."
    if forged:
        return False, "TAKEN, though it is forged: this endpoint believes whoever finds its URL."
    return False, "TAKEN, though it is an hour old: this endpoint does not look at the timestamp."
