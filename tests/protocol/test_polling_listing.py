"""The list's order: guessed, learned and distrusted."""

from __future__ import annotations

import pytest

from kling_async.protocol.listing import Listing
from kling_async.protocol.sweeps import Hidden, choose
from kling_async.protocol.watched import Board, Row


def _row(name: str = "task", mark: float | None = None) -> Row:
    return Row(name, 0.0, fresh=True, mark=mark)


def _entered(listing: Listing, count: int) -> list[Row]:
    rows = [_row(f"task-{number}") for number in range(count)]
    for row in rows:
        listing.enter(row)
    return rows


def test_the_first_guess_is_newest_first() -> None:
    """Before any page was read, a task sinks by one rank with every newer one of ours."""
    listing = Listing(500)

    rows = _entered(listing, 10)

    assert [listing.rank(row) for row in rows] == list(range(9, -1, -1))
    assert listing.rank(_row()) == 0.0


def test_a_page_corrects_the_rank_of_rows_it_did_not_show() -> None:
    """Three hundred tasks of other programs on top move every row, those on other pages too."""
    listing = Listing(500)
    rows = _entered(listing, 700)
    listing.learn([(row, 699 - at) for at, row in enumerate(rows)])

    listing.learn([(row, 699 - at + 300) for at, row in enumerate(rows[500:], 500)])

    assert listing.rank(rows[0]) == 999
    assert listing.rank(rows[699]) == 300


def test_traffic_of_other_programs_is_foreseen() -> None:
    """When the list sinks by ten ranks a second by itself, later guesses include that."""
    listing = Listing(500)
    (row,) = _entered(listing, 1)

    for second in range(20):
        listing.advance(float(second))
        listing.learn([(row, 10 * second)])
        listing.settle(float(second))
    listing.advance(25.0)

    assert listing.rank(row) == pytest.approx(250, abs=10)


def test_a_list_sorted_oldest_first_is_recognised() -> None:
    """In a list that grows at its end nothing sinks, and new tasks are looked for where the last ones were found."""
    listing = Listing(500)
    rows: list[Row] = []

    for second in range(12):
        new = _entered(listing, 50)
        listing.advance(float(second))
        listing.learn([(row, 1000 + at) for at, row in enumerate(rows + new[:25])])
        listing.settle(float(second))
        rows += new
    newest = _entered(listing, 50)[-1]

    assert listing.rank(rows[0]) == pytest.approx(1000, abs=15)
    assert listing.rank(newest) == pytest.approx(1000 + 649, abs=30)
    assert "trust 1.00" in repr(listing)


def test_two_sweeps_at_one_instant_teach_no_drift() -> None:
    """A clock that stands still divides nothing by zero."""
    listing = Listing(500)
    rows = _entered(listing, 2)

    for _ in range(2):
        listing.learn([(row, 100) for row in rows])
        listing.settle(5.0)

    assert listing._drift == 0.0


def test_small_pages_only_while_trust_is_high() -> None:
    """A small page is asked for when it shows all that is wanted, and never larger than the caller's."""
    listing, small = Listing(500), Listing(40)

    sizes = [listing.size_for(depth) for depth in (0, 17, 18, 73, 74, 1e9)]
    limited = [small.size_for(depth) for depth in (0, 17, 18)]
    listing.judge(10, 0)

    assert sizes == [30, 30, 100, 100, 500, 500]
    assert limited == [30, 30, 40]
    assert listing.size_for(0) == 500


def test_trust_is_lost_quickly_and_regained_slowly() -> None:
    """Sweeps that find nothing soon need crowds to be worth a page; time forgives."""
    listing = Listing(500)

    for _ in range(10):
        listing.judge(100, 0)
    lost = listing.trust
    for _ in range(200):
        listing.forgive()

    assert lost < 0.03
    assert listing.trust > 0.95


def test_a_page_must_promise_more_than_it_costs() -> None:
    """One row is asked by a GET, two share a page; without trust not even three do, and the list is forgiven a little."""
    listing = Listing(500)
    rows = _entered(listing, 3)

    alone, pair = choose(rows[:1], listing, 0.0), choose(rows[:2], listing, 0.0)
    for _ in range(5):
        listing.judge(1, 0)
    distrusted, before = choose(rows, listing, 0.0), listing.trust

    assert alone is None
    assert pair is not None
    assert pair.pages == {1}
    assert distrusted is None
    assert choose(rows, listing, 0.0) is None
    assert listing.trust > before
    assert choose([], listing, 0.0) is None


def test_a_sweep_goes_where_the_missing_rows_have_sunk() -> None:
    """When others push the list down while it is read, the sweep follows to the page that now has most of the missing."""
    listing = Listing(500)
    rows = _entered(listing, 1000)
    sweep = choose(rows[:490], listing, 0.0)
    assert sweep is not None
    assert sweep.pages == {2}

    for row in rows[200:400]:
        sweep.wanted.pop(row.task_id)
    listing.learn([(row, 999 - at + 400) for at, row in enumerate(rows[400:490], 400)])
    further = sweep.read(2, 500, listing, 1.0)

    assert further == 3
    assert sweep.pages == {3}


def test_the_end_of_the_list_ends_the_search() -> None:
    """A page shorter than asked for is the last: there is nothing deeper to read."""
    listing = Listing(500)
    sweep = choose([_row(f"task-{number}") for number in range(50)], listing, 0.0)
    assert sweep is not None

    assert sweep.read(1, 499, listing, 1.0) is None


def test_rows_that_the_list_hides_get_gets_for_a_while() -> None:
    """After two misses a row is left out of sweeps, as far as the budget goes, and tried again some turns later."""
    hidden, rows = Hidden(), [_row("a", 1.0), _row("b", 1.0)]

    alone = [hidden.miss(rows[0]) for _ in range(2)]
    listed = [[row.task_id for row in hidden.listed(rows, 5.0)] for _ in range(10)]

    assert alone == [False, True]
    assert rows[0].mark is None
    assert listed[:8] == [["b"]] * 8
    assert ["a", "b"] in listed
    assert [row.task_id for row in hidden.listed(rows, 0.5)] == ["a", "b"]
    hidden.forgive("a")
    assert len(hidden) == 0


def test_a_row_is_in_one_place() -> None:
    """Whatever moves a row takes it from where it was."""
    board, row = Board(0.1), _row("a")
    board.rows["a"] = row

    board.schedule(row, 5.0)
    board.move(row, board.queue)
    board.move(row, board.out)
    board.schedule(row, 1.0)
    board.fire(2.0)

    assert row.place is board.ready
    assert board.ready == {"a": row}
    assert len(board.wheel) == 0
    assert repr(board) == "<Board of 1 rows, 1 ready, 0 queued, 0 out>"
    board.remove(row)
    assert not board.rows
    assert not board.ready
