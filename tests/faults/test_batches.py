"""Fault matrix for batches: one job's trouble stays its own, and the account's trouble stops the lane, not the books."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from fault_kit import PACE, PATIENT, QUICK, Log, client_of, job
from fault_server import Fault, FaultServer, Life, Listing
from fault_server import catalogue as go
from fault_server.checks import assert_paid_once, assert_within

from kling_async import Failed, Kling, MultiImage, Succeeded, errors
from kling_async.protocol.endpoints import Timeouts
from kling_async.protocol.events import LaneChanged, LaneStopped

pytestmark = pytest.mark.anyio


def jobs(count: int, **fields: Any) -> list[MultiImage]:
    return [
        job(f"job-{number}", key=f"row-{number}", prompt=f"row-{number}.", **fields)
        for number in range(count)
    ]


async def collect(
    kling: Kling, work: Iterable[MultiImage], **options: Any
) -> tuple[list[Any], Exception | None]:
    """Run a batch to its end; return its outcomes and what stopped it, if anything did."""
    outcomes: list[Any] = []
    try:
        async with kling.batch(work, **options) as batch:
            async for outcome in batch:
                outcomes.append(outcome)  # noqa: PERF401 - what came before an error is kept
    except errors.KlingError as error:
        return outcomes, error
    return outcomes, None


def keys(outcomes: Iterable[Any], kind: type[Any]) -> set[str]:
    return {outcome.key for outcome in outcomes if isinstance(outcome, kind)}


AMBIGUOUS = {
    "reset before": go.cut("rst", "read"),
    "reset after": go.cut("rst", "accepted"),
    "silence after": go.cut("hang", "accepted"),
    "502 before": go.html(502),
    "502 after": go.html(502, accepted=True),
    "5002 after": go.refuse(5002, accepted=True),
    "cut body": go.truncate("none"),
    "no data": go.edit({"data": None}),
}


@pytest.mark.parametrize("fault", AMBIGUOUS.values(), ids=AMBIGUOUS)
async def test_lost_answers_in_a_batch_are_paid_once(server_in_two_modes: FaultServer, fault: Fault) -> None:
    """Each third create loses its answer; every job has one outcome and one task."""
    server = server_in_two_modes
    server.change(life=Life(seconds=0.05))
    for number in range(0, 12, 3):
        server.break_with(evolve(fault, match=f"row-{number}."))

    async with client_of(server, timeout=QUICK if fault.action == "hang" else PATIENT) as kling:
        outcomes, error = await collect(kling, jobs(12))

    assert error is None
    assert keys(outcomes, Succeeded) == {f"row-{number}" for number in range(12)}
    assert_paid_once(server.books, 12)
    assert_within(server.books, slots=9, posts=16)


@pytest.mark.parametrize("code", [1200, 1201, 1300, 1301])
async def test_h09_a_refused_row_fails_alone(server: FaultServer, code: int) -> None:
    """A row that the service refuses fails with its reason and is not sent again; the others run."""
    server.break_with(go.refuse(code, match="row-3.", times=None))

    async with client_of(server) as kling:
        outcomes, error = await collect(kling, jobs(8))

    failed = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    assert error is None
    assert [(outcome.key, getattr(outcome.error, "code", 0)) for outcome in failed] == [("row-3", code)]
    assert len(keys(outcomes, Succeeded)) == 7
    assert_paid_once(server.books, 7)
    assert_within(server.books, slots=9, posts=8)


@pytest.mark.parametrize("code", [1100, 1101, 1102, 1103, 1304, 1000, 1001, 1002, 1003, 1004])
async def test_h10_h14_an_account_that_stops_keeps_what_runs(server: FaultServer, code: int) -> None:
    """When the account is refused no more is sent, what runs is collected, and the other rows stay undone."""
    server.change(slots=3, life=Life(seconds=0.1))
    server.break_with(go.refuse(code, skip=3, times=None))
    log = Log()

    async with client_of(server, log, slots=3) as kling:
        outcomes, error = await collect(kling, jobs(30))

    assert isinstance(error, errors.ApiError)
    assert error.code == code
    assert len(keys(outcomes, Succeeded)) == 3
    assert keys(outcomes, Failed) == set()
    assert len(log.of(LaneStopped)) == 1
    assert_paid_once(server.books, 3)
    assert_within(server.books, slots=3, posts=3 + 3 * 2)


async def test_h10_after_topping_up_the_rest_runs(server: FaultServer) -> None:
    """The rows that stayed undone can be run later, and nobody pays twice."""
    server.change(slots=3, life=Life(seconds=0.05))
    server.break_with(go.refuse(1102, skip=3, times=None))
    work = jobs(10)

    async with client_of(server, slots=3) as kling:
        first, error = await collect(kling, work)
    done = keys(first, Succeeded)
    server.script.clear()
    async with client_of(server, slots=3) as kling:
        rest = [each for each in work if each.key not in done]
        second, later = await collect(kling, rest)

    assert isinstance(error, errors.OutOfUnits)
    assert later is None
    assert done | keys(second, Succeeded) == {each.key for each in work}
    assert_paid_once(server.books, 10)


async def test_h06_no_free_slot_for_ever_fails_no_job(server: FaultServer) -> None:
    """An account that others keep full ends the batch after a while as busy; no row has failed by that."""
    server.change(foreign=9)

    async with client_of(server) as kling:
        outcomes, error = await collect(kling, jobs(20), stall_after=6.0)

    assert isinstance(error, errors.NoFreeSlot)
    assert outcomes == []
    assert_paid_once(server.books, 0)
    # Some may be under way when the first is refused; then one probe in each pause, of a second or more.
    moments = server.books.times("create")
    late = [moment for moment in moments if moment > moments[0] + 0.5 / PACE]
    assert len(moments) - len(late) <= 4
    assert len(late) <= 6


async def test_h11_an_empty_429_for_ever_ends_the_batch_and_fails_no_job(server: FaultServer) -> None:
    """A gateway that only ever says 429 is waited for, and in the end it is the batch's trouble and no job's."""
    server.break_with(go.empty(429, times=None))

    async with client_of(server) as kling:
        outcomes, error = await collect(kling, jobs(20), stall_after=6.0)

    assert isinstance(error, errors.RateLimited)
    assert outcomes == []
    assert_paid_once(server.books, 0)
    assert_within(server.books, posts=16)


async def test_h07_a_limit_that_was_set_too_high_is_learned(server: FaultServer) -> None:
    """With room for 5 and belief in 50 the lane learns quickly, and few creates are refused."""
    server.change(slots=5, life=Life(seconds=0.02), pack="Trial-Image-1000Units-50Con-1Months")
    log = Log()

    async with client_of(server, log, slots="auto") as kling:
        outcomes, error = await collect(kling, jobs(100))

    assert error is None
    assert len(keys(outcomes, Succeeded)) == 100
    assert min(change.after for change in log.of(LaneChanged)) <= 5
    assert server.books.codes[1303] < 20
    assert_paid_once(server.books, 100)
    assert_within(server.books, slots=5)


async def test_h07_foreign_load_is_made_room_for(server: FaultServer) -> None:
    """Slots that another program takes are not fought for, and are used again when they are free."""
    server.change(slots=9, foreign=6, life=Life(seconds=0.02))

    async with client_of(server) as kling:
        outcomes, error = await collect(kling, jobs(40))

    assert error is None
    assert len(keys(outcomes, Succeeded)) == 40
    assert server.books.codes[1303] < 20
    assert_within(server.books, slots=3)


@pytest.mark.parametrize("n", [1, 4, 9])
async def test_the_slots_are_never_passed_by_us(server: FaultServer, n: int) -> None:
    """A server that does not enforce its limit finds it kept all the same."""
    server.change(slots=9, enforce=False, life=Life(seconds=0.02))
    server.break_with(go.html(504, accepted=True, times=2), go.cut("hang", "accepted", skip=3))

    async with client_of(server, timeout=QUICK) as kling:
        outcomes, error = await collect(kling, jobs(20, n=n))

    assert error is None
    assert len(keys(outcomes, Succeeded)) == 20
    assert_paid_once(server.books, 20)
    assert_within(server.books, slots=9)


async def test_h13_clocks_apart_cost_one_refusal_and_not_one_a_job(server: FaultServer) -> None:
    """A batch on a machine whose clock is wrong learns the difference at the first refusals."""
    server.change(life=Life(seconds=0.02))
    server.service.clock.skew = 1200

    async with client_of(server) as kling:
        outcomes, error = await collect(kling, jobs(20))

    assert error is None
    assert len(keys(outcomes, Succeeded)) == 20
    assert server.service.gate.tokens <= 2
    assert_within(server.books, posts=20 + 9)


async def test_answers_that_are_only_errors_end_the_batch(server: FaultServer) -> None:
    """A gateway that says 502 to everything leaves the creates sent in doubt; the rows behind them do not wait for ever."""
    server.break_with(go.html(502, "*", times=None))

    async with client_of(server) as kling, asyncio.timeout(60):
        outcomes, error = await collect(kling, jobs(20), stall_after=2.0 * PACE)

    assert isinstance(error, errors.TransportError)
    assert not error.sent
    assert "creates in doubt" in str(error)
    assert "HTTP 502" in str(error)
    assert len(outcomes) <= 3
    assert {type(outcome.error) for outcome in outcomes if isinstance(outcome, Failed)} <= {
        errors.SubmissionUnknown
    }
    assert_within(server.books, posts=3)


async def test_an_address_that_is_somebody_elses_ends_the_batch(server: FaultServer) -> None:
    """Where everything is a page of 404, look-ups too, no more is sent than what was under way, and the address is named."""
    server.break_with(go.html(404, "*", times=None))

    async with client_of(server) as kling, asyncio.timeout(60):
        outcomes, error = await collect(kling, jobs(20))

    assert isinstance(error, errors.ConfigError)
    assert "base URL" in str(error)
    assert len(outcomes) <= 3
    assert_within(server.books, posts=3)


async def test_n02_an_outage_ends_the_batch_and_fails_no_job(server: FaultServer) -> None:
    """A service that is gone for longer than the batch waits leaves all rows undone."""
    async with client_of(server, max_retries=1) as kling:
        await server.deafen()
        outcomes, error = await collect(kling, jobs(10), stall_after=1.0 * PACE)
        await server.listen()

    assert isinstance(error, errors.TransportError)
    assert outcomes == []
    assert server.books.requests.total() == 0


async def test_an_outage_that_ends_is_waited_out(server: FaultServer) -> None:
    """A service that answers 503 for a while loses no job and gets none twice."""
    server.change(life=Life(seconds=0.02))
    server.break_with(go.refuse(5001, times=6))

    async with client_of(server) as kling:
        outcomes, error = await collect(kling, jobs(10))

    assert error is None
    assert len(keys(outcomes, Succeeded)) == 10
    assert_paid_once(server.books, 10)


async def test_t05_t06_t07_each_trouble_is_its_rows_outcome(server: FaultServer) -> None:
    """A failed, an endless and an empty task are the outcomes of their rows; nothing is sent again."""
    lives = (
        ("row-1.", Life(end="failed", reason="Failure to pass the risk control system")),
        ("row-2.", Life.endless()),
        ("row-3.", Life(images=0)),
        ("row-4.", Life(script=("queued", "succeeded"))),
    )
    server.change(life=Life(seconds=0.02), lives=lives)

    async with client_of(server) as kling:
        outcomes, error = await collect(kling, jobs(6), task_timeout=1.5 * PACE)

    kinds = {outcome.key: type(outcome.error) for outcome in outcomes if isinstance(outcome, Failed)}
    assert error is None
    assert kinds == {"row-1": errors.TaskFailed, "row-2": errors.TaskTimeout, "row-3": errors.EmptyResult}
    assert keys(outcomes, Succeeded) == {"row-0", "row-4", "row-5"}
    assert_paid_once(server.books, 6)
    assert_within(server.books, slots=9, posts=6)


@pytest.mark.parametrize(
    "listing",
    [Listing(miss=0.5), Listing(miss=1.0), Listing(repeat=1.0), Listing(shift=3), Listing(order="shuffled")],
    ids=["misses", "misses all", "repeats", "shifts", "shuffled"],
)
async def test_t08_odd_lists_change_no_outcome(server: FaultServer, listing: Listing) -> None:
    """What a list leaves out or mixes up causes neither a second create nor a lost row."""
    server.change(slots=60, listing=listing, life=Life(seconds=0.1))

    async with client_of(server, slots=60) as kling:
        outcomes, error = await collect(kling, jobs(120))

    assert error is None
    assert len(keys(outcomes, Succeeded)) == 120
    assert all(outcome.task.external_task_id == outcome.external_task_id for outcome in outcomes)
    assert_paid_once(server.books, 120)
    assert_within(server.books, slots=60, posts=120)


RESULT_FAULTS = {
    "reset": go.cut("rst", "read", "result"),
    "cut": go.truncate("length", "result"),
    "cut chunks": go.truncate("chunked", "result"),
    "502": go.html(502, "result"),
    "link expired": go.empty(403, "result"),
    "link gone": go.empty(404, "result"),
}
LAST_CHUNK = b"IEND\xaeB`\x82"


@pytest.mark.parametrize("fault", RESULT_FAULTS.values(), ids=RESULT_FAULTS)
async def test_d01_d02_broken_downloads_are_tried_again(
    server: FaultServer, tmp_path: Path, fault: Fault
) -> None:
    """A download that breaks, or whose link has expired, is tried again; what stands in the folder is whole (I5)."""
    server.change(life=Life(seconds=0.02), padding=200_000, fresh_links=True)
    server.break_with(fault)

    async with client_of(server) as kling:
        outcomes, error = await collect(kling, jobs(3), out=tmp_path)

    assert error is None
    assert keys(outcomes, Succeeded) == {"row-0", "row-1", "row-2"}
    assert _saved(tmp_path) == (["row-0_0.png", "row-1_0.png", "row-2_0.png"], True)
    assert_paid_once(server.books, 3)


BAD_RESULTS = {
    "HTML": go.html(200, "result", times=None, match="/0.png"),
    "HTML called PNG": go.html(200, "result", times=None, headers=(("Content-Type", "image/png"),)),
    "cut without length": go.truncate("none", "result", times=None),
    "cut for ever": go.truncate("length", "result", times=None, size=1000),
    "gone": go.empty(404, "result", times=None),
    "empty": go.empty(200, "result", times=None),
}


@pytest.mark.parametrize("fault", BAD_RESULTS.values(), ids=BAD_RESULTS)
async def test_d02_d03_what_is_no_picture_gets_no_name(
    server: FaultServer, tmp_path: Path, fault: Fault
) -> None:
    """A page, half a picture or nothing at all is a failed download of a paid task, and leaves no file behind."""
    server.change(life=Life(seconds=0.02), padding=200_000)
    server.break_with(fault)

    async with client_of(server) as kling:
        outcomes, error = await collect(kling, jobs(1), out=tmp_path)

    assert error is None
    assert [type(outcome) for outcome in outcomes] == [Failed]
    assert isinstance(outcomes[0].error, errors.DownloadError)
    assert outcomes[0].task.task_id == server.books.charges[0].task_id
    assert _saved(tmp_path) == ([], True)
    assert_paid_once(server.books, 1)


def _saved(folder: Path) -> tuple[list[str], bool]:
    """Return the names of all files among the pictures, and whether each is a whole picture."""
    files = [path for path in (folder / "images").rglob("*") if path.is_file()]
    return sorted(path.name for path in files), all(path.read_bytes().endswith(LAST_CHUNK) for path in files)


async def test_m04_the_budget_is_kept_whatever_is_lost(server_in_two_modes: FaultServer) -> None:
    """Units committed stay under the budget also when answers are lost and creates are sent again."""
    server = server_in_two_modes
    server.change(life=Life(seconds=0.02))
    server.break_with(go.cut("rst", "accepted", times=3), go.html(502, times=2))

    async with client_of(server) as kling:
        outcomes, error = await collect(kling, jobs(20, n=2), budget=10 * 32)

    assert isinstance(error, errors.BudgetSpent)
    assert len(keys(outcomes, Succeeded)) == 10
    assert server.books.billed == 320
    assert_paid_once(server.books, 10)


async def test_leaving_a_batch_early_leaves_nothing_behind(server: FaultServer) -> None:
    """A loop that is left after the first outcome ends the batch; no create is cut and nothing leaks."""
    server.change(life=Life(seconds=0.05))
    server.break_with(go.delay(0.02, times=None))
    seen = []

    async with client_of(server) as kling, kling.batch(jobs(50)) as batch:
        async for outcome in batch:
            seen.append(outcome)
            break

    assert len(seen) == 1
    assert server.books.paid_twice == {}
    assert len(server.books.accepted) < 50


async def test_a_silent_service_in_the_middle_of_a_batch(server_in_two_modes: FaultServer) -> None:
    """Creates and reads that all fall silent for a moment are resolved one by one."""
    server = server_in_two_modes
    server.change(life=Life(seconds=0.05))
    server.break_with(go.cut("hang", "accepted", skip=4, times=4), go.cut("hang", "read", "get", times=2))
    limits = Timeouts(connect=0.3, request=0.3, settle=QUICK.settle)

    async with client_of(server, timeout=limits) as kling:
        outcomes, error = await collect(kling, jobs(16))

    assert error is None
    assert len(keys(outcomes, Succeeded)) == 16
    assert_paid_once(server.books, 16)
    assert_within(server.books, slots=9, posts=16)
