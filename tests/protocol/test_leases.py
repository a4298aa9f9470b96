"""The book of shared slots: what each report changes and what is ruled."""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from kling_async.protocol.claims import GONE, LOST, OPEN, Claim, Opening, Refusal, Report, Ruling, Terms
from kling_async.protocol.leases import Book


@define
class World:
    """A book and its clock; processes are letters, and a job's token is its name with the process before it."""

    book: Book = field(factory=lambda: Book(terms=Terms(settle=0.0)))
    now: float = 1000.0
    nonces: int = 0

    def tell(self, owner: str, **news: Any) -> Ruling:
        self.nonces += 1
        return self.book.exchange(Report(owner=owner, nonce=f"n{self.nonces}", **news), self.now)

    def ask(self, owner: str, *jobs: tuple[str, int], firm: bool = True) -> list[str]:
        asks = tuple(Claim(job, f"{owner}.{job}", slots, firm) for job, slots in jobs)
        return [grant.job for grant in self.tell(owner, asks=asks).granted]

    def end(self, owner: str, *jobs: str) -> list[str]:
        ruling = self.tell(owner, ends=tuple((job, f"{owner}.{job}") for job in jobs))
        return [grant.job for grant in ruling.granted]

    def open(self, owner: str, job: str, seconds: float = 10.0) -> float:
        token = f"{owner}.{job}"
        return self.tell(owner, opens=(Opening(job, token, seconds),)).opened[token]

    def hold(self, owner: str, job: str, slots: int = 1, *, firm: bool = False) -> Ruling:
        return self.tell(owner, holds=(Claim(job, f"{owner}.{job}", slots, firm),))

    def refuse(self, owner: str, job: str, pause: float = 0.0) -> Ruling:
        return self.tell(owner, refusals=(Refusal(job, f"{owner}.{job}", pause),))


def of(limit: int, **terms: float) -> World:
    """Return a world in which everybody knows the limit."""
    world = World(Book(terms=Terms(**{"settle": 0.0, **terms})))
    world.tell("a", limit=limit)
    return world


def test_grants_up_to_the_limit() -> None:
    """What fits is granted at once, the rest when something ends, whoever ends it."""
    world = of(5)

    assert world.ask("a", ("a1", 3), ("a2", 3)) == ["a1"]
    assert world.ask("b", ("b1", 2)) == ["b1"]
    assert world.end("b", "b1") == []
    assert world.end("a", "a1") == ["a2"]


def test_first_come_first_served() -> None:
    """Room is kept for a process that asked first, as long as it is heard of."""
    world = of(2)
    world.ask("a", ("a1", 2))
    world.ask("b", ("b1", 2))
    world.ask("c", ("c1", 2))

    assert world.end("a", "a1") == []
    assert world.ask("c") == []
    assert world.ask("b") == ["b1"]


def test_keeps_no_room_for_who_is_not_heard_of() -> None:
    """A process that is silent for a moment keeps its place, but not the slots that it could have."""
    world = of(2)
    world.ask("a", ("a1", 2))
    world.ask("b", ("b1", 2))
    world.ask("c", ("c1", 2))
    world.now += 5
    world.end("a", "a1")

    assert world.ask("c") == ["c1"]
    assert world.end("c", "c1") == []
    assert world.ask("b") == ["b1"]


def test_who_does_not_fit_is_passed_for_a_bounded_number_of_slots() -> None:
    """Small claims pass a heavy one until its patience ends; then room is kept for it."""
    world = of(9)
    world.ask("a", ("small0", 1), ("heavy", 9))

    passed = 0
    while world.ask("a", (f"small{passed + 1}", 1)):
        world.end("a", f"small{passed}")
        passed += 1

    assert 0 < passed <= 12 * 9
    assert world.end("a", f"small{passed}") == ["heavy"]


def test_who_came_much_later_passes_nobody() -> None:
    """Only the next few places behind one that does not fit are looked at, so that light jobs wait in line too."""
    world = of(9)
    world.ask(
        "a", ("running", 8), ("heavy", 9), *((f"middle{number}", 2) for number in range(12)), ("late", 1)
    )

    assert "late" in world.book.queue
    assert world.end("a", "middle0") == ["late"]


def test_an_unlimited_lane_grants_everything() -> None:
    """Without a limit there is nothing to wait for before the first refusal."""
    world = World()

    assert world.ask("a", ("a1", 9), ("a2", 9)) == ["a1", "a2"]


def test_a_guess_counts_only_where_nobody_knows() -> None:
    """What a pack says is taken until somebody says how many slots there are."""
    world = World()

    assert world.tell("a", guess=5).limit == 5
    assert world.tell("b", limit=3).limit == 3
    assert world.tell("c", guess=5).limit == 3


def test_nothing_heavier_than_the_limit_is_granted() -> None:
    """A claim that can never fit waits for another limit and holds nobody up."""
    world = of(4)

    assert world.ask("a", ("heavy", 9), ("light", 1)) == ["light"]
    assert [grant.job for grant in world.tell("a", limit=10).granted] == ["heavy"]


def test_a_lower_limit_waits_for_what_runs() -> None:
    """When the limit comes down nothing is granted until the leases are below it."""
    world = of(4)
    world.ask("a", ("a1", 2), ("a2", 2), ("a3", 1))
    world.tell("b", limit=2)

    assert world.end("a", "a1") == []
    assert world.end("a", "a2") == ["a3"]


def test_asking_twice_is_asking_once() -> None:
    """A report that is repeated, because its answer was lost, changes nothing and is answered alike."""
    world = of(2)

    assert world.ask("a", ("a1", 2)) == ["a1"]
    assert world.ask("a", ("a1", 2)) == ["a1"]
    assert world.ask("a", ("a2", 2)) == world.ask("a", ("a2", 2)) == []
    assert world.book.held == 2
    world.end("a", "a1")
    assert world.end("a", "a1") == []
    assert world.book.held == 2


def test_who_waits_can_leave_the_queue() -> None:
    """A claim that is given up before it was granted is gone."""
    world = of(1)
    world.ask("a", ("a1", 1), ("a2", 1), ("a3", 1))
    world.end("b", "a2")

    world.end("a", "a2")

    assert world.end("a", "a1") == ["a3"]


def test_another_process_takes_a_job_over_and_holds_no_more_slots_for_it() -> None:
    """Leases are re-entrant by job: the new token has it, the old one is told, and can end or open nothing."""
    world = of(4)
    world.ask("a", ("job", 3))
    world.open("a", "job")

    ruling = world.tell("b", asks=(Claim("job", "b.job", 3),))

    assert [(grant.job, grant.inherited) for grant in ruling.granted] == [("job", True)]
    assert world.book.held == 3
    assert world.tell("a").lost == ("a.job",)
    assert world.tell("a").lost == ()
    world.end("a", "job")
    assert world.book.held == 3
    assert world.open("a", "job") == LOST


def test_a_waiting_job_is_taken_over_in_its_place() -> None:
    """Who takes over a waiting claim gets its place in the queue."""
    world = of(1)
    world.ask("a", ("a1", 1), ("job", 1))
    world.ask("c", ("c1", 1))
    world.ask("b", ("job", 1))

    world.end("a", "a1")

    assert world.ask("c") == []
    assert world.ask("b") == ["job"]


def test_who_was_forgotten_takes_nothing_over() -> None:
    """A claim that is told again is no new claim: what somebody else has by then stays theirs."""
    world = of(4)
    world.ask("b", ("job", 1))
    world.tell("b", limit=0)
    world.book.queue.clear()

    ruling = world.tell("a", asks=(Claim("job", "a.job", 1, firm=False),))

    assert ruling.granted == ()
    assert ruling.lost == ("a.job",)


def test_a_task_told_of_late_goes_to_who_asked_for_it_meanwhile() -> None:
    """A book that forgot who made a task gives the task's slots to the claim that waits for the same job."""
    world = of(2)
    world.ask("c", ("full", 2))
    world.ask("b", ("job", 1))
    world.hold("a", "job")
    other = world.ask("c", ("other", 1))
    ruling = world.tell("b")

    assert other == []
    assert [(grant.job, grant.token, grant.inherited) for grant in ruling.granted] == [("job", "b.job", True)]
    assert ruling.held == 3
    assert world.tell("a").lost == ("a.job",)
    assert world.end("b", "job") == []
    assert world.tell("b").held == 2


def test_who_finds_the_task_while_waiting_leaves_the_queue() -> None:
    """A claim whose own process tells of the task waits no more, and nothing was taken from anybody."""
    world = of(2)
    world.ask("c", ("full", 2))
    world.ask("a", ("job", 1))

    ruling = world.hold("a", "job")

    assert (ruling.held, ruling.waiting, ruling.lost) == (3, 0, ())


def test_a_create_told_of_late_fences_who_asked_meanwhile() -> None:
    """A window that is told of again keeps the new owner from sending, as it did before the book forgot."""
    world = of(2)
    world.ask("c", ("full", 2))
    world.ask("b", ("job", 1))
    world.tell("a", holds=(Claim("job", "a.job", 1, firm=False),), opens=(Opening("job", "a.job", 10.0),))
    world.tell("b")

    assert world.open("b", "job") == 10.0


def test_a_window_fences_the_create() -> None:
    """While one token's create may arrive nobody else may send the job; its answer ends that."""
    world = of(4)
    world.ask("a", ("job", 1))
    assert world.open("a", "job", 10.0) == OPEN
    world.ask("b", ("job", 1))

    assert world.open("b", "job") == 10.0
    world.now += 4
    assert world.open("b", "job") == 6.0
    world.tell("a", closes=(("job", "a.job"),))
    assert world.open("b", "job") == OPEN
    assert world.open("b", "job") == OPEN


def test_a_window_ends_by_itself() -> None:
    """After the time in which the create could arrive, the next one may be sent."""
    world = of(4)
    world.ask("a", ("job", 1))
    world.open("a", "job", 10.0)
    world.ask("b", ("job", 1))
    world.now += 10

    assert world.open("b", "job") == OPEN


def test_only_the_sender_closes_a_window() -> None:
    """What an old token tells of a create that it has not sent is no news."""
    world = of(4)
    world.ask("a", ("job", 1))
    world.open("a", "job", 10.0)
    world.tell("b", closes=(("job", "b.job"), ("other", "b.other")))
    world.ask("b", ("job", 1))

    assert world.open("b", "job") == 10.0


def test_there_is_no_window_without_a_lease() -> None:
    """Who lost the lease has to ask again."""
    world = of(4)

    assert world.open("a", "job") == GONE


def test_what_a_silent_process_waits_for_is_dropped() -> None:
    """After *patience* its waiting claims and unused leases are gone; what it may have sent is not."""
    world = of(3, patience=30.0, orphan=100.0)
    world.ask("a", ("unused", 1), ("sent", 1), ("runs", 1), ("waits", 1))
    world.open("a", "sent", 10.0)
    world.hold("a", "runs")
    world.tell("b", asks=(Claim("job", "b.job", 1, firm=True),))
    world.tell("c", asks=(Claim("job", "c.job", 1),))
    world.now += 31

    world.tell("d")

    assert set(world.book.leases) == {"sent", "runs"}
    assert not world.book.queue
    assert not world.book.lost
    world.now += 100
    world.tell("d")
    assert world.book.held == 0


def test_a_silent_process_that_comes_back_is_told_that_it_was_forgotten() -> None:
    """It tells its running tasks again and keeps their slots; what it had not sent must be asked for again."""
    world = of(2, patience=30.0)
    world.ask("a", ("runs", 1), ("unused", 1))
    world.hold("a", "runs")
    world.now += 31
    world.ask("b", ("other", 1))

    ruling = world.hold("a", "runs")

    assert ruling.forgotten
    assert world.book.leases["runs"].owner == "a"
    assert world.open("a", "unused") == GONE
    assert world.ask("a", ("unused", 1), firm=False) == []
    assert world.end("b", "other") == []
    assert world.ask("a") == ["unused"]


def test_an_orphan_can_be_asked_for_by_anybody() -> None:
    """The job of a dead process goes to whoever runs it again, without waiting for slots."""
    world = of(1, patience=30.0)
    world.ask("a", ("job", 1))
    world.hold("a", "job")
    world.now += 31

    ruling = world.tell("b", asks=(Claim("job", "b.job", 1, firm=False),))

    assert [(grant.job, grant.inherited) for grant in ruling.granted] == [("job", True)]
    assert world.book.leases["job"].until == 0.0


def test_a_task_that_exists_holds_slots_even_above_the_limit() -> None:
    """Tasks found on resume are counted, whoever had them, and nothing is granted until there is room."""
    world = of(2)
    world.ask("a", ("a1", 2), ("a2", 1))

    world.hold("b", "found", 2, firm=True)
    world.hold("b", "a2", 1, firm=True)

    assert world.book.held == 5
    assert "a2" not in world.book.queue
    assert world.tell("a").lost == ("a.a2",)
    assert world.end("a", "a1") == []


def test_a_task_can_be_taken_over_only_on_purpose() -> None:
    """Telling again what one held does not take it from who has it now; adopting does."""
    world = of(2)
    world.hold("b", "job", 1, firm=True)

    assert world.hold("a", "job").lost == ("a.job",)
    assert world.book.leases["job"].owner == "b"
    world.hold("a", "job", firm=True)
    assert world.tell("b").lost == ("b.job",)
    assert world.book.held == 1


def test_a_refusal_lowers_the_ceiling_and_pauses_everybody() -> None:
    """After a 1303 nobody gets a slot for a while, and then no more than were held."""
    world = of(10)
    world.ask("a", ("a1", 2), ("a2", 2), ("a3", 2))

    ruling = world.refuse("a", "a3")

    assert (ruling.ceiling, ruling.held, ruling.pause) == (4, 4, 1.0)
    assert world.ask("b", ("b1", 1)) == []
    world.now += 1
    assert world.ask("b") == []
    world.end("a", "a1")
    assert world.ask("b") == ["b1"]


def test_a_refusal_is_counted_once() -> None:
    """Told again, or of a job that somebody else has by now, it changes nothing."""
    world = of(10)
    world.ask("a", ("a1", 2), ("a2", 2))
    world.refuse("a", "a2")

    assert world.refuse("a", "a2").ceiling == 2
    assert world.refuse("a", "unheard of").ceiling == 2
    assert world.refuse("b", "a1").held == 2
    assert world.book.strikes == 1


def test_refusals_of_one_burst_are_one_strike() -> None:
    """Creates that were under way when the pause began say nothing new, except how much was too much."""
    world = of(10)
    world.ask("a", ("a1", 2), ("a2", 2), ("a3", 2))
    world.refuse("a", "a3")

    ruling = world.refuse("a", "a2", pause=5.0)

    assert (world.book.strikes, ruling.ceiling, ruling.pause) == (1, 2, 5.0)


def test_pauses_double_while_the_ceiling_is_not_back() -> None:
    """Refusal after refusal makes the pause longer, up to a minute; the service's own wish is bounded too."""
    world = of(100)
    pauses = []
    for number in range(8):
        world.ask("a", (f"a{number}", 1))
        pauses.append(world.refuse("a", f"a{number}").pause)
        world.now += pauses[-1]
    world.ask("a", ("last", 1))

    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert world.refuse("a", "last", pause=900.0).pause == 60


def test_the_ceiling_rises_again_after_a_quiet_time() -> None:
    """What was refused is tried again, slot by slot, up to the limit; then the next refusal is a first one."""
    world = of(4)
    world.ask("a", ("a1", 1), ("a2", 1))
    world.refuse("a", "a2")

    world.now += 30 + 5
    assert world.tell("a").ceiling == 2
    world.now += 100
    assert world.tell("a").ceiling == 4
    world.ask("a", ("a3", 1))
    world.refuse("a", "a3")
    assert world.book.strikes == 1


def test_a_refusal_with_nothing_held_lets_one_job_try() -> None:
    """Others may use the whole account: one job, however heavy, is tried alone after the pause."""
    world = of(9)
    world.ask("a", ("heavy", 9))
    world.refuse("a", "heavy")
    world.now += 1

    assert world.ask("a", ("heavy", 9), ("light", 1)) == ["heavy"]


def test_without_a_limit_a_refusal_teaches_one() -> None:
    """A lane of which nobody knows the limit comes down to what is held."""
    world = World()
    world.ask("a", ("a1", 5), ("a2", 5))

    assert world.refuse("a", "a2").ceiling == 5
    world.now += 1
    world.ask("a", ("a3", 5))
    assert world.book.strikes == 1


def test_a_new_book_listens_first() -> None:
    """A store that knows nothing may have forgotten everything, so it grants nothing for *settle* seconds."""
    world = World(Book(terms=Terms(settle=3.0)))

    assert world.ask("a", ("a1", 1)) == []
    assert world.tell("a").pause == 3.0
    world.now += 3
    assert world.ask("a") == ["a1"]


def test_a_book_that_went_back_in_time_begins_a_new_generation() -> None:
    """Who has seen a later turn than the book's own proves that it lost something; all tell everything again."""
    world = World(Book(terms=Terms(settle=3.0)))
    seen = world.tell("a")
    world.now += 3

    ruling = world.tell("a", generation=seen.generation, turn=seen.turn + 5)

    assert ruling.generation != seen.generation
    assert ruling.pause == 3.0
    assert world.tell("a", generation=ruling.generation, turn=ruling.turn).generation == ruling.generation


def test_a_clock_that_is_set_back_keeps_all_distances() -> None:
    """The clock of a machine begins anew when it is started again: what runs holds its slots as long as before."""
    world = of(4, settle=3.0, patience=30.0, orphan=100.0)
    world.now += 3
    world.ask("a", ("a1", 1), ("a2", 1), ("a3", 1))
    world.hold("a", "a1")
    world.open("a", "a2", 10.0)
    world.now += 31
    world.tell("b")

    world.now = 5.0
    ruling = world.tell("b")

    assert ruling.pause == 3.0
    assert world.book.leases["a2"].window == 5.0 - 21.0
    assert world.book.leases["a1"].until == 5.0 + 99.0
    assert world.book.owners == {"b": 5.0}


def test_a_book_survives_being_written_down() -> None:
    """Text and back is the same book."""
    world = of(2, settle=3.0)
    world.now += 3
    world.ask("a", ("a1", 2), ("a2", 2))
    world.open("a", "a1", 10.0)
    world.refuse("a", "a1")
    world.tell("b", asks=(Claim("a2", "b.a2", 2),))

    text = json.dumps(world.book.to_json())

    assert Book.from_json(json.loads(text), world.book.terms) == world.book


_JOBS = st.integers(0, 30).map(lambda number: f"j{number}")
_MOVES = st.one_of(
    st.tuples(st.just("ask"), st.sampled_from("abc"), _JOBS, st.integers(1, 9)),
    st.tuples(st.just("end"), st.sampled_from("abc"), _JOBS, st.just(0)),
    st.tuples(st.just("open"), st.sampled_from("abc"), _JOBS, st.just(0)),
    st.tuples(st.just("pass"), st.just("a"), st.just(""), st.integers(1, 40)),
)


@given(st.lists(_MOVES, max_size=80))
def test_leases_never_pass_the_limit(moves: list[tuple[str, str, str, int]]) -> None:
    """Whatever processes ask, end, send or die, leases stay within the limit and the sum is always right."""
    world = of(9)
    for kind, owner, job, number in moves:
        if kind == "ask":
            world.ask(owner, (job, number))
        elif kind == "end":
            world.end(owner, job)
        elif kind == "open":
            world.open(owner, job)
        else:
            world.now += number

        assert world.book.held == sum(lease.slots for lease in world.book.leases.values()) <= 9


@given(st.lists(_MOVES, max_size=80))
def test_at_most_one_token_may_send_a_job(moves: list[tuple[str, str, str, int]]) -> None:
    """No window is opened for a job while another token's may be open."""
    world = of(9)
    windows: dict[str, tuple[str, float]] = {}
    for kind, owner, job, number in moves:
        if kind == "ask":
            world.ask(owner, (job, number))
        elif kind == "pass":
            world.now += number
        elif kind == "open" and world.open(owner, job, 50.0) == OPEN:
            sender, until = windows.get(job, (owner, 0.0))
            assert sender == owner or until <= world.now
            windows[job] = owner, world.now + 50.0


@pytest.mark.parametrize("heavy", [2, 5, 9])
def test_heavy_jobs_wait_in_proportion(heavy: int) -> None:
    """A queue of mixed weights over three processes serves the heavy ones within a bounded number of turns."""
    world = of(9)
    for number in range(60):
        owner = "abc"[number % 3]
        world.ask(owner, (f"j{number}", heavy if number % 2 else 1))
    order: list[str] = list(world.book.leases)
    while len(order) < 60:
        oldest = next(iter(world.book.leases))
        world.end(world.book.leases[oldest].owner, oldest)
        for owner in "abc":
            order += [grant.job for grant in world.tell(owner).granted]
        order += [job for job in world.book.leases if job not in order]

    place = {job: turn for turn, job in enumerate(order)}
    late = max(place[f"j{number}"] - number for number in range(60))
    assert late <= 12 * heavy
