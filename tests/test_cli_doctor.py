"""`paynexus doctor`: what is wrong is named, with what to do; no key is printed, nothing initiated."""

from __future__ import annotations

import ssl
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from paynexus_async._wire import Secret
from paynexus_async.cli import _doctor
from paynexus_async.cli._keys import doubt, problem
from paynexus_async.sandbox import Fault, Ledger, SandboxServer, create_app

from .fakes import PUBLIC_KEY, SECRET_KEY

if TYPE_CHECKING:
    from .shell import Shell


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _doctor._PROXIES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def clinic(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Both keys, a PayNexus that keeps the real time, and no network besides."""

    async def unresolved(*_: object) -> None:
        raise OSError("there is no network in tests")

    monkeypatch.setattr(anyio, "getaddrinfo", unresolved)
    monkeypatch.setenv("PAYNEXUS_SECRET_KEY", SECRET_KEY)
    monkeypatch.setenv("PAYNEXUS_PUBLIC_KEY", PUBLIC_KEY)
    shell.ledger = Ledger(clock=time.time, plan="trial")
    shell.transport = httpx.ASGITransport(app=create_app(shell.ledger))
    return shell


def findings(shell: Shell, *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    code, events = shell.json("doctor", *arguments)
    assert events[-1]["event"] == "result"
    assert (code == 1) == (events[-1]["wrong"] > 0)
    assert sum(event.get("state") == "wrong" for event in events) == events[-1]["wrong"]
    return code, {event["name"]: event for event in events[:-1]}


def test_where_all_is_well_it_is_zero(clinic: Shell):
    """One call with each key, of the documented kind that changes nothing; versions, clock, quota."""
    code, out, err = clinic("doctor")
    assert (code, err) == (0, "")
    assert "Nothing is wrong. 2 calls were made." in out
    assert [call.path for call in clinic.ledger.calls] == ["/mpesa/validate-phone"] * 2
    assert [call.key_kind for call in clinic.ledger.calls] == ["sk_", "pk_"]
    assert "29 of 30 calls are left, anew in " in out
    assert "within 1 s of PayNexus's" in out
    assert "paynexus-async " in out
    assert "cyclopts " in out
    assert not {SECRET_KEY[3:], PUBLIC_KEY[3:]} & set(out.split())
    assert SECRET_KEY not in out
    assert PUBLIC_KEY not in out


def test_it_looks_at_the_sandbox_too(clinic: Shell):
    """Without any key of one's own, and with one call."""
    code, found = findings(clinic, "--sandbox")
    assert code == 0
    assert "not the real API" in found["base URL"]["words"]
    assert len(clinic.ledger.calls) == 1


@pytest.mark.parametrize(
    ("secret", "public", "name", "state", "words"),
    [
        ("hello", None, "PAYNEXUS_SECRET_KEY", "wrong", "does not look like a key of PayNexus's: those begin with sk_… or sb_…"),
        (SECRET_KEY, "hello", "PAYNEXUS_PUBLIC_KEY", "wrong", "those begin with pk_… or sb_…"),
        ('"sk_live_1"', None, "PAYNEXUS_SECRET_KEY", "wrong", "has a quotation mark"),
        ("sk_live…", None, "PAYNEXUS_SECRET_KEY", "wrong", "is not a key"),
        ("sk_live_1 ", None, "PAYNEXUS_SECRET_KEY", "wrong", "look for a space"),
        (PUBLIC_KEY, None, "PAYNEXUS_SECRET_KEY", "wrong", "starts with pk_: that is the other key"),
        (None, SECRET_KEY, "PAYNEXUS_PUBLIC_KEY", "wrong", "starts with sk_: that is the other key"),
        (" ", None, "PAYNEXUS_SECRET_KEY", "wrong", "is blank"),
        (None, None, "keys", "wrong", "are not set"),
        (SECRET_KEY, None, "PAYNEXUS_PUBLIC_KEY", "note", "is not set"),
        (None, PUBLIC_KEY, "PAYNEXUS_SECRET_KEY", "note", "none initiated"),
        ("sb_test_123", None, "PAYNEXUS_SECRET_KEY", "fine", "of the kind sb_…"),
    ],
)  # fmt: skip
def test_each_key_is_judged_and_none_is_shown(
    clinic: Shell, monkeypatch, secret, public, name, state, words
):
    """What is hardly a key is not sent either: it may be a password."""
    for variable, key in (("PAYNEXUS_SECRET_KEY", secret), ("PAYNEXUS_PUBLIC_KEY", public)):
        monkeypatch.delenv(variable)
        if key is not None:
            monkeypatch.setenv(variable, key)
    _, found = findings(clinic)
    assert found[name]["state"] == state
    assert words in found[name]["words"]
    sendable = [key for key in (secret, public) if key and not _doubtful(key, key is secret)]
    assert len(clinic.ledger.calls) == len(sendable)
    shown = clinic("doctor")[1]
    assert not any(key in shown for key in (secret, public) if key and key.strip())


def _doubtful(key: str, is_secret: bool) -> bool:
    variable = "PAYNEXUS_SECRET_KEY" if is_secret else "PAYNEXUS_PUBLIC_KEY"
    return bool(problem(variable, Secret(key)) or doubt(variable, Secret(key)))


@pytest.mark.parametrize(
    ("fault", "name", "words", "advice"),
    [
        ("401-before", "API", "HTTP 401", "PAYNEXUS_SECRET_KEY is unknown or revoked"),
        ("403-before", "API", "HTTP 403", "is of another kind"),
        ("404-before", "API", "HTTP 404", "It ends in /api"),
        ("500-before", "API", "HTTP 500", "See the message"),
        ("html-200-before", "API", "cannot be understood", "a login page may be answering"),
        ("rate-limit", "quota", "0 of 30 calls are left", "until then every call is refused"),
    ],
)
def test_what_paynexus_says_is_told_with_what_to_do(clinic: Shell, fault, name, words, advice):
    """The second key is asked with all the same."""
    clinic.ledger.faults.add(Fault(fault))
    assert findings(clinic)[0] == 1
    assert len(clinic.ledger.calls) == 2  # none is made again
    first = next(f for f in clinic.json("doctor")[1] if f["name"] == name and f["state"] == "wrong")
    assert words in first["words"]
    assert advice in first["advice"]


@pytest.mark.parametrize(
    ("ahead", "state", "words"),
    [
        (timedelta(minutes=-7), "wrong", "7 min 00 s ahead of PayNexus's"),
        (timedelta(hours=2), "wrong", "2 h 00 min behind PayNexus's"),
        (timedelta(seconds=20), "fine", "within 20 s"),
        (None, "note", "no date to compare with"),
    ],
)
def test_a_wrong_clock_is_told(clinic: Shell, monkeypatch, ahead, state, words):
    """By the date of PayNexus's answer."""
    data = {"success": True, "data": {"valid": True}}
    now = datetime(2026, 1, 27, 7, 17, 18, tzinfo=UTC)
    monkeypatch.setattr(_doctor, "time", SimpleNamespace(time=now.timestamp))
    headers = {"Date": format_datetime(now + ahead, usegmt=True)} if ahead is not None else {}
    clinic.transport = httpx.MockTransport(
        lambda _: httpx.Response(200, json=data, headers=headers)
    )
    _, found = findings(clinic)
    assert found["clock"]["state"] == state
    assert words in found["clock"]["words"]
    assert found["quota"]["words"].endswith("the answer does not tell it")


def refuse(_: httpx.Request) -> httpx.Response:
    message = "no"
    raise httpx.ConnectError(message)


@pytest.mark.parametrize(
    ("failure", "words", "advice"),
    [
        (None, "a connection comes about, and the call fails", "Try again"),
        (
            ssl.SSLError(1, "certificate verify failed"),
            "TLS with paynexus.co.ke fails",
            "in between",
        ),
        (OSError("refused"), "paynexus.co.ke:443 does not answer: refused", "A firewall"),
        (TimeoutError(), "paynexus.co.ke:443 does not answer: too slow", "A firewall"),
    ],
)
def test_what_keeps_a_connection_from_coming_about_is_told(
    clinic: Shell, monkeypatch, failure, words, advice
):
    """Once, however many keys there are."""
    closed: list[bool] = []

    class Stream:
        async def aclose(self) -> None:
            closed.append(True)

    async def resolved(*_: object) -> list[object]:
        return []

    async def connected(host: str, port: int, **options: Any) -> Stream:
        assert (host, port, options["tls_hostname"]) == ("paynexus.co.ke", 443, "paynexus.co.ke")
        if failure is not None:
            raise failure
        return Stream()

    monkeypatch.setattr(anyio, "getaddrinfo", resolved)
    monkeypatch.setattr(anyio, "connect_tcp", connected)
    clinic.transport = httpx.MockTransport(refuse)
    code, found = findings(clinic)
    assert (code, found["network"]["state"]) == (1, "wrong")
    assert words in found["network"]["words"]
    assert advice in found["network"]["advice"]
    assert len(closed) == (failure is None)


def test_a_name_that_is_not_found_is_told(clinic: Shell, monkeypatch):
    """And proxies of the environment are named, which the client ignores."""

    async def unresolved(*_: object) -> None:
        message = "Name or service not known"
        raise OSError(message)

    monkeypatch.setattr(anyio, "getaddrinfo", unresolved)
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    clinic.transport = httpx.MockTransport(refuse)
    code, found = findings(clinic)
    assert code == 1
    assert "the name paynexus.co.ke is not found: Name or service" in found["network"]["words"]
    assert "HTTPS_PROXY in the environment: ignored" in found["proxy"]["words"]
    assert "proxy.example" not in str(found)


def test_without_keys_the_network_is_looked_at_without_a_call(shell: Shell, monkeypatch):
    """A connection is opened and closed."""
    with SandboxServer(Ledger(clock=time.time)) as server:
        monkeypatch.setenv("PAYNEXUS_BASE_URL", server.url)
        monkeypatch.setattr(anyio, "run", _doctor.anyio.run.func)  # type: ignore[attr-defined]
        code, found = findings(shell)
        assert server.ledger.calls == ()
    assert code == 1  # no keys
    assert "can be reached" in found["network"]["words"]


@pytest.mark.parametrize("url", ["http://paynexus.co.ke/api", "https://user@x/"])
def test_a_base_url_that_keys_must_not_travel_to_is_told(clinic: Shell, monkeypatch, url):
    """And nothing is sent there."""
    monkeypatch.setenv("PAYNEXUS_BASE_URL", url)
    code, found = findings(clinic)
    assert (code, found["base URL"]["state"]) == (1, "wrong")
    assert "PAYNEXUS_BASE_URL must be" in found["base URL"]["words"]
    assert clinic.ledger.calls == ()


def test_what_is_not_installed_is_told(clinic: Shell, monkeypatch):
    """Extras are a matter of choice."""
    monkeypatch.setattr(_doctor, "_PACKAGES", ("httpx", "no-such-package"))
    code, found = findings(clinic)
    assert code == 0
    assert found["packages"]["words"].endswith(", no no-such-package")


def test_a_key_of_an_unknown_kind_is_used_by_other_commands_and_doubted(clinic: Shell, monkeypatch):
    """PayNexus may have kinds of tomorrow's; a mistake is named before its consequence."""
    monkeypatch.setenv("PAYNEXUS_SECRET_KEY", "hello")
    code, _, err = clinic("validate-phone", "0746990866")
    assert code == 0
    assert err == (
        "paynexus: PAYNEXUS_SECRET_KEY does not look like a key of PayNexus's: those begin with "
        "sk_… or sb_…. `paynexus doctor` looks closer.\n"
    )
    assert clinic("validate-phone", "0746990866", "--sandbox")[2] == ""
