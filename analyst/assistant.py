"""
The assistant: a language model answers questions about an alert, or investigates it.

It has read-only tools, and its answers are claims over facts, checked like any narrative. Each person has a daily quota, and only
some questions are answered at once; the others wait in line.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from msgspec import Struct

from analyst.access.roles import Actor, Permission
from analyst.queue import ENDED, UNDER_WAY, Queue, QueuedAlert
from core.errors import ConflictError, InputError
from core.privacy.masking import WITHOUT_KEY
from core.settings import Settings
from explain.investigation import Investigation

logger = logging.getLogger(__name__)

LONGEST_QUESTION: Final = 500
_WAITING: Final = 4  # questions that wait or are answered, as a multiple of those answered at once

# an alert and a question, or None to investigate the alert; returns the result
Investigate = Callable[[QueuedAlert, str | None], Awaitable[Investigation]]


class Question(Struct, frozen=True):
    """A question about an alert (None: an investigation) and its answer; ``found`` is None until then, or if the assistant failed."""

    asked_by: str
    asked_at: int
    question: str | None
    under_way: bool
    found: Investigation | None


class Assistant:
    """Asks the language model, within a quota per person and a limit for all."""

    def __init__(self, queue: Queue, settings: Settings, investigate: Investigate) -> None:
        self._queue, self._daily, self._investigate = queue, settings.assistant_daily_questions, investigate
        self._at_once = settings.assistant_concurrency
        self._free = asyncio.Semaphore(self._at_once)
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, alert_id: str, actor: Actor, question: str | None = None) -> int:
        """
        Ask a question about an alert, or have it investigated, and return the number of the question. The answer comes later.

        Raises:
            AccessError: if the actor may not work on alerts.
            InputError: if the question is empty or too long.
            NotFoundError: if there is no such alert.
            ConflictError: if the alert has no explanation yet, or a question about it is being answered.
            ThrottledError: if the actor's quota is used up, or too many questions wait.
        """
        actor.require(Permission.WORK)
        if question is not None:
            question = WITHOUT_KEY.text(question.strip())
            if not 1 <= len(question) <= LONGEST_QUESTION:
                raise InputError(f"ask a question of 1 to {LONGEST_QUESTION} characters")
        queued = await asyncio.to_thread(self._queue.required, alert_id)
        if queued.explanation is None:
            raise ConflictError("this alert has no explanation yet: try again when it has one")
        most = self._at_once * _WAITING
        number = await asyncio.to_thread(self._queue.begin_investigation, alert_id, actor.name, question, self._daily, most)
        task = asyncio.create_task(self._answer(queued, number, question))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return number

    @property
    def busy(self) -> bool:
        """Whether questions wait or are being answered."""
        return bool(self._tasks)

    async def _answer(self, queued: QueuedAlert, number: int, question: str | None) -> None:
        message = None
        try:
            async with self._free:
                message = msgspec.json.encode(await self._investigate(queued, question)).decode()
        except Exception:
            logger.exception("the assistant failed on alert %s", queued.alert.alert_id)
        await asyncio.to_thread(self._queue.end_investigation, number, message)


def questions_about(queue: Queue, alert_id: str) -> list[Question]:
    """Return the questions about an alert and their answers, newest first."""
    return [
        Question(
            row.asked_by,
            row.asked_at,
            row.question,
            row.state == UNDER_WAY,
            _decoded(row.message) if row.state == ENDED else None,
        )
        for row in queue.investigations_of(alert_id)
    ]


def _decoded(message: str | None) -> Investigation | None:
    """Decode an answer; None if the assistant failed, or the answer was written in an earlier, incompatible version."""
    try:
        return msgspec.json.decode(message, type=Investigation) if message else None
    except msgspec.MsgspecError:
        return None
