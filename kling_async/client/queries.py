"""The calls that only read, for one endpoint and all accounts of a client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field

from kling_async.client.creation import Rules
from kling_async.client.engine import Engine
from kling_async.client.link import Link
from kling_async.client.tracked import Tracked
from kling_async.errors import ApiError, KlingError, MalformedReply, SubmissionUnknown, TaskNotFound
from kling_async.protocol.codec import Envelope, bind, read_task, read_tasks
from kling_async.protocol.codes import is_not_found
from kling_async.protocol.flows import ask, find
from kling_async.protocol.requests import Request, find_request, list_request
from kling_async.protocol.tasks import Task

if TYPE_CHECKING:
    from kling_async.client.results import Keeper

__all__ = ["Queries"]


@define(eq=False)
class Queries:
    """Asks about tasks of the endpoint at *path*."""

    engine: Engine = field(repr=False)
    rules: Rules
    path: str

    @property
    def full(self) -> bool:
        """Whether pictures are decoded before they count as whole."""
        return self.rules.pictures.verify == "full"

    async def get(self, link: Link, request: Request) -> Envelope:
        """Send *request*, which only reads, as often as the rules allow."""
        self.engine.enter()
        patience = self.engine.patience(self.rules.retries, self.rules.timeouts)
        return await link.drive(ask(request, patience), self.rules.timeouts)

    async def page(self, link: Link, page: int, page_size: int) -> Envelope:
        """Ask for one page of the list."""
        return await self.get(link, list_request(self.path, page, page_size))

    async def task(self, link: Link, task_or_external_id: str) -> Task:
        """Ask one account for one task; who waits for it hears the answer too."""
        envelope = await self.get(link, find_request(self.path, task_or_external_id))
        task = self.read(link, envelope)
        if not task.answers(task_or_external_id):
            raise MalformedReply(
                f"expected task {task_or_external_id}, found {task.task_id}", 200, envelope.request_id
            )
        self.engine.poller.heard(link, self.path, task)
        return task

    async def find(self, task_or_external_id: str) -> tuple[Link, Task]:
        """
        Ask one account after the other.

        Raises `TaskNotFound` if none has the task, and the trouble of an account that could not tell if no other has it.
        """
        absent: ApiError | None = None
        trouble: KlingError | None = None
        for link in self.engine.links:
            try:
                return link, await self.task(link, task_or_external_id)
            except KlingError as error:
                if isinstance(error, ApiError) and is_not_found(error.code, error.message):
                    absent = error
                else:
                    trouble = trouble or error
        if trouble is not None:
            raise trouble
        assert absent is not None, "a client has at least one account"
        raise _not_found(absent)

    async def clear_up(self, account: str, external_task_id: str) -> tuple[Link, Task] | None:
        """
        Find out whether a create of an earlier run on *account* made a task; None when it is certain that it made none.

        Raises `SubmissionUnknown` if that cannot be found out now.
        """
        self.engine.enter()
        link = next((link for link in self.engine.links if link.name == account), None)
        if link is None:
            message = f"task {external_task_id} was sent on account {account!r}, which this client lacks"
            raise SubmissionUnknown(message, external_task_id)
        patience = self.engine.patience(self.rules.retries, self.rules.timeouts)
        flow = find(find_request(self.path, external_task_id), external_task_id, patience)
        task = await link.drive(flow, self.rules.timeouts)
        return None if task is None else (link, task)

    async def attach(self, task_or_external_id: str) -> Tracked:
        """Look after a task that exists already; returns the row of whoever does so, or a new one."""
        link, task = await self.find(task_or_external_id)
        present = self.engine.poller.find(link, self.path, task.task_id)
        if present is not None:
            return present
        row = Tracked(
            path=self.path,
            ask_for=task.task_id,
            external_task_id=task.external_task_id,
            since=self.engine.clock.now() - self._age(task),
        )
        row.task = task
        return row if task.ended else self.engine.poller.resume(link, row)

    def _age(self, task: Task) -> float:
        if task.created_at is None:
            return 1.0
        return max(1.0, self.engine.clock.wall() - task.created_at.timestamp())

    def read(self, link: Link, envelope: Envelope) -> Task:
        """Read the answer to a single query."""
        return self.bound(link, read_task(envelope.data, request_id=envelope.request_id))

    def read_page(self, link: Link, envelope: Envelope) -> list[Task]:
        """Read the answer to a list query."""
        return [self.bound(link, task) for task in read_tasks(envelope.data, request_id=envelope.request_id)]

    def bound(self, link: Link, task: Task) -> Task:
        """Return *task* with pictures that can fetch themselves."""
        return bind(task, self.keeper(link, task)) if task.images else task

    def keeper(self, link: Link, task: Task) -> Keeper:
        """Return what fetches the pictures of *task*."""
        # Late: a task that runs has no pictures yet.
        from kling_async.client.results import Keeper

        stem = task.external_task_id or task.task_id
        return Keeper(
            self.engine.downloads, stem, task, link.name, lambda: self.task(link, task.task_id), self.full
        )


def _not_found(trouble: ApiError) -> TaskNotFound:
    # The other dialect (404/1203) says the same in other words.
    if isinstance(trouble, TaskNotFound):
        return trouble
    return TaskNotFound(
        trouble.message, trouble.code, trouble.http_status, trouble.request_id, trouble.remedy
    )
