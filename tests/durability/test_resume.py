"""What a run finds when it is continued: changed rows, rows that are gone, lost journals, budgets, machines that slept."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from crash_kit import Order, Work, Zygote, assert_kept, states
from crash_kit.proof import lines, pictures
from fault_server import Remote


@pytest.fixture(params=[True, False], ids=["unique", "not unique"])
def service_in_two_modes(service: Remote, request: pytest.FixtureRequest) -> Remote:
    """A service that refuses doubled external ids, and one that would bill them."""
    service.change(unique=request.param)
    return service


def lose_journal(out: Path, pattern: str = "journal.db*") -> None:
    """Delete the journal of *out*, by default with all that belongs to it."""
    for path in out.glob(pattern):
        path.unlink()


def creates(server: Remote) -> Counter[str]:
    """Count the creates that arrived, by job."""
    log = server.books()["log"]
    return Counter(entry["label"] for entry in log if entry["route"] == "create")


def paid(server: Remote) -> Counter[str]:
    """Count the tasks that were paid for, by job."""
    return Counter(charge["label"] for charge in server.books()["charges"])


def edited(order: Order, key: str, prompt: str) -> Order:
    """Return *order* with another prompt in one row."""
    rows = [(name, prompt if name == key else text, n) for name, text, n in order.rows]
    return evolve(order, rows=rows)


def change_journal(out: Path, statement: str) -> None:
    """Change the journal behind the package's back."""
    with closing(sqlite3.connect(out / "journal.db")) as db, db:
        db.execute(statement)


# J16: the journal is gone.


def test_j16_a_deleted_journal_costs_nothing(
    zygote: Zygote, service_in_two_modes: Remote, work: Work, undisturbed: Mapping[str, str]
) -> None:
    """With the journal deleted each row is looked up first: every task is found again, and none is sent."""
    server = service_in_two_modes
    zygote.live(work.order(server))
    before = creates(server)
    lose_journal(work.out)

    again = zygote.live(work.order(server))

    assert again.code == 0, again.report
    assert creates(server) == before
    assert_kept(server, work, undisturbed)


@pytest.mark.parametrize("point", ["after-row", "submitted", "done", "after-done"])
def test_j16_killed_while_it_finds_the_tasks_again(
    zygote: Zygote, service_in_two_modes: Remote, work: Work, undisturbed: Mapping[str, str], point: str
) -> None:
    """A run that was looking up what a deleted journal knew goes on looking after it was killed."""
    server = service_in_two_modes
    zygote.live(work.order(server))
    before = creates(server)
    lose_journal(work.out)

    killed = zygote.live(work.order(server, crash=point, nth=2))
    again = zygote.live(work.order(server))

    assert killed.killed
    assert again.code == 0, again.report
    assert creates(server) == before
    assert_kept(server, work, undisturbed)


@pytest.mark.parametrize("pattern", ["journal.db*", "journal.db"])
def test_j16_a_journal_deleted_after_a_crash(
    zygote: Zygote, service_in_two_modes: Remote, work: Work, undisturbed: Mapping[str, str], pattern: str
) -> None:
    """
    Killed in mid-download and with the journal gone, the run picks up its tasks and sweeps what was half-written.

    What is left of a journal that was deleted carelessly is not taken for a part of the new one.
    """
    server = service_in_two_modes
    zygote.live(work.order(server, crash="after-fsync", nth=3))
    lose_journal(work.out, pattern)

    again = zygote.live(work.order(server))

    assert again.code == 0, again.report
    assert_kept(server, work, undisturbed)


def test_j16_look_ups_that_bring_no_answer_end_no_job(
    zygote: Zygote, service_in_two_modes: Remote, work: Work, undisturbed: Mapping[str, str]
) -> None:
    """A look-up that fails is no word on the job: it stays undone, and is taken up by the next run."""
    server = service_in_two_modes
    zygote.live(work.order(server))
    lose_journal(work.out)
    server.order("/faults", [_broken_gets()])

    failing = zygote.live(work.order(server))
    server.order("/clear", {})
    again = zygote.live(work.order(server))

    assert {kind for kind, _, _ in failing.report["outcomes"].values()} == {"Failed"}
    assert again.code == 0, again.report
    assert_kept(server, work, undisturbed)


def _broken_gets() -> dict[str, Any]:
    return {
        "route": "get",
        "phase": "read",
        "action": "reply",
        "status": 502,
        "text": "<html>",
        "times": None,
    }


# J17: rows that changed.


def test_j17_a_row_that_changed_is_refused_and_the_others_go_on(
    zygote: Zygote, service: Remote, work: Work
) -> None:
    """A row with other content under an old key is an error of that row alone, and nothing is sent for it."""
    first = evolve(work.order(service), rows=work.rows[:4])
    zygote.live(first)

    again = zygote.live(edited(work.order(service), "row-1", "another."))

    assert again.code == 0, again.report
    assert again.report["outcomes"]["row-1"][:2] == ["Failed", "InvalidJob"]
    assert [again.report["outcomes"][key][0] for key in ("row-4", "row-5")] == ["Succeeded"] * 2
    assert "another." not in creates(service)
    assert paid(service) == dict.fromkeys((prompt for _, prompt, _ in work.rows), 1)


def test_j17_update_does_a_changed_row_anew(zygote: Zygote, service: Remote, work: Work) -> None:
    """With *update* a changed row is done again under its new content, and only it."""
    zygote.live(work.order(service))

    order = edited(work.order(service, options={"update": True}), "row-1", "another.")
    again = zygote.live(order)

    assert again.code == 0, again.report
    assert creates(service) == Counter({prompt: 1 for _, prompt, _ in order.rows} | {"job 1.": 1})
    assert states(work.out) == dict.fromkeys(work.keys, "done")


@pytest.mark.parametrize("update", [True, False])
def test_j17_a_row_that_changed_while_its_task_runs(
    zygote: Zygote, service: Remote, work: Work, undisturbed: Mapping[str, str], *, update: bool
) -> None:
    """A row that was edited while its task runs is refused; put back, its task is taken up."""
    service.change(life={"seconds": 1000.0})
    zygote.live(work.order(service, crash="submitted", nth=3))
    running = next(key for key, state in states(work.out).items() if state == "submitted")
    service.change(life={"seconds": 0.02})
    service.order("/end-all", {})

    changed = zygote.live(edited(work.order(service, options={"update": update}), running, "another."))
    back = zygote.live(work.order(service))

    assert changed.code == 0, changed.report
    assert changed.report["outcomes"][running][:2] == ["Failed", "InvalidJob"]
    assert back.code == 0, back.report
    assert_kept(service, work, undisturbed)


def test_a_row_that_is_gone_is_brought_in_all_the_same(
    zygote: Zygote, service: Remote, work: Work, undisturbed: Mapping[str, str]
) -> None:
    """The task of a row that was taken out of the input is paid for, so its pictures are saved too."""
    service.change(life={"seconds": 1000.0})
    zygote.live(work.order(service, crash="submitted", nth=3))
    running = next(key for key, state in states(work.out).items() if state == "submitted")
    service.change(life={"seconds": 0.02})
    service.order("/end-all", {})

    order = work.order(service)
    without = zygote.live(evolve(order, rows=[row for row in order.rows if row[0] != running]))

    assert without.code == 0, without.report
    assert without.report["outcomes"][running][0] == "Succeeded"
    assert_kept(service, work, undisturbed)


# M03, M04 and time.


def test_m03_nothing_to_do_sends_nothing(zygote: Zygote, service: Remote, work: Work) -> None:
    """An empty manifest and one whose rows are all done end well: it is asked who answers, and nothing else is sent."""
    empty = zygote.live(evolve(work.order(service), rows=[]))
    none = creates(service)
    zygote.live(work.order(service))
    before = Counter(service.books()["requests"])

    again = zygote.live(work.order(service))

    assert (empty.code, again.code) == (0, 0)
    assert none == {}
    assert {kind for kind, _, _ in again.report["outcomes"].values()} == {"Skipped"}
    assert Counter(service.books()["requests"]) - before == {"costs": 1}


@pytest.mark.parametrize("point", ["after-row", "after-intent", "after-post", "submitted", "done"])
def test_m04_a_budget_holds_across_crashes_and_is_used_up(
    zygote: Zygote, service_in_two_modes: Remote, work: Work, undisturbed: Mapping[str, str], point: str
) -> None:
    """A budget that is just enough is enough after a crash too, and one job less is done with one unit less."""
    server = service_in_two_modes
    needed = 16 * sum(work.weights)

    zygote.live(work.order(server, crash=point, nth=3, options={"budget": needed - 16}))
    short = zygote.live(work.order(server, options={"budget": needed - 16}))
    billed = server.books()["billed"]
    enough = zygote.live(work.order(server, options={"budget": needed}))

    assert short.report["error"] == "BudgetSpent"
    assert billed < needed
    assert enough.code == 0, enough.report
    assert_kept(server, work, undisturbed)


def test_m04_a_budget_is_not_guessed_when_the_journal_is_lost(
    zygote: Zygote, service_in_two_modes: Remote, work: Work
) -> None:
    """Without its journal nobody knows what a run has spent: a budget is refused until the tasks were found again."""
    server = service_in_two_modes
    spent = 16 * sum(work.weights[:4])
    order = work.order(server, options={"budget": spent})
    zygote.live(evolve(order, rows=order.rows[2:]))
    lose_journal(work.out)

    refused = [zygote.live(order) for _ in range(2)]
    recovered = zygote.live(evolve(order, action="recover"))
    again = zygote.live(order)

    assert [end.report["error"] for end in refused] == ["JournalError"] * 2
    assert recovered.report["found"] == 4
    assert again.report["error"] == "BudgetSpent"
    assert server.books()["billed"] == spent


def test_m04_a_budget_counts_earlier_attempts(zygote: Zygote, service: Remote, work: Work) -> None:
    """What was spent on a row before it was done anew stays spent, also for the run after."""
    spent = 16 * (sum(work.weights) + 2)
    zygote.live(work.order(service))
    zygote.live(edited(work.order(service, options={"update": True}), "row-1", "another."))

    order = edited(work.order(service, options={"update": True, "budget": spent}), "row-1", "a third.")
    again = zygote.live(order)

    assert again.report["error"] == "BudgetSpent"
    assert service.books()["billed"] == spent


def test_a_row_that_is_no_job_has_one_line(zygote: Zygote, service: Remote, work: Work) -> None:
    """A bad row is told again by every run, and stands in the results once."""
    order = work.order(service)
    doubled = evolve(order, rows=[*order.rows, order.rows[0]])

    ends = [zygote.live(doubled) for _ in range(2)]

    assert [end.report["outcomes"]["row-0#7"][:2] for end in ends] == [["Failed", "InvalidJob"]] * 2
    assert sorted(line["key"] for line in lines(work.out)) == sorted([*work.keys, "row-0#7"])


def test_a_machine_that_slept_for_hours_takes_its_tasks_up(
    zygote: Zygote, service: Remote, work: Work, undisturbed: Mapping[str, str]
) -> None:
    """The time in which nobody waited does not count as waiting: a run continued much later still gets its pictures."""
    zygote.live(work.order(service, crash="submitted", nth=4))
    change_journal(work.out, "UPDATE jobs SET submitted_at = submitted_at - 86400")

    again = zygote.live(work.order(service))

    # Some may have been done before the crash.
    assert {kind for kind, _, _ in again.report["outcomes"].values()} - {"Skipped"} == {"Succeeded"}
    assert_kept(service, work, undisturbed)


@pytest.mark.parametrize("jump", [3600, -3600])
def test_j20_a_wall_clock_that_jumped_between_runs(
    zygote: Zygote, service: Remote, work: Work, undisturbed: Mapping[str, str], jump: int
) -> None:
    """J20: moments written by a clock that was wrong by an hour change nothing."""
    zygote.live(work.order(service, crash="succeeded", nth=2))
    change_journal(
        work.out, f"UPDATE jobs SET submitted_at = submitted_at + {jump}, ended_at = ended_at + {jump}"
    )

    again = zygote.live(work.order(service))

    assert again.code == 0, again.report
    assert_kept(service, work, undisturbed)


# Retries, and lines that a crash has swallowed.


def failing_job_one(server: Remote) -> None:
    """Have the task of the second job fail."""
    server.change(lives=[("job 1.", {"end": "failed", "reason": "unlucky"})])


def test_a_retry_is_a_new_attempt_of_the_failed_job_alone(
    zygote: Zygote, service_in_two_modes: Remote, work: Work
) -> None:
    """A job that failed is skipped until somebody says *retry*; then it is made once more, under another id."""
    server = service_in_two_modes
    failing_job_one(server)
    zygote.live(work.order(server))
    skipped = zygote.live(work.order(server))
    server.change(lives=[])

    reopened = zygote.live(work.order(server, action="retry"))
    again = zygote.live(work.order(server))

    assert skipped.report["outcomes"]["row-1"][0] == "Skipped"
    assert reopened.report["reopened"] == 1
    assert again.report["outcomes"]["row-1"][0] == "Succeeded"
    assert paid(server) == Counter({prompt: 1 for _, prompt, _ in work.rows} | {"job 1.": 2})
    assert server.books()["paid_twice"] == {}


@pytest.mark.parametrize("point", ["done", "after-done"])
def test_the_line_of_a_retried_job_survives_a_crash(
    zygote: Zygote, service: Remote, work: Work, point: str
) -> None:
    """A crash between the end of a second attempt and its line does not swallow the line, though an older one is there."""
    failing_job_one(service)
    zygote.live(work.order(service))
    service.change(lives=[])
    zygote.live(work.order(service, action="retry"))

    killed = zygote.live(work.order(service, crash=point))
    zygote.live(work.order(service))

    statuses = [line["status"] for line in lines(work.out) if line["key"] == "row-1"]
    assert killed.killed
    assert statuses == ["failed", "succeeded"]


@pytest.mark.parametrize("between", ["retry", "recover"])
@pytest.mark.parametrize("point", ["after-fsync", "done"])
def test_what_a_crash_left_is_mended_also_when_something_comes_between(
    zygote: Zygote, service: Remote, work: Work, undisturbed: Mapping[str, str], between: str, point: str
) -> None:
    """Half-written pictures and swallowed lines are put in order by the next run, whatever opened the journal before."""
    zygote.live(work.order(service, crash=point, nth=3))

    zygote.live(work.order(service, action=between))
    again = zygote.live(work.order(service))

    assert again.code == 0, again.report
    assert_kept(service, work, undisturbed)


@pytest.mark.parametrize("text", ["", "{", '{"run": 5', "{}"])
def test_a_crash_while_the_folder_was_made(
    zygote: Zygote, service: Remote, work: Work, undisturbed: Mapping[str, str], text: str
) -> None:
    """A name of the run that is cut short is taken from the journal, and where there is none the run is a new one."""
    zygote.live(work.order(service, crash="submitted", nth=2))
    (work.out / "run.json").write_text(text)

    again = zygote.live(work.order(service))

    assert again.code == 0, again.report
    assert json.loads((work.out / "run.json").read_bytes())["run"]
    assert_kept(service, work, undisturbed)


def test_half_a_line_is_made_whole(
    zygote: Zygote, service: Remote, work: Work, undisturbed: Mapping[str, str]
) -> None:
    """What a crash left of a line that was being written is replaced by the whole line."""
    zygote.live(work.order(service, crash="after-done", nth=2))
    results = work.out / "results.jsonl"
    results.write_bytes(results.read_bytes()[:-20])

    again = zygote.live(work.order(service))

    assert again.code == 0, again.report
    assert_kept(service, work, undisturbed)
    assert pictures(work.out) == undisturbed
