"""Serves an ASGI application until Ctrl-C."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .. import InvalidRequestError

try:
    import uvicorn

    from ..sandbox._server import listening_socket
except ImportError as error:
    msg = f"{error.name} is missing: pip install 'paynexus-async[cli,sandbox]'"
    raise ImportError(msg, name=error.name) from error

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["serve"]


def serve(app: Any, *, host: str, port: int, began: Callable[[str], None]) -> None:  # noqa: ANN401  # uvicorn's
    """Serve until somebody presses Ctrl-C.

    Args:
        app: an ASGI application.
        host: the address to listen on.
        port: 0 takes a free one.
        began: hears of the URL, once it can be reached.

    Raises:
        InvalidRequestError: the port is taken, or the address is none of this machine's.
    """
    try:
        socket = listening_socket(host, port)
    except OSError as error:
        msg = f"{error.strerror}; choose another with --port"
        raise InvalidRequestError(msg) from error
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,
    )
    with socket:
        name, number = socket.getsockname()[:2]
        began(f"http://{f'[{name}]' if ':' in name else name}:{number}/")
        with suppress(KeyboardInterrupt):  # it has stopped by then
            uvicorn.Server(config).run([socket])
