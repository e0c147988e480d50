"""A pytest plugin that writes down whatever the package says while the suite runs.

`package.log`: the package's logger, fields and all. `telemetry.txt`: the spans and metrics of every
client, for each is given a `Telemetry`, and the spans of those that have one. `others.log`: all
other loggers. `said.txt`: text, repr and traceback of each exception of the package's, and the repr
of each of its values. `locals.txt`: the local variables of the package's frames in those
tracebacks. `printed.txt`: what commands print.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import traceback
from pathlib import Path
from typing import IO, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

import paynexus_async
from paynexus_async import AsyncPayNexus, PayNexusError, _wire, models
from paynexus_async.telemetry import Telemetry

_PACKAGE = str(Path(paynexus_async.__file__).parent)
_VALUES = [
    AsyncPayNexus,
    *(kind for name in models.__all__ if isinstance(kind := getattr(models, name), type)),
    *(_wire.Secret, _wire.Keys, _wire.Call, _wire.Intent),
]
# Keys that a constructor is being given; the sandbox's, which everybody may know; and an answer that
# quotes one, which is kept as it came.
_THE_CALLERS_OWN = {"secret_key", "public_key", "value", "_"}
_THE_SERVERS_OWN = {"document", "envelope"}
_FORMAT = "%(name)s %(levelname)s %(pathname)s:%(lineno)d %(message)s"


_A_RECORDS_OWN = {*vars(logging.makeLogRecord({})), "message", "asctime"}


class _WithFields(logging.Formatter):
    """Writes a record's own fields behind its message."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {k: v for k, v in vars(record).items() if k not in _A_RECORDS_OWN}
        return f"{super().format(record)} {fields}"


class _Spans(SpanProcessor):
    """Writes down each span that ends."""

    def __init__(self, scribe: Scribe) -> None:
        self._scribe = scribe

    def on_end(self, span: ReadableSpan) -> None:
        told = [dict(span.attributes or {}), span.status.description]
        told += [(event.name, dict(event.attributes or {})) for event in span.events]
        self._scribe.write("telemetry.txt", f"span {span.name}", str(told))


class Scribe:
    """Writes down what is said, and in which test."""

    def __init__(self, folder: Path) -> None:
        self.test = "collection"
        self._folder = folder
        self._files: dict[str, IO[str]] = {}
        self._raised: list[PayNexusError] = []
        self._seen: set[str] = set()

    def write(self, file: str, what: str, text: str) -> None:
        """Write each line with what says it, once."""
        if file not in self._files:
            self._files[file] = (self._folder / file).open("w", encoding="utf-8")
        for line in text.splitlines():
            if (key := f"{file} {what} {line}") not in self._seen:
                self._seen.add(key)
                print(f"[{self.test}] {what}: {line}", file=self._files[file])

    def listen(self) -> None:
        """Hear of every exception and every value of the package's."""
        raised = self._raised
        _after_init(PayNexusError, raised.append)
        for kind in _VALUES:
            _after_init(kind, lambda value: self._value(value))
        self._observe_every_client()
        for name, file in (("paynexus_async", "package.log"), ("", "others.log")):
            handler = logging.FileHandler(self._folder / file, "w", "utf-8")
            handler.setFormatter(_WithFields(_FORMAT))
            logging.getLogger(name).addHandler(handler)
            logging.getLogger(name).setLevel(logging.DEBUG)
            if not name:
                handler.addFilter(lambda record: not record.name.startswith("paynexus_async"))

    def _observe_every_client(self) -> None:
        """Give those a telemetry that have none, and write down what any of them tells."""
        _after_init(TracerProvider, lambda tracers: tracers.add_span_processor(_Spans(self)))
        tracers, self._metrics = TracerProvider(), InMemoryMetricReader()
        telemetry = Telemetry(
            tracer_provider=tracers, meter_provider=MeterProvider([self._metrics])
        )
        init = AsyncPayNexus.__init__

        @functools.wraps(init)
        def observed(client: Any, *args: Any, **options: Any) -> None:
            if options.get("telemetry") is None:
                options["telemetry"] = telemetry
            init(client, *args, **options)

        AsyncPayNexus.__init__ = observed  # type: ignore[method-assign]

    def _value(self, value: object) -> None:
        name = type(value).__name__
        with contextlib.suppress(AttributeError):  # a base class's part is done before the whole
            self.write("said.txt", f"repr of {name}", f"{value!r}\n{value}")

    def tell_raised(self) -> None:
        """Write down the exceptions of a test, as a log would show them, and their frames."""
        for error in self._raised:
            what = f"exception {type(error).__name__}"
            self.write("said.txt", what, f"{error}\n{error!r}")
            shown = "".join(traceback.format_exception(error)).splitlines()
            # Source lines are not written by the package, and a test's own hold its phone.
            said = "\n".join(line for line in shown if not line.startswith("    "))
            self.write("said.txt", f"traceback of {what}", said)
            for frame, line in traceback.walk_tb(error.__traceback__):
                if frame.f_code.co_filename.startswith(_PACKAGE):
                    place = f"{Path(frame.f_code.co_filename).name}:{line}"
                    for name, value in frame.f_locals.items():
                        if name.lower() not in _THE_CALLERS_OWN | _THE_SERVERS_OWN:
                            self.write("locals.txt", f"{place} {name}", _shown(value))
        self._raised.clear()

    def close(self) -> None:
        data = self._metrics.get_metrics_data()
        self.write("telemetry.txt", "metrics", data.to_json() if data else "")
        for file in self._files.values():
            file.close()


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001  # half-made objects
        return f"unprintable: {type(error).__name__}"


def _after_init(kind: type, tell: Any) -> None:
    original = kind.__init__

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        tell(self)

    kind.__init__ = init


_scribe = Scribe(Path(os.environ["CANARY_FOLDER"]))


def pytest_configure() -> None:
    _scribe.listen()
    original = pytest.CaptureFixture.readouterr

    def readouterr(self: pytest.CaptureFixture[str]) -> Any:
        captured = original(self)
        for text in captured:
            if isinstance(text, str):
                _scribe.write("printed.txt", "output", text)
        return captured

    pytest.CaptureFixture.readouterr = readouterr  # type: ignore[method-assign]


def pytest_runtest_logstart(nodeid: str) -> None:
    _scribe.test = nodeid.split("[")[0]  # its parameters may be phones


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown() -> None:
    _scribe.tell_raised()


def pytest_unconfigure() -> None:
    _scribe.close()
