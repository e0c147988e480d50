"""Sends what webhooks are due, over HTTP, beside the server that they belong to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._webhooks import Post, Webhooks

__all__ = ["send_due"]

_LOOK_SECONDS: Final = 0.05
_TRY_SECONDS_MAX: Final = 5.0
_ANSWER_BYTES_MAX: Final = 64 * 1024
_ERROR_CHARACTERS_MAX: Final = 200


async def send_due(webhooks: Webhooks) -> None:
    """Send deliveries when they are due, until it is cancelled.

    In order to each endpoint, one at a time; endpoints do not wait for each other.
    """
    # No HTTP client is made for nothing; and other threads register, with no event of this loop.
    while not webhooks.endpoints:  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_SECONDS)
    async with (
        httpx.AsyncClient(trust_env=False, headers={"User-Agent": "PayNexus-Sandbox"}) as client,
        asyncio.TaskGroup() as tasks,
    ):
        under_way: dict[int, asyncio.Task[None]] = {}
        while True:
            under_way = {number: task for number, task in under_way.items() if not task.done()}
            for number in {endpoint.number for endpoint in webhooks.endpoints} - set(under_way):
                if posts := webhooks.due(number):
                    under_way[number] = tasks.create_task(_send_all(client, webhooks, posts))
            await asyncio.sleep(_LOOK_SECONDS)


async def _send_all(client: httpx.AsyncClient, webhooks: Webhooks, posts: Iterable[Post]) -> None:
    for post in posts:
        try:
            status_code = await _send(client, webhooks, post)
        # A TimeoutError is an OSError; of hosts that are no names, idna raises a ValueError.
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            words = f"{type(error).__name__}: {error}".removesuffix(": ")[:_ERROR_CHARACTERS_MAX]
            webhooks.answered(post.delivery, error=words)
        else:
            webhooks.answered(post.delivery, status_code)


async def _send(client: httpx.AsyncClient, webhooks: Webhooks, post: Post) -> int:
    """Try once; redirects are answers like others, and only the status of one counts."""
    # Registered is what one parser read; sent is what another reads.
    if not webhooks.reaches(httpx.URL(post.url).host):
        raise httpx.InvalidURL("this sandbox sends to this machine only")  # noqa: EM101, TRY003
    async with (
        asyncio.timeout(_TRY_SECONDS_MAX),
        client.stream("POST", post.url, headers=post.headers, content=post.body) as response,
    ):
        read = 0
        async for chunk in response.aiter_raw():
            read += len(chunk)
            if read > _ANSWER_BYTES_MAX:
                break
    return response.status_code
