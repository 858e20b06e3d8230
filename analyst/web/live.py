"""
Live updates by server-sent events.

One task reads the queue's state once a second, whatever the number of open pages, and wakes the pages when it has changed.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from analyst.listing import Listing

logger = logging.getLogger(__name__)

_SECONDS: Final = 1.0  # between two looks at the queue
_KEEP_ALIVE_SECONDS: Final = 20.0  # proxies close connections on which nothing is sent
MOST_READERS: Final = 500
_LONGEST_SECONDS: Final = 1_800.0  # then the browser connects again, and its session is checked again


class QueueChange(NamedTuple):
    """A change of the queue: its number, and the state of the queue after it."""

    number: int
    state: tuple[int, int]


class LiveUpdates:
    """The changes of one queue, for any number of open pages."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self._last = QueueChange(0, (0, 0))
        self._changed = asyncio.Condition()
        self.readers = 0

    async def watch(self) -> None:
        """Look at the queue until cancelled. While the database does not answer, nothing changes."""
        while True:
            try:
                state = await asyncio.to_thread(self._listing.state)
            except Exception as error:
                logger.warning("the queue cannot be read for live updates: %s", type(error).__name__)
            else:
                if state != self._last.state:
                    async with self._changed:
                        self._last = QueueChange(self._last.number + 1, state)
                        self._changed.notify_all()
            await asyncio.sleep(_SECONDS)

    async def events(self) -> AsyncIterator[str]:
        """Yield a server-sent event at once and for each change, and a comment now and then, for half an hour."""
        self.readers += 1
        loop = asyncio.get_running_loop()
        end, known = loop.time() + _LONGEST_SECONDS, -1
        try:
            yield "retry: 2000\n\n"
            while loop.time() < end:
                try:
                    async with asyncio.timeout(_KEEP_ALIVE_SECONDS), self._changed:
                        while self._last.number == known:
                            await self._changed.wait()
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                known = self._last.number
                yield f"event: queue\ndata: {known}\n\n"
        finally:
            self.readers -= 1
