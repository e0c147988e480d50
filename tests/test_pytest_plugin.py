"""The pytest plugin: each claim of it in a small project of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from .stopwatch import Stopwatch

if TYPE_CHECKING:
    from pathlib import Path

pytest_plugins = ("pytester",)

INI = """
[pytest]
filterwarnings = error
addopts = -p no:cacheprovider -p no:looptime_plugin
"""
ASYNCIO_STRICT = "asyncio_mode = strict\nasyncio_default_fixture_loop_scope = function\n"
ASYNCIO_AUTO = ASYNCIO_STRICT.replace("strict", "auto")
ANYIO = """
import pytest, trio.testing

@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    if request.param == "asyncio":
        return "asyncio"
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}
"""
PAYS = """
    from paynexus_async import PaymentStillPending

    {mark}
    async def test_it_pays(paynexus, paynexus_sandbox):
        payment = await paynexus.pay(100, "0746990866")
        assert payment.succeeded
        assert paynexus_sandbox.status(payment) == "completed"
        paynexus_sandbox.assert_prompted_once("0746990866")
        paynexus_sandbox.assert_not_prompted("0712345678")

    {mark}
    async def test_it_waits_for_minutes(paynexus, paynexus_sandbox):
        paynexus_sandbox.script("stuck")
        with pytest.raises(PaymentStillPending):
            await paynexus.pay(100, "0746990866", max_wait=120)
        paynexus_sandbox.script("expired")
        assert (await paynexus.pay(101, "0746990866")).status == "expired"
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """Runs a project in this process, where only its files say how; returns what came of it."""
    # A setting of the environment must not reach a client in a test.
    monkeypatch.setenv("PAYNEXUS_BASE_URL", "https://elsewhere.invalid/api")

    def run(test: str, *without: str, ini: str = "", conftest: str = "") -> pytest.RunResult:
        pytester.makeini(INI + ini)
        pytester.makeconftest(conftest)
        pytester.makepyfile("import pytest\n\n" + textwrap.dedent(test))
        return pytester.runpytest_inprocess(*(f"-pno:{plugin}" for plugin in without))

    return run


def marked(test: str, mark: str) -> str:
    return test.replace("{mark}", mark)


def test_pytest_asyncio_in_strict_mode(project):
    """Minutes of a payment's life take no time."""
    with Stopwatch() as watch:
        result = project(marked(PAYS, "@pytest.mark.asyncio"), ini=ASYNCIO_STRICT)
        result.assert_outcomes(passed=2)
        assert watch.seconds < 10


def test_pytest_asyncio_in_auto_mode(project):
    """Without a mark."""
    project(marked(PAYS, ""), ini=ASYNCIO_AUTO).assert_outcomes(passed=2)


def test_anyio_on_both_backends(project):
    """Each with the clock that it has."""
    project(marked(PAYS, "@pytest.mark.anyio"), "asyncio", conftest=ANYIO).assert_outcomes(passed=4)


def test_anyio_in_auto_mode(project):
    """Without a mark."""
    result = project(marked(PAYS, ""), "asyncio", ini="anyio_mode = auto\n", conftest=ANYIO)
    result.assert_outcomes(passed=4)


def test_trio_without_a_clock_that_jumps_is_told_what_to_write(project):
    """Not a test that takes a minute."""
    conftest = ANYIO.replace(
        '"trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}', '"trio"'
    )
    result = project(marked(PAYS, "@pytest.mark.anyio"), "asyncio", conftest=conftest)
    result.assert_outcomes(passed=2, errors=2)
    result.stdout.fnmatch_lines(["*UsageError: on trio*", "*MockClock(autojump_threshold=0)}"])


def test_no_plugin_for_async_tests_is_needed(project):
    """A test may run a loop by itself."""
    test = """
    import asyncio

    def test_it_pays(paynexus, paynexus_sandbox):
        payment = asyncio.run(paynexus.pay(100, "0746990866"))
        assert payment.succeeded

    def test_nothing_has_to_happen(paynexus):
        pass
    """
    project(test, "asyncio", "anyio").assert_outcomes(passed=2)


def test_loops_and_fixtures_of_the_projects_own(project):
    """A loop for a whole class, async fixtures before and after the test, a test that is sync."""
    test = """
    import asyncio
    import time

    import pytest_asyncio

    @pytest_asyncio.fixture
    async def order(paynexus):
        payment = await paynexus.initiate_payment(100, "0746990866")
        yield payment
        assert (await paynexus.get_payment_status(payment.reference)).succeeded

    @pytest.mark.asyncio
    async def test_an_async_fixture_pays(order, paynexus):
        assert (await paynexus.wait_for_completion(order)).succeeded

    @pytest.mark.asyncio(loop_scope="class")
    class TestOneLoop:
        @pytest.mark.parametrize("turn", range(3))
        async def test_it_pays(self, paynexus, paynexus_sandbox, turn):
            before = asyncio.get_running_loop().time()
            assert (await paynexus.pay(100, "0746990866")).succeeded
            assert len(paynexus_sandbox.prompts) == 1
            assert asyncio.get_running_loop().time() - before > 9

        async def test_then_time_passes_as_it_does(self):
            started = time.monotonic()
            await asyncio.sleep(0.05)
            assert time.monotonic() - started > 0.04

        async def test_closed_clients_have_no_tasks(self):
            assert asyncio.all_tasks() == {asyncio.current_task()}
    """
    project(test, ini=ASYNCIO_STRICT).assert_outcomes(passed=6)


def test_the_same_ledger_on_a_socket(project):
    """For code that knows no async client; time is moved by hand."""
    test = """
    import requests

    def test_it_pays(paynexus_server, paynexus_sandbox):
        keys = {"X-API-Key": paynexus_sandbox.secret_key}
        order = {"amount": 100, "phone": "0746990866"}
        url = paynexus_server.url
        answer = requests.post(f"{url}/mpesa/payment/initiate", json=order, headers=keys, timeout=9)
        reference = answer.json()["data"]["reference"]
        paynexus_sandbox.assert_prompted_once("0746990866")
        assert paynexus_sandbox.status(reference) == "initiated"
        paynexus_sandbox.advance(10)
        answer = requests.get(f"{url}/payments/{reference}", headers=keys, timeout=9)
        assert answer.json()["data"]["status"] == "completed"

    @pytest.mark.asyncio
    async def test_both_at_once(paynexus, paynexus_server, paynexus_sandbox):
        from paynexus_async import AsyncPayNexus

        paynexus_sandbox.script("instant")
        payment = await paynexus.initiate_payment(100, "0746990866")
        keys = paynexus_sandbox.secret_key, paynexus_sandbox.public_key
        async with AsyncPayNexus(*keys, base_url=paynexus_server.url) as other:
            assert (await other.get_payment_status(payment.reference)).succeeded
    """
    project(test, ini=ASYNCIO_STRICT).assert_outcomes(passed=2)


def test_a_failing_assertion_tells_what_happened(project):
    """Calls and prompts, phones masked."""
    test = """
    @pytest.mark.asyncio
    async def test_it_sends_one(paynexus, paynexus_sandbox):
        phone = "07469" + "90866"
        paynexus_sandbox.refuse_next(422)
        with pytest.raises(Exception):
            await paynexus.initiate_payment(100, phone)
        await paynexus.pay(100, phone)
        await paynexus.initiate_payment(100, phone)
        paynexus_sandbox.assert_prompted_once(phone)
    """
    result = project(test, ini=ASYNCIO_STRICT)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            ">*assert_prompted_once(phone)",
            "E*AssertionError: expected one prompt on 07*****866, but 2 went out",
            "E*What happened:",
            "E* 0.0 s  422  POST /mpesa/payment/initiate  422-before",
            "E* 0.0 s  200  POST /mpesa/payment/initiate  PNX*",
            "E* s  200  GET /payments/PNX*",
            "E*Prompts:",
            "E*KES 100 to 2547*****866: PNX*, now completed",
            "E*KES 100 to 2547*****866: PNX*, now initiated",
        ]
    )
    assert "746990866" not in result.stdout.str()


def test_whoever_does_not_ask_pays_nothing():
    """The plugin imports nothing of the package, and nothing that the package needs."""
    code = "import sys, _paynexus_async_pytest; print(*{m.split('.')[0] for m in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "_paynexus_async_pytest" in loaded
    assert not {"paynexus_async", "httpx", "anyio", "attrs", "attr", "trio"} & set(loaded)


def test_pytest_itself_loads_the_plugin_and_no_more(tmp_path: Path):
    """By its entry point, in a project that has never heard of it."""
    (tmp_path / "conftest.py").write_text(
        "import sys\n"
        "def pytest_unconfigure():\n"
        "    print([name for name in sorted(sys.modules) if 'paynexus' in name])\n"
    )
    (tmp_path / "test_it.py").write_text("def test_it(): pass\n")
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert "['_paynexus_async_pytest']" in told
