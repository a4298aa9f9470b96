"""External ids in use by creates of one client, so that no two creates share one and both are paid for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attrs import define, field

from kling_async.errors import InvalidJob

__all__ = ["Claims"]


@define(eq=False)
class Claims:
    """
    Who is making a task under which external id.

    A claim lasts from before the first look at what is known of the id until the create has ended and that is known
    instead. A caller may leave before its create has: so each of the two holds the claim.
    """

    _held: Counter[str] = field(factory=Counter, init=False)

    @contextmanager
    def claim(self, external_task_id: str) -> Iterator[None]:
        """Hold the id for the block; raises `InvalidJob` if another create holds it."""
        if external_task_id in self._held:
            raise InvalidJob.because(
                "external_task_id",
                "one that no other create is using",
                repr(external_task_id),
                "await that create, or use another id",
            )
        release = self.hold(external_task_id)
        try:
            yield
        finally:
            release()

    def hold(self, external_task_id: str) -> Callable[[], None]:
        """Hold the id, claimed or not, until what is returned is called."""
        self._held[external_task_id] += 1
        return lambda: self._release(external_task_id)

    def _release(self, external_task_id: str) -> None:
        self._held[external_task_id] -= 1
        if not self._held[external_task_id]:
            del self._held[external_task_id]
