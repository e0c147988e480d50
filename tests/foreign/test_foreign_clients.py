"""Programs that know nothing of this package run unchanged against its sandbox."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from paynexus_async.sandbox import Ledger, SandboxServer

pytest.importorskip("trustme", reason="trustme is not installed: it makes the certificates")

from .interposer import Interposer

HERE = Path(__file__).parent
PHONE = "254746990866"


class Clock:
    now = 1_769_498_238.0

    def __call__(self) -> float:
        return self.now


def has_php_curl() -> bool:
    command = ["php", "-r", 'exit(extension_loaded("curl") ? 0 : 1);']
    return bool(shutil.which("php")) and subprocess.run(command, check=False).returncode == 0


def needs(there: object, what: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not there, reason=f"{what} is not installed")


PROGRAMS = [
    pytest.param(["sh", "curl.sh"], id="curl", marks=needs(shutil.which("curl"), "curl")),
    pytest.param(
        ["node", "axios.mjs"],
        id="axios",
        marks=needs(
            shutil.which("node") and (HERE / "node_modules/axios").is_dir(), "node with axios"
        ),
    ),
    pytest.param(["php", "php_curl.php"], id="php", marks=needs(has_php_curl(), "php with curl")),
    pytest.param([sys.executable, "requests_example.py"], id="requests"),
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_documentations_way_of_calling_works_unchanged(
    program: list[str], tmp_path: Path
) -> None:
    """With the real URL in it: documented answers, one prompt, and completed in the end."""
    clock = Clock()
    ledger = Ledger(clock=clock)
    with SandboxServer(ledger) as server, Interposer(server.url, tmp_path) as interposer:
        authority = interposer.environment()["CURL_CA_BUNDLE"]
        if program[0] == "php":
            program = ["php", "-d", f"curl.cainfo={authority}", *program[1:]]

        def run(*arguments: str) -> dict[str, Any]:
            ended = subprocess.run(
                [*program, *arguments],
                cwd=HERE,
                env={"PATH": os.environ["PATH"], **interposer.environment()},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert ended.returncode == 0, ended.stderr
            answers: dict[str, Any] = json.loads(ended.stdout)
            return answers

        first = run()
        assert all(answer["success"] is True for answer in first.values())
        data = first["initiate"]["data"]
        assert re.fullmatch(r"PNX[A-Z0-9]{9}", data["reference"])
        assert re.fullmatch(r"ws_CO_[0-9]{26}", data["checkout_request_id"])
        assert (data["amount"], data["phone"], data["status"]) == (100, PHONE, "initiated")
        assert first["by_reference"] == first["by_checkout_id"]
        read = first["by_reference"]["data"]
        assert (read["amount"], read["phone"], read["status"]) == ("100.00", PHONE, "initiated")
        assert first["validate_phone"]["data"] == {
            "original": "0746990866",
            "normalized": PHONE,
            "valid": True,
            "provider": "mpesa",
        }
        clock.now += 10
        later = run(data["reference"], data["checkout_request_id"])
        assert later["by_reference"]["data"]["status"] == "completed"
        assert later["by_reference"] == later["by_checkout_id"]
        assert interposer.tunnels > 0
        assert interposer.refused == interposer.failed == []
    (prompt,) = ledger.prompts
    assert (prompt.phone, prompt.amount, prompt.description) == (PHONE, 100, "Order #12345")


@pytest.mark.parametrize("configured", [True, False], ids=["its base_url", "its own address"])
def test_the_vendors_synchronous_client_works_unchanged(
    configured: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And this package's verbs carry its names, in its argument order."""
    gateway = pytest.importorskip("paynexus_gateway", reason="paynexus-gateway is not installed")
    clock = Clock()
    ledger = Ledger(clock=clock)
    with SandboxServer(ledger) as server, Interposer(server.url, tmp_path) as interposer:
        for name, value in interposer.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        options = {"base_url": server.url} if configured else {}
        with gateway.PayNexusClient("sk_x1234", **options) as client:
            answer = client.initiate_payment(100, "0746990866", "Order #12345")
            payment = answer.get("data", answer)
            assert payment["phone"] == PHONE
            clock.now += 10
            for answer in (
                client.get_payment_status(payment["reference"]),
                client.get_payment_status_by_checkout_id(payment["checkout_request_id"]),
            ):
                assert answer.get("data", answer)["status"] == "completed"
            answer = client.validate_phone("0746990866")
            assert answer.get("data", answer)["normalized"] == PHONE
        assert bool(interposer.tunnels) is not configured
        assert interposer.refused == interposer.failed == []
    assert len(ledger.prompts) == 1
