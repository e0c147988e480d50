"""The sandbox on a real socket, in a thread beside whatever uses it."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ._app import create_app
from ._faults_http import CONNECTION
from ._sender import send_due

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from typing import Any

    from ._engine import Ledger
    from ._events import Events
    from ._faults import Faults

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    ASGI = Callable[[Message, Receive, Send], Awaitable[None]]

__all__ = ["SandboxServer", "serve"]

_START_SECONDS_MAX: Final = 10.0
_STOP_SECONDS_MAX: Final = 10.0
_PORT_MAX: Final = 65_535

# Without any handler, Python prints uvicorn's warnings (a client's garbage) among a test's output.
logging.getLogger("uvicorn.error").addHandler(logging.NullHandler())


def _listening_socket(host: str, port: int) -> socket.socket:
    """Listen on an address; 0 takes a free port.

    Raises:
        OSError: the port is taken, or is none; the message names it.
    """
    if not 0 <= port <= _PORT_MAX:  # the socket would raise OverflowError, and leak
        msg = f"cannot listen on {host}:{port}: ports go from 0 to {_PORT_MAX}"
        raise OSError(errno.EINVAL, msg)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        msg = f"cannot listen on {host}:{port}: {error.strerror}"
        raise OSError(error.errno, msg) from error


def serve(app: ASGI, *, host: str, port: int, began: Callable[[str], None]) -> None:
    """Serve another application, in this thread, until somebody presses Ctrl-C.

    Args:
        app: an ASGI application.
        host: the address to listen on.
        port: 0 takes a free one.
        began: hears of the URL, as soon as it can be reached.

    Raises:
        OSError: the port is taken, or is none; the message names it.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,
    )
    with _listening_socket(host, port) as listening:
        name, number = listening.getsockname()[:2]
        began(f"http://{f'[{name}]' if ':' in name else name}:{number}/")
        with suppress(KeyboardInterrupt):  # it has stopped by then
            uvicorn.Server(config).run([listening])


class _Server(uvicorn.Server):
    """Serves an application, and sends its ledger's webhooks meanwhile."""

    def __init__(self, config: uvicorn.Config, ledger: Ledger, events: Events) -> None:
        super().__init__(config)
        self.is_up = threading.Event()
        self._ledger = ledger
        self._events = events

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, and say so."""
        await super().startup(sockets)
        self.is_up.set()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until it is told to stop."""
        async with asyncio.TaskGroup() as tasks:
            sender = tasks.create_task(send_due(self._ledger.webhooks))
            await super().serve(sockets)
            sender.cancel()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let the pages go first: their streams would never end by themselves."""
        self._events.close()
        await super().shutdown(sockets)


class _Protocol(H11Protocol):
    """Lets the application have its connection, which a fault may break."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        super().connection_made(transport)
        # asyncio does it only for sockets that it has made: head and body are two writes, and the
        # second would wait 40 ms for the first one to be acknowledged.
        wire = transport.get_extra_info("socket")
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.app_state = {**self.app_state, CONNECTION: transport}


class SandboxServer:
    """Serves a ledger over HTTP while its `with` block runs, and sends its webhooks.

    Works beside any event loop, or none: it has a thread and a loop of its own.
    """

    def __init__(self, ledger: Ledger, *, host: str = "127.0.0.1", port: int = 0) -> None:
        """Prepare a server.

        Args:
            ledger: what it serves.
            host: the address to listen on.
            port: 0 takes a free one.
        """
        self.ledger = ledger
        self._address = (host, port)
        self._socket: socket.socket | None = None
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def faults(self) -> Faults:
        """What is ordered to go wrong: `server.faults.add(Fault("reset-after", times=1))`."""
        return self.ledger.faults

    @property
    def url(self) -> str:
        """The base URL of the API, such as `http://127.0.0.1:8765/api`.

        Raises:
            RuntimeError: outside the `with` block.
        """
        if self._socket is None:
            msg = "the sandbox is not running: use it in a with block"
            raise RuntimeError(msg)
        host, port = self._socket.getsockname()[:2]
        return f"http://{host}:{port}/api"

    @property
    def page_url(self) -> str:
        """The address of the page with the phones, such as `http://127.0.0.1:8765/`.

        Raises:
            RuntimeError: outside the `with` block.
        """
        return self.url.removesuffix("api")

    def __enter__(self) -> Self:
        """Listen, and answer from now on.

        Raises:
            OSError: if the port is taken, or is none; the message names it.
            RuntimeError: if it is running already.
        """
        if self._socket is not None:
            msg = f"the sandbox is running already, on {self.url}"
            raise RuntimeError(msg)
        self._socket = _listening_socket(*self._address)
        app = create_app(self.ledger)
        config = uvicorn.Config(
            app,
            http=_Protocol,
            log_config=None,
            access_log=False,
            date_header=False,  # the ledger's own clock tells it
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config, self.ledger, app.state.events)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="paynexus-sandbox", daemon=True
        )
        self._thread.start()
        # Not for those who call, whose connections would wait in the socket's queue. But uvicorn
        # logs that it starts: that must not meet a logging that the caller is about to set up.
        self._server.is_up.wait(_START_SECONDS_MAX)
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop answering, and close what is open."""
        if self._server is not None and self._thread is not None and self._socket is not None:
            self._server.should_exit = True
            self._server.force_exit = True  # idle connections are not waited for
            self._thread.join(_STOP_SECONDS_MAX)
            self._socket.close()
        self._socket = self._server = self._thread = None
