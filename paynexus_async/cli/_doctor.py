"""The command `doctor`: whether this machine, these keys and PayNexus can work together."""

from __future__ import annotations

import json as jsons
import os
import platform
import ssl
import sys
import time
from contextlib import contextmanager
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlsplit

import anyio
import attrs
import certifi
from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from .. import (
    APIConnectionError,
    APIResponse,
    APIStatusError,
    AsyncPayNexus,
    AuthenticationError,
    ConfigurationError,
    PayNexusError,
    PermissionDeniedError,
    RateLimitError,
    __version__,
)
from .._discreet import quoted
from .._wire import Secret, check_base_url, date_of, rate_limits
from ..client import BASE_URL
from . import _session
from ._keys import KEY_VARIABLES, doubt, key_in, problem
from ._outcome import Exit
from ._progress import duration

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CODES", "doctor"]

CODES: Final = "Exit codes: 0 nothing is wrong · 1 something is: each finding says what to do."

_PHONE: Final = "0700000000"  # validated, never prompted
_SKEW_SECONDS_MAX: Final = 60.0
_CONNECT_SECONDS: Final = 10.0
_PACKAGES: Final = (
    "httpx",
    "anyio",
    "cyclopts",
    "rich",
    "fastapi",
    "uvicorn",
    "aiohttp",
    "pyreqwest",
)
_PROXIES: Final = (
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "http_proxy",
    "HTTP_PROXY",
)
_WHERE: Final = _session.Where()


class State(Enum):
    """How bad a finding is."""

    FINE = "✔", "green"
    NOTE = "·", "yellow"
    WRONG = "✘", "bold red"


@attrs.frozen
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what.
        state: how bad it is.
        words: how it is.
        advice: what to do; empty where there is nothing.
    """

    name: str
    state: State
    words: str
    advice: str = ""


def doctor(
    *,
    where: Annotated[_session.Where, Parameter(name="*")] = _WHERE,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Look at keys, network, clock, quota and versions; say what is wrong, and what to do.

    It makes one call with each key, which asks whether a phone number is one, and never initiates
    anything. It prints no key.

    Parameters
    ----------
    json
        Print one JSON object for each finding.
    """
    examination = _Examination(where)
    anyio.run(examination.run)
    findings = examination.findings
    console = Console(highlight=False)
    for finding in findings:
        if json:
            document = attrs.asdict(finding) | {"state": finding.state.name.lower()}
            print(jsons.dumps({"event": "finding", **document}, ensure_ascii=False), flush=True)
            continue
        sign, style = finding.state.value
        console.print(
            Text.assemble((f"{sign} ", style), (f"{finding.name:<22}", "bold"), finding.words),
            soft_wrap=True,
        )
        if finding.advice:
            console.print(Text(f"  {'':22}{finding.advice}", style=style), soft_wrap=True)
    wrong = sum(finding.state is State.WRONG for finding in findings)
    if json:
        total = {"event": "result", "wrong": wrong, "calls": examination.calls}
        print(jsons.dumps(total), flush=True)
    else:
        verdict = f"{wrong} wrong" if wrong else "Nothing is wrong"
        calls = "1 call was" if examination.calls == 1 else f"{examination.calls} calls were"
        console.print(Text(f"{verdict}. {calls} made.", style="bold"))
    return Exit.ERROR if wrong else Exit.COMPLETED


class _Examination:
    """One look at everything."""

    def __init__(self, where: _session.Where) -> None:
        self.calls = 0
        self.findings: list[Finding] = []
        self._where = where
        self._told: set[str] = set()

    async def run(self) -> None:
        """Look at everything, the network last."""
        self.findings += _versions()
        keys = _sandbox_keys() if self._where.sandbox else self._keys()
        url = self._url()
        self.findings += _proxies()
        if url is None:
            return
        for variable, key in keys.items():
            await self._call(url, variable, key)
        if not keys:
            self.findings.append(await _reached(url))

    def _add(self, name: str, state: State, words: str, advice: str = "") -> None:
        self.findings.append(Finding(name, state, words, advice))

    def _keys(self) -> dict[str, Secret]:
        """Look at each key, and return those that may be sent."""
        usable: dict[str, Secret] = {}
        for variable in KEY_VARIABLES:
            key = key_in(variable)
            if key is None:
                continue
            if words := problem(variable, key):
                self._add(
                    variable,
                    State.WRONG,
                    words.removeprefix(f"{variable} "),
                    "Copy it anew from the PayNexus dashboard.",
                )
            elif words := doubt(variable, key):
                advice = "It was not sent. Copy it anew from the PayNexus dashboard."
                self._add(variable, State.WRONG, words.removeprefix(f"{variable} "), advice)
            else:
                self._add(variable, State.FINE, f"is there, of the kind {key.kind}…")
                usable[variable] = key
        set_ = [variable for variable in KEY_VARIABLES if os.environ.get(variable)]
        if not set_:
            words = "PAYNEXUS_SECRET_KEY and PAYNEXUS_PUBLIC_KEY are not set"
            self._add("keys", State.WRONG, words, "Set them; without any: paynexus demo.")
        elif set_ == ["PAYNEXUS_SECRET_KEY"]:
            advice = "Set PAYNEXUS_PUBLIC_KEY (pk_…): reading with it costs the secret key nothing."
            self._add("PAYNEXUS_PUBLIC_KEY", State.NOTE, "is not set", advice)
        elif set_ == ["PAYNEXUS_PUBLIC_KEY"]:
            words = "is not set: payments can be read, and none initiated"
            self._add("PAYNEXUS_SECRET_KEY", State.NOTE, words)
        return usable

    def _url(self) -> str | None:
        url = os.environ.get("PAYNEXUS_BASE_URL") or BASE_URL
        if self._where.sandbox:
            url = f"http://127.0.0.1:{self._where.port}/api"
        try:
            url = check_base_url(url)
        except ConfigurationError as error:
            words = str(error).replace("base_url", "PAYNEXUS_BASE_URL")
            self._add("base URL", State.WRONG, words, "Unset PAYNEXUS_BASE_URL for the real API.")
            return None
        is_real = url == BASE_URL
        self._add("base URL", State.FINE, quoted(url) + ("" if is_real else " (not the real API)"))
        return url

    async def _call(self, url: str, variable: str, key: Secret) -> None:
        """Ask with one key whether a number is a phone's: documented, harmless, and one call."""
        sent_at = time.time()
        try:
            response = await self._validated(url, key)
        except APIConnectionError as error:
            if "reached" not in self._told:
                self._told.add("reached")
                self.findings.append(await _reached(url, error))
            return
        except APIStatusError as error:
            response = error.response
            self._refused(variable, error)
        except PayNexusError as error:
            advice = "Is this the API's base URL? A proxy or a login page may be answering."
            self._add("API", State.WRONG, str(error), advice)
            return
        else:
            self._add("API", State.FINE, f"takes {variable}")
        if "clock" not in self._told:
            self._told.add("clock")
            self.findings += _clock(response, (sent_at + time.time()) / 2)
        self.findings.append(_quota(variable, response))

    async def _validated(self, url: str, key: Secret) -> APIResponse:
        """Make the call; a key for reading is all that it needs, whichever of the two it is."""
        is_public = key.kind == "pk_"
        async with _session.http_client(self) as http:
            with _no_keys_around():
                paynexus = AsyncPayNexus(
                    None if is_public else key.reveal(),
                    key.reveal() if is_public else None,
                    base_url=url,
                    timeout=self._where.timeout,
                    max_retries=0,
                    http_client=http,
                )
            async with paynexus:
                validation = await paynexus.validate_phone(_PHONE)
        assert validation.response is not None  # noqa: S101  # nosec B101  # it was read from one
        return validation.response

    def _refused(self, variable: str, error: APIStatusError) -> None:
        advice = "See the message."
        if isinstance(error, AuthenticationError):
            advice = f"{variable} is unknown or revoked: copy it anew from the dashboard."
        elif isinstance(error, PermissionDeniedError):
            advice = f"{variable} is of another kind, or another account's."
        elif isinstance(error, RateLimitError):
            advice = "The quota is spent: wait, or ask PayNexus for a larger plan."
        elif error.status_code == 404:
            advice = "Is this the API's base URL? It ends in /api."
        self._add("API", State.WRONG, str(error), advice)


@contextmanager
def _no_keys_around() -> Iterator[None]:
    """Hide the environment's keys from a client: it would read with the other one."""
    hidden = {v: os.environ.pop(v) for v in KEY_VARIABLES if v in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _sandbox_keys() -> dict[str, Secret]:
    from ..sandbox._engine import SECRET_KEY

    return {"the sandbox's key": Secret(SECRET_KEY)}


def _versions() -> Iterator[Finding]:
    words = f"paynexus-async {__version__}, Python {platform.python_version()} on {sys.platform}"
    yield Finding("version", State.FINE, words)
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"no {package}")
    yield Finding("packages", State.FINE, ", ".join(found))


def _proxies() -> Iterator[Finding]:
    names = sorted({name.upper() for name in _PROXIES if os.environ.get(name)})
    if names:
        words = f"{' and '.join(names)} in the environment: ignored, also by this command"
        advice = "If only a proxy leads out: AsyncPayNexus(trust_env=True)."
        yield Finding("proxy", State.NOTE, words, advice)


async def _reached(url: str, error: APIConnectionError | None = None) -> Finding:
    """Say how far a connection comes: name, address, TLS. No call is made."""
    parts = urlsplit(url)
    host, is_tls = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if is_tls else 80)
    try:
        with anyio.fail_after(_CONNECT_SECONDS):
            await anyio.getaddrinfo(host, port)
    except (OSError, TimeoutError) as failure:
        words = f"the name {quoted(host)} is not found: {quoted(str(failure))}"
        return Finding("network", State.WRONG, words, "Is this machine online? Ask its DNS.")
    context = ssl.create_default_context(cafile=certifi.where()) if is_tls else None
    try:
        with anyio.fail_after(_CONNECT_SECONDS):
            await _connected(host, port, context)
    except ssl.SSLError as failure:
        words = f"TLS with {quoted(host)} fails: {quoted(str(failure))}"
        advice = "Somebody may be in between (a proxy, a virus scanner), or this clock is wrong."
        return Finding("network", State.WRONG, words, advice)
    except (OSError, TimeoutError) as failure:
        words = f"{quoted(host)}:{port} does not answer: {quoted(str(failure) or 'too slow')}"
        advice = "A firewall, or nothing is running there (the sandbox: paynexus sandbox)."
        return Finding("network", State.WRONG, words, advice)
    if error is None:
        tls = ", TLS is fine" if is_tls else ""
        return Finding("network", State.FINE, f"{quoted(host)}:{port} can be reached{tls}")
    words = f"a connection comes about, and the call fails: {error}"
    return Finding("network", State.WRONG, words, "Try again; then ask PayNexus.")


async def _connected(host: str, port: int, context: ssl.SSLContext | None) -> None:
    stream = (
        await anyio.connect_tcp(host, port)
        if context is None
        else await anyio.connect_tcp(host, port, ssl_context=context, tls_hostname=host)
    )
    await stream.aclose()


def _clock(response: APIResponse, now: float) -> Iterator[Finding]:
    date = date_of(response.headers.get("date", ""))
    if date is None:
        yield Finding("clock", State.NOTE, "the answer has no date to compare with")
        return
    skew = now - date.timestamp()
    if abs(skew) <= _SKEW_SECONDS_MAX:
        yield Finding("clock", State.FINE, f"within {max(abs(skew), 1):.0f} s of PayNexus's")
        return
    words = f"{duration(abs(skew))} {'ahead of' if skew > 0 else 'behind'} PayNexus's"
    advice = "Set it (timedatectl set-ntp true): webhooks are refused by it, and TLS may fail."
    yield Finding("clock", State.WRONG, words, advice)


def _quota(variable: str, response: APIResponse) -> Finding:
    limits = rate_limits(response)
    if limits is None:
        return Finding("quota", State.NOTE, f"of {variable}: the answer does not tell it")
    words = (
        f"of {variable}: {limits.remaining:,} of {limits.limit:,} calls are left, anew in "
        f"{duration(limits.reset_seconds)}"
    )
    if limits.remaining == 0 and response.status_code == 429:
        return Finding("quota", State.WRONG, words, "Wait: until then every call is refused.")
    return Finding("quota", State.FINE, words)
