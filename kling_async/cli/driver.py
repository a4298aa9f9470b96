"""Runs a batch for `run` and `demo`: outcomes to the board, the board to the view, Ctrl-C in two stages."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import anyio
from attrs import define, evolve, field, frozen

from kling_async.batch.batch import Batch
from kling_async.batch.changes import needs_update, still_runs
from kling_async.batch.manifest import BadRow, Row
from kling_async.batch.outcomes import Failed, Outcome, Skipped
from kling_async.batch.statistics import Statistics
from kling_async.cli.board import Board
from kling_async.cli.interrupts import Interruption, two_stages
from kling_async.cli.views import View
from kling_async.cli.voice import SOME_FAILED, Voice, exit_code
from kling_async.client.kling import Kling
from kling_async.errors import InvalidJob, KlingError
from kling_async.protocol.naming import TEMPLATE

__all__ = ["Ending", "Orders", "drive"]

_SHOWN_IDS = 10


@frozen(kw_only=True)
class Orders:
    """What to run: the *rows*, where *out* is, how (*budget*, *split*, *in_order*, *fit*), and the words that *resume* it."""

    rows: Iterable[Row | BadRow]
    out: Path | str
    resume: str
    name: str = TEMPLATE
    journal: Path | None = None
    budget: int | None = None
    split: bool = False
    in_order: bool = False
    update: bool = False
    fit: Literal["auto"] | None = None
    verify: Literal["header", "full"] = "header"


@frozen(kw_only=True)
class Ending:
    """
    How a run ended: *error* is what stopped it, *interruption* whether a person did.

    *fitted* counts changed pictures, *bad* rows that are no jobs, and *changed* those that were refused since they were
    done before and changed, *too_early* those that changed while their tasks run.
    """

    statistics: Statistics
    error: KlingError | None
    interruption: Interruption
    failed: tuple[Failed, ...] = ()
    failed_before: int = 0
    fitted: int = 0
    changed: int = 0
    bad: int = 0
    too_early: int = 0

    @property
    def interrupted(self) -> bool:
        """Whether a person ended the run before all of it was done."""
        # The last row may have come to its end while the person was obeyed.
        return self.interruption.signal is not None and (self.error is not None or not self.whole)

    @property
    def whole(self) -> bool:
        """Whether every row has come to its end."""
        return self.statistics.done == self.statistics.total

    @property
    def exit_code(self) -> int:
        """The command's exit code."""
        if self.interrupted:
            return self.interruption.exit_code
        if self.error is not None:
            return exit_code(self.error)
        return SOME_FAILED if self.statistics.failed or self.failed_before else 0


@define(eq=False)
class _Drive:
    """One run on its way."""

    batch: Batch
    orders: Orders
    board: Board
    view: View
    voice: Voice
    scope: anyio.CancelScope = field(factory=anyio.CancelScope)
    error: KlingError | None = None
    failed: list[Failed] = field(factory=list)
    failed_before: int = 0
    fitted: int = 0
    changed: int = 0
    bad: int = 0
    too_early: int = 0

    async def collect(self) -> None:
        try:
            async for outcome in self.batch:
                self._keep(outcome)
        except KlingError as error:
            self.error = error

    def _keep(self, outcome: Outcome) -> None:
        self.board.end(outcome)
        self.fitted += 0 if isinstance(outcome, Skipped) else len(outcome.fitted)
        if isinstance(outcome, Failed) and len(self.failed) < _SHOWN_IDS:
            self.failed.append(outcome)
        if isinstance(outcome, Failed):
            self.changed += needs_update(outcome.error)
            self.too_early += still_runs(outcome.error)
            self.bad += outcome.job is None and isinstance(outcome.error, InvalidJob)
        # Rows that an earlier run has done are skipped as well; only these were not.
        if isinstance(outcome, Skipped) and outcome.earlier == "failed":
            self.failed_before += 1

    async def show(self) -> None:
        while True:
            self.view.show(self.board.snapshot(self.batch.statistics()))
            await anyio.sleep(self.view.every)

    def ask_to_end(self) -> None:
        running = self.batch.statistics().in_flight
        self.board.asked_to_end = True
        self.batch.stop()
        self.voice.warn(
            f"stopping: nothing more is sent, {running} running are paid for and collected; again to leave at once"
        )
        self.voice.say(f"resume: {self.orders.resume}")

    def leave(self) -> None:
        running = self.batch.statistics().in_flight
        self.voice.warn(
            f"leaving: {running} run on at the service and are in the journal; the same command collects them: "
            f"{self.orders.resume}"
        )
        self.scope.cancel()


def _calm_the_collector() -> None:
    """
    Have the garbage collector look at this run alone, and less often.

    What is loaded by now stays until the process ends, and what waits in a run is no garbage: walking over all of it
    again and again is a fifth of the processor time (docs/performance.md). A command owns its process, so it may.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


async def drive(
    kling: Kling,
    orders: Orders,
    board: Board,
    view: View,
    voice: Voice,
    *,
    beside: Callable[[], object] | None = None,
) -> Ending:
    """
    Run *orders* to their end and return how it was; *beside* is called in a thread meanwhile.

    Errors that stop the batch are in the result, not raised.
    """
    _calm_the_collector()
    batch = kling.batch(
        orders.rows,
        out=orders.out,
        name=orders.name,
        journal=orders.journal,
        budget=orders.budget,
        split=orders.split,
        in_order=orders.in_order,
        update=orders.update,
        fit=orders.fit,
        verify=orders.verify,
    )
    run = _Drive(batch, orders, board, view, voice)
    board.on_note = view.note
    view.start()
    try:
        with two_stages(run.ask_to_end, run.leave, _leave_now) as interruption:
            async with batch:
                with run.scope:
                    async with anyio.create_task_group() as group:
                        group.start_soon(run.show)
                        if beside is not None:
                            group.start_soon(_in_thread, beside)
                        await run.collect()
                        group.cancel_scope.cancel()
        # It is over, so nothing is left, even if rows are.
        view.show(evolve(board.snapshot(batch.statistics()), eta=None))
    finally:
        view.stop()
    return Ending(
        statistics=batch.statistics(),
        error=run.error,
        interruption=interruption,
        failed=tuple(run.failed),
        failed_before=run.failed_before,
        fitted=run.fitted,
        changed=run.changed,
        bad=run.bad,
        too_early=run.too_early,
    )


async def _in_thread(work: Callable[[], object]) -> None:
    await anyio.to_thread.run_sync(work, abandon_on_cancel=True)


def _leave_now(code: int) -> None:
    # Asked three times: no clean-up that could hang. What was finished is in results.jsonl already.
    os._exit(code)


def monotonic() -> float:
    """Return the seconds that boards count by."""
    return time.monotonic()
