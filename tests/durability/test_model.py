"""
Any sequence of crashes, faults, early ends and lost journals, against a model of the promise.

The model is small, because the promise is: a job is paid for once for each attempt that somebody asked for, and when at
last a run is left in peace, every job is done. Clients are processes that are really killed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import pytest
from attrs import evolve
from crash_kit import Order, Work, Zygote, open_service, states
from crash_kit.proof import lines, pictures, refresh
from fault_server import Fault, Remote
from fault_server import catalogue as go
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

# A nox session asks for more. Most of the time goes by in waits for processes, so there are several lots side by side.
EXAMPLES = int(os.environ.get("KLING_TEST_MODEL", "240"))
LOTS = 6

POINTS = (
    "after-row", "after-slots", "before-commit", "after-intent", "submitting", "after-post", "before-submitted",
    "submitted", "mid-poll", "after-succeeded", "succeeded", "after-fsync", "after-link", "after-rename", "done",
    "after-done",
)  # fmt: skip
TROUBLES: tuple[Fault, ...] = (
    go.cut("rst", "accepted"),
    go.cut("fin", "accepted"),
    go.cut("rst", "read"),
    go.html(502),
    go.html(504, accepted=True),
    go.refuse(5000, accepted=True),
    go.refuse(1303),
    go.refuse(1302),
    go.truncate("none"),
    go.edit({"data": None}),
    go.html(502, "get"),
    go.html(502, "list"),
    go.cut("rst", "read", "get"),
    go.truncate("length", "result"),
    go.empty(403, "result"),
)
_WEIGHTS = (1, 1, 2)
# Seconds of the clients' quick clock.
_STALLED = 10.0
# Without a real disk under it a flush costs nothing, and there can be more examples.
_QUICK = "/dev/shm" if Path("/dev/shm").is_dir() and os.access("/dev/shm", os.W_OK) else None


class Promise(RuleBasedStateMachine):
    """One run in one folder, and everything that may happen to it."""

    zygote: ClassVar[Zygote]
    server: ClassVar[Remote]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=_QUICK, prefix="kling-model-"))
        self.work = Work(out=self.folder / "out", weights=_WEIGHTS)
        # What each row asks for now, and how often its content may have been paid for at most.
        self.rows = {key: (prompt, n) for key, prompt, n in self.work.rows}
        self.allowed = Counter({prompt: 1 for prompt, _ in self.rows.values()})
        self.done: set[str] = set()
        self.edits = 0

    def teardown(self) -> None:
        try:
            self.leave_in_peace()
        finally:
            shutil.rmtree(self.folder)

    def order(self, **changes: Any) -> Order:
        rows = [(key, prompt, n) for key, (prompt, n) in self.rows.items()]
        return self.work.order(self.server, **({"rows": rows} | changes))

    @initialize(unique=st.booleans(), lag=st.sampled_from((0.0, 0.02)), missing=st.booleans())
    def open_account(self, *, unique: bool, lag: float, missing: bool) -> None:
        """The service refuses doubled ids or bills them; it shows tasks late; its list leaves some out."""
        refresh(self.server, unique=unique, lag=lag, listing={"miss": 0.3 if missing else 0.0})

    # What may happen.

    @rule(point=st.sampled_from(POINTS), nth=st.integers(1, 4))
    def crash(self, point: str, nth: int) -> None:
        """A run is killed at some step."""
        self.zygote.live(self.order(crash=point, nth=nth))

    @rule(trouble=st.sampled_from(TROUBLES), skip=st.integers(0, 3), times=st.integers(1, 3))
    def break_something(self, trouble: Fault, skip: int, times: int) -> None:
        """The service or the way to it will be in trouble."""
        self.server.break_with(evolve(trouble, skip=skip, times=times))

    @rule(after=st.integers(1, 2))
    def leave_early(self, after: int) -> None:
        """The caller leaves the loop over the outcomes."""
        self.zygote.live(self.order(leave=after))

    @rule()
    def run(self) -> None:
        """A run that may end as the service lets it."""
        self.zygote.live(self.order(options={"stall_after": _STALLED}))

    @rule(units=st.integers(0, 4))
    def run_on_a_budget(self, units: int) -> None:
        """A run that may not spend all."""
        before = self.server.books(log=False)["billed"]
        self.zygote.live(self.order(options={"budget": 16 * units, "stall_after": _STALLED}))
        assert self.server.books(log=False)["billed"] <= max(before, 16 * units)

    @rule()
    def lose_journal(self) -> None:
        """Somebody deletes the journal."""
        for path in self.work.out.glob("journal.db*"):
            path.unlink()
        self.done = set()

    # What is drawn must not depend on what the processes did, which is not the same twice; so there are no preconditions.

    @rule()
    def damage_journal(self) -> None:
        """The journal is damaged, and built anew."""
        if not self.work.out.exists():
            return
        (self.work.out / "journal.db").write_bytes(b"rubbish" * 700)
        self.done = set()
        self.zygote.live(self.order(action="recover"))

    @rule(point=st.sampled_from(("", "before-commit", "submitted", "pending")))
    def recover(self, point: str) -> None:
        """The journal is built anew without need, perhaps not to the end."""
        self.done = set()
        if self.work.out.exists():
            self.zygote.live(self.order(action="recover", crash=point))

    @rule(number=st.integers(0, 2))
    def edit(self, number: int) -> None:
        """A row that is done gets other content, and is to be done anew."""
        key = f"row-{number}"
        if key not in self.done:
            return
        self.edits += 1
        self.rows[key] = f"edited {self.edits}.", self.rows[key][1]
        self.allowed[self.rows[key][0]] = 1
        self.done.discard(key)
        self.zygote.live(self.order(options={"update": True, "stall_after": _STALLED}))

    @rule(number=st.integers(0, 2))
    def bring_bad_luck(self, number: int) -> None:
        """The task of one row will fail, if it is still to be made."""
        self.server.change(lives=[[self.rows[f"row-{number}"][0], {"end": "failed"}]])

    @rule()
    def retry(self) -> None:
        """Somebody wants what failed to be tried again, and will pay for it."""
        self.server.change(lives=[])
        failed = [key for key, state in states(self.work.out).items() if state == "failed"]
        self.allowed.update(self.rows[key][0] for key in failed)
        if failed:
            self.zygote.live(self.order(action="retry"))

    # What must hold.

    @invariant()
    def nothing_is_paid_twice(self) -> None:
        """No content was paid for more often than somebody asked for it."""
        books = self.server.books(log=False)
        paid = Counter(charge["label"] for charge in self.server.books()["charges"])
        assert not paid - self.allowed, f"paid more than once: {paid - self.allowed}"
        assert books["overruns"] == 0

    @invariant()
    def what_is_done_stays_done(self) -> None:
        """A job that was done with its present content is done for ever, and its pictures are there."""
        done = {key for key, state in states(self.work.out).items() if state == "done"}
        present = pictures(self.work.out) if done else {}
        assert self.done <= done
        assert all(f"{key}_{index}.png" in present for key in done for index in range(self.rows[key][1]))
        self.done = done

    def leave_in_peace(self) -> None:
        """Undisturbed at last, a run brings everything to its end."""
        self.server.order("/clear", {})
        last = self.zygote.live(self.order(options={"update": True}))
        # At most once for each attempt: where the journal was lost, earlier ones are found one by one.
        for _ in range(1 + max(self.allowed.values())):
            if states(self.work.out) == dict.fromkeys(self.rows, "done"):
                break
            self.retry()
            last = self.zygote.live(self.order(options={"update": True}))
        assert last.code == 0, last.report
        assert states(self.work.out) == dict.fromkeys(self.rows, "done"), last.report
        self.nothing_is_paid_twice()
        present = [line for line in lines(self.work.out) if line["status"] == "succeeded"]
        last_lines = {line["key"]: line for line in present}
        assert set(last_lines) == set(self.rows)
        named = {Path(name).name for line in last_lines.values() for name in line["files"]}
        assert {name for name in pictures(self.work.out) if name.endswith(".part")} == set()
        assert named == {f"{key}_{index}.png" for key, (_, n) in self.rows.items() for index in range(n)}
        assert named <= set(pictures(self.work.out))


@pytest.fixture
def machine() -> Iterator[type[Promise]]:
    """The model, with a service and a source of clients of its own."""
    with ExitStack() as stack:
        Promise.server = stack.enter_context(open_service())
        Promise.zygote = stack.enter_context(Zygote.spawn())
        yield Promise


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("lot", range(LOTS))
def test_the_promise_holds_whatever_happens(machine: type[Promise], lot: int) -> None:  # noqa: ARG001  # drawn anew for each
    """In every order of events nobody pays twice, and every job ends well once it is left in peace."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES // LOTS,
            stateful_step_count=6,
            deadline=None,
            print_blob=True,
            # Real processes are not the same twice, so what failed is shown as it is instead of being shrunk for long.
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
