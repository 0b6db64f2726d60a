"""The one thread in which a server uses its model: requests wait for each other in the order in which they
came."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fastapi import Request

T = TypeVar("T")
SECONDS_BETWEEN_LOOKS = 0.5
"""How often it is asked whether the client of a running request is still there."""


class Owner:
    """Runs tasks one after the other. A task that writes text gets a function that says when to stop."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._closing = threading.Event()

    def stop_writing(self) -> None:
        """Let texts that are being written, or will be, end at once."""
        self._closing.set()

    def close(self) -> None:
        """Drop the requests that wait; an edit that is being made is made to its end."""
        self._closing.set()
        self._executor.shutdown(wait=True, cancel_futures=True)

    async def change(self, task: Callable[[], T]) -> T:
        """Run a task to its end, also where the client goes away."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, task)

    async def answer(self, request: Request, task: Callable[[Callable[[], bool]], T]) -> T:
        """Run a task that may end early: as soon as the client goes away."""
        gone = threading.Event()
        running = asyncio.ensure_future(self.change(lambda: task(self._is_over(gone))))
        try:
            while not running.done():
                await asyncio.wait({running}, timeout=SECONDS_BETWEEN_LOOKS)
                if not running.done() and await request.is_disconnected():
                    gone.set()
            return running.result()
        finally:
            gone.set()

    async def stream(
        self, task: Callable[[Callable[[Any], None], Callable[[], bool]], None]
    ) -> AsyncIterator[Any]:
        """What a task gives out, as it does; a slow client does not hold the model. The task ends early where
        the iteration does."""
        loop, pieces, gone = asyncio.get_running_loop(), asyncio.Queue(), threading.Event()
        end = object()

        def give(piece: Any) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        running = asyncio.ensure_future(self.change(lambda: task(give, self._is_over(gone))))
        running.add_done_callback(lambda _: pieces.put_nowait(end))
        try:
            while (piece := await pieces.get()) is not end:
                yield piece
            running.result()
        finally:
            gone.set()

    def _is_over(self, gone: threading.Event) -> Callable[[], bool]:
        return lambda: gone.is_set() or self._closing.is_set()
