"""`paynexus webhooks listen` and `send`: one believes only what is signed, the other signs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import attrs
import httpx
import pytest

from paynexus_async import parse_webhook
from paynexus_async._wire import Secret
from paynexus_async.cli import _webhooks, main
from paynexus_async.cli._listener import Heard, Listener
from paynexus_async.sandbox import Ledger, Request, SandboxServer, _server
from paynexus_async.sandbox._webhooks import signed_headers

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "whsec_0123456789abcdef"
BODY = json.dumps(
    {
        "event": "payment.completed",
        "timestamp": "2026-01-27T10:17:18+03:00",
        "data": {"reference": "PNXABC123DEF", "status": "completed", "amount": "100.00", "phone": "254746990866"},
    }
).encode()  # fmt: skip


class Application(BaseHTTPRequestHandler):
    """What stands behind the listener."""

    status = 200
    got: list[tuple[dict[str, str], bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def application(status: int = 200) -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    kind = type("Kind", (Application,), {"status": status, "got": []})
    with HTTPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/hook", kind.got  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()


def deliver(
    body: bytes = BODY,
    *,
    forward: str | None = None,
    method: str = "POST",
    headers: Any = None,
    signed_with: str = SECRET,
) -> tuple[httpx.Response, Heard]:
    """Hand a delivery to a listener in process."""
    told: list[Heard] = []
    listener = Listener(Secret(SECRET), told.append, forward)
    headers = signed_headers(body, signed_with, now=time.time()) if headers is None else headers

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=listener)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport) as client:
            return await client.request(method, "http://x/any/path", content=body, headers=headers)

    response = asyncio.run(send())
    (heard,) = told
    assert heard.status_code == response.status_code
    return response, heard


def test_a_signed_delivery_is_acknowledged_as_documented():
    """And told in one line, with the phone masked."""
    response, heard = deliver()
    assert response.status_code == 200
    assert response.json() == {"ResultCode": 0, "ResultDesc": "Accepted"}
    assert (
        str(heard)[8:] == "  200  payment.completed  PNXABC123DEF  completed  KES 100  2547*****866"
    )
    document = json.loads(heard.as_json())
    assert (document["event"], document["name"], document["status_code"]) == ("delivery", "payment.completed", 200)  # fmt: skip
    assert document["payment"]["phone"] == "2547*****866"
    assert "746990866" not in heard.as_json()


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        ({"signed_with": "another"}, 401, "not that of any secret"),
        ({"headers": {}}, 401, "has no signature"),
        ({"headers": signed_headers(BODY, SECRET, now=0.0)}, 401, "is not within 300 s"),
        ({"headers": [*signed_headers(BODY, SECRET, now=time.time()).items(), ("X-PayNexus-Signature", "x")]}, 401, "not that of any secret"),
        ({"method": "GET"}, 405, "sent with POST"),
        ({"body": b"x" * (1024 * 1024 + 1)}, 413, "larger than 1,048,576 bytes"),
    ],
)  # fmt: skip
def test_what_is_not_signed_is_refused_and_not_passed_on(request_, code, words):
    """With the reason, to the sender and on the screen."""
    with application() as (url, got):
        response, heard = deliver(forward=url, **request_)
    assert (response.status_code, response.json()["ResultCode"]) == (code, 1)
    assert words in response.json()["ResultDesc"]
    assert words in str(heard)
    assert words in json.loads(heard.as_json())["message"]
    assert got == []


@pytest.mark.parametrize(
    ("body", "line"),
    [(b'{"event": "invoice.paid"}', "invoice.paid"), (b"nonsense", "signed and cannot be understood")],
)  # fmt: skip
def test_what_is_about_no_payment_is_acknowledged_too(body, line):
    """It would only come again."""
    with application() as (url, got):
        for forward in (None, url):
            response, heard = deliver(body, forward=forward)
            assert response.status_code == 200
            assert line in str(heard)
    assert [passed for _, passed in got] == [body]
    assert (
        "payment" not in json.loads(heard.as_json())
        or json.loads(heard.as_json())["payment"] is None
    )


def test_it_is_passed_on_as_it_came():
    """Byte by byte and with its headers, so that the application can verify it once more."""
    with application(204) as (url, got):
        response, heard = deliver(forward=url)
    ((headers, body),) = got
    assert parse_webhook(body, headers, SECRET).reference == "PNXABC123DEF"
    assert headers["host"] == url.split("/")[2]
    assert response.status_code == 200
    assert str(heard).endswith("→ 204")
    assert json.loads(heard.as_json())["forwarded"] == 204


def test_what_the_application_does_not_take_is_not_acknowledged():
    """So that the sender tries again."""
    with application(500) as (url, _):
        response, heard = deliver(forward=url)
        assert response.status_code == 502
        assert "→ 500  not acknowledged: the application did not take it" in str(heard)
    response, heard = deliver(forward=url)
    assert (response.status_code, heard.forwarded) == (502, None)
    assert "does not answer (ConnectError" in str(heard)


# --- The commands


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYNEXUS_WEBHOOK_SECRET", SECRET)


def run(capsys: Any, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["webhooks", *arguments])
    out, err = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, out, err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("listen", "--secret", ""), "set PAYNEXUS_WEBHOOK_SECRET"),
        (("listen", "--secret", " "), "set PAYNEXUS_WEBHOOK_SECRET"),
        (("listen", "--forward", "shop"), "--forward must be a URL"),
        (("listen", "--port", "99999"), "ports go from 0 to 65535, not 99999"),
        (("listen", "whsec_0123456789abcdef"), "nothing more was expected: whsec_…"),
        (("listen", "shop"), "Try: paynexus webhooks listen --help"),
        (("listen", "--host", "2001:db8::1", "--port", "0"), "cannot listen on 2001:db8::1:0"),
        (("send", "http://127.0.0.1:1/", "--secret", ""), "set PAYNEXUS_WEBHOOK_SECRET"),
        (("send", "127.0.0.1:1"), "the endpoint must be a URL"),
        (("send", "http://["), "the endpoint must be a URL"),
        (("send", "http://127.0.0.1:99999/"), "the endpoint must be a URL"),
        *(
            (("send", "http://127.0.0.1:1/", "--amount", amount), f"1 to 150,000, such as 100, not {amount}")
            for amount in ("-3", "0", "1e9", "nan", "1.5", "150001", "99999999", "1_0")
        ),
        (("send", "http://127.0.0.1:1/", "--reference", "a b/c"), "reference must be 1 to 64 letters"),
        (("send", "http://127.0.0.1:1/", "--phone", "12"), "phone is not"),
        (("send", "http://127.0.0.1:1/", "--event", "x"), "Choose from"),
    ],
)  # fmt: skip
def test_wrong_usage_is_two(capsys, arguments, words):
    """And never shows the secret."""
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert words in out + err
    assert SECRET not in out + err


def test_a_taken_port_is_told(capsys):
    """With a way out."""
    with SandboxServer(Ledger(clock=time.time)) as server:
        port = str(httpx.URL(server.url).port)
        code, _, err = run(capsys, "listen", "--port", port)
    assert code == 2
    assert "choose another with --port or --host" in err


@pytest.mark.parametrize("as_json", [False, True])
def test_it_listens_until_ctrl_c(capsys, monkeypatch, as_json):
    """On a real socket of this machine; what the sandbox tells comes in."""
    began: list[str] = []
    serve = _server.serve

    def spied(app: Any, *, host: str, port: int, began: Any) -> None:
        def reached(url: str) -> None:
            began(url)
            threading.Thread(target=deliver_to, args=(url,)).start()

        serve(app, host=host, port=port, began=reached)

    def deliver_to(url: str) -> None:
        headers = signed_headers(BODY, SECRET, now=time.time())
        began.append(url)
        assert httpx.post(url, content=BODY, headers=headers).status_code == 200
        assert httpx.post(url, content=BODY).status_code == 401
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(_server, "serve", spied)
    code, out, _ = run(capsys, "listen", "--port", "0", *(["--json"] if as_json else []))
    assert code == 0
    assert began[0].startswith("http://127.0.0.1:")
    lines = out.splitlines()
    if as_json:
        assert [json.loads(line)["status_code"] for line in lines] == [200, 401]
    else:
        assert lines[0] == f"Listening on {began[0]}. Ctrl-C stops."
        assert "  200  payment.completed  PNXABC123DEF" in lines[1]
        assert lines[-1] == "stopped: 1 acknowledged, 1 not"


def test_it_hears_what_the_sandbox_sends():
    """A real process beside a real sandbox: payment, signature, and what is printed."""
    ledger = Ledger(clock=time.time, speed=100)
    with SandboxServer(ledger):
        endpoint = ledger.webhooks.register("http://127.0.0.1:1/")
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "paynexus_async", "webhooks", "listen", "--port", "0"],
            env={**os.environ, "PAYNEXUS_WEBHOOK_SECRET": endpoint.secret},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        url = process.stdout.readline().split()[2].removesuffix(".")
        ledger.webhooks._endpoints[endpoint.number] = attrs.evolve(endpoint, url=url)
        body = b'{"amount": 100, "phone": "0746990866"}'
        ledger.script("paid")
        ledger.handle(Request("POST", "/mpesa/payment/initiate", "sk_x", body))
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=20)
    assert ["payment.initiated" in lines[0], "payment.completed" in lines[1]] == [True, True]
    assert "stopped: 2 acknowledged, 0 not" in rest
    assert process.returncode == 0


def test_a_missing_server_is_named(capsys, monkeypatch):
    """With the command that installs it."""
    monkeypatch.delitem(sys.modules, "paynexus_async.sandbox._server")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, _, err = run(capsys, "listen")
    assert code == 2
    assert "uvicorn is missing: pip install 'paynexus-async[cli,sandbox]'" in err


@pytest.mark.parametrize(("event", "status"), [*_webhooks._STATUS.items()])
def test_what_is_sent_is_what_the_sandbox_would_send(capsys, event, status):
    """Signed, in the documented shape, about the payment that was asked for."""
    options = (
        "--event",
        event,
        "--reference",
        "PNXMINE1",
        "--amount",
        "7",
        "--phone",
        "0746990866",
    )
    with application() as (url, got):
        code, out, _ = run(capsys, "send", url, *options)
    ((headers, body),) = got
    told = parse_webhook(body, headers, SECRET)
    assert (code, out) == (0, "200  ok\nAcknowledged.\n")
    assert told.name == event
    assert told.payment is not None
    assert (told.payment.reference, told.payment.amount, told.payment.phone) == (
        "PNXMINE1",
        7,
        "254746990866",
    )
    assert told.payment.status == status
    assert bool(told.payment.receipt) == (status == "completed")


@pytest.mark.parametrize(
    ("status", "options", "code", "words"),
    [
        (503, (), 1, "Not acknowledged: PayNexus would send it again."),
        (401, ("--forged",), 0, "Refused, as it should be."),
        (400, ("--stale",), 0, "Refused, as it should be."),
        (200, ("--forged",), 1, "TAKEN, though it is forged"),
        (200, ("--stale",), 1, "TAKEN, though it is an hour old"),
        (500, ("--forged",), 1, "Neither taken nor refused"),
    ],
)  # fmt: skip
def test_an_endpoint_is_judged_by_what_it_should_do(capsys, status, options, code, words):
    """For a script: 0 where it did."""
    with application(status) as (url, got):
        ended, out, _ = run(capsys, "send", url, *options)
        again = run(capsys, "send", url, "--json", *options)
    assert (ended, words in out) == (code, True)
    document = json.loads(again[1])
    assert (again[0], document["status_code"], document["as_it_should"]) == (
        code,
        status,
        code == 0,
    )
    for headers, body in got:
        is_signed = (
            headers["x-paynexus-signature"]
            == signed_headers(body, SECRET, now=0)["X-PayNexus-Signature"]
        )
        assert is_signed == ("--forged" not in options)
        age = time.time() - int(headers["x-paynexus-timestamp"])
        assert (age > 3_000) == ("--stale" in options)


def test_the_secret_may_stand_in_the_command(capsys):
    """Before that of the environment."""
    with application() as (url, got):
        run(capsys, "send", url, "--secret", "another")
    ((headers, body),) = got
    assert parse_webhook(body, headers, "another").name == "payment.completed"


def test_an_endpoint_that_is_not_there_is_told(capsys):
    """What was tried, and what to look at."""
    with application() as (url, _):
        pass
    code, out, _ = run(capsys, "send", url)
    assert code == 1
    assert out.startswith("---  ConnectError")
    assert "is the endpoint running there?" in out
