"""What a run looks like: the board's figures, the live view at several sizes, the plain and JSON lines."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve
from rich.cells import cell_len
from rich.console import Console, ConsoleDimensions

from kling_async.batch.outcomes import Failed, Skipped
from kling_async.batch.statistics import Statistics
from kling_async.cli.board import Board, Failure, JobLine, Snapshot
from kling_async.cli.live import Camera, LiveView, as_svg, as_text, render
from kling_async.cli.money import dollars, duration, plural
from kling_async.cli.views import JsonView, NoView, PlainView, choose_view, plain_line
from kling_async.cli.voice import Voice
from kling_async.errors import BudgetSpent, ContentRefusal, InArrears, TransportError
from kling_async.protocol.codes import api_error
from kling_async.protocol.events import (
    Dropped,
    Finished,
    LaneStopped,
    Polled,
    Recovered,
    Refused,
    Requested,
    Resumed,
    Retried,
    Saved,
    Submitted,
    Waiting,
)
from kling_async.protocol.jobs import MultiImage

WHO = {"account": "default", "external_task_id": "x"}


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def a_shot(jobs: int = 3, failures: int = 1) -> Snapshot:
    lines = tuple(
        JobLine(key=f"demo-{number:04d}", status="processing", slots=2, age=2.1, note="", task_id=str(number))
        for number in range(jobs)
    )
    return Snapshot(
        seconds=7.0,
        total=24,
        done=17,
        succeeded=16,
        failed=failures,
        running=4,
        saving=1,
        waiting=3,
        slots_held=8,
        slots=9,
        utilisation=0.93,
        submit_rate=4.1,
        requests=57,
        polls=11,
        refusals=2,
        recovered=1,
        images=30,
        units=512.0,
        budget=1000,
        eta=4.2,
        jobs=lines,
        failures=tuple(
            Failure(key=f"bad-{number}", message=f"long text {'x' * 300}", short="1301: change the prompt")
            for number in range(failures)
        ),
    )


def drawn(shot: Snapshot, width: int, height: int, *, plain: bool = False) -> list[str]:
    console = Console(file=io.StringIO(), record=True, width=width, height=height)
    console.print(render(shot, width=width, height=height, emulated=True, plain=plain))
    return console.export_text().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50), (40, 10), (20, 5), (80, 3)])
@pytest.mark.parametrize("jobs", [0, 3, 500])
@pytest.mark.parametrize("failures", [0, 1, 8])
def test_the_live_view_never_outgrows_its_screen(width: int, height: int, jobs: int, failures: int) -> None:
    """No line wraps and no line is below the screen's last but one, whatever there is to show."""
    lines = drawn(a_shot(jobs, failures), width, height)

    assert len(lines) <= max(3, height - 1)
    assert max(map(len, lines)) <= width


def test_a_screen_of_eighty_columns_shows_what_matters() -> None:
    """Counts, slots, money, time left, the jobs under way, the last failure with its remedy."""
    text = "\n".join(drawn(a_shot(), 80, 24))

    for word in (
        "17/24", "ok 16", "failed 1", "running 4", "8/9", "93% used", "4.1/s", "2 x 1303", "recovered 1",
        "512/1,000 units", "$1.79 emulated", "pictures 30", "about 4.2 s left", "demo-0002", "1301: change the prompt",
    ):  # fmt: skip
        assert word in text, word


def test_what_is_told_is_told_whole_or_not_at_all() -> None:
    """On a narrow screen figures are left out from the end of a line, and none is cut in two."""
    big = evolve(
        a_shot(),
        slots=1000,
        slots_held=1000,
        refusals=12_345,
        recovered=678,
        units=1_512_000.0,
        budget=9_000_000,
    )

    lines = [line.rstrip() for line in drawn(big, 70, 24)]

    assert lines[1].endswith(" 1,000/1000   93% used")
    assert lines[2].endswith("1,512,000/9,000,000 units ≈ $5,292.00 emulated")
    assert lines[3].endswith("about 4.2 s left   submit 4.1/s   polls 11")


def test_why_nothing_is_sent_is_told_in_full() -> None:
    """A budget that is spent, an account that cannot pay and an outage stand there with what to do, over several lines."""
    spent = "nothing more is sent: the budget is 400 units and the next job would commit 416; raise it to continue"
    shot = evolve(a_shot(), stopped=(spent,), trouble="nothing was accepted for 12 s: 5001: unavailable")

    text = " ".join(" ".join(drawn(shot, 80, 24)).split())

    assert spent in text
    assert "nothing was accepted for 12 s: 5001" in text


def test_keys_keep_their_ends() -> None:
    """Long keys differ in their end; wide characters take two columns and break no line."""
    keys = [f"カタログ-赤いドレス👗-{'x' * 80}-{number:04d}" for number in range(3)]
    lines = [evolve(a_shot().jobs[0], key=key) for key in keys]

    screen = drawn(evolve(a_shot(), jobs=tuple(lines)), 80, 24)

    assert [line.split("  ")[1].strip()[-5:] for line in screen if "カタ" in line] == [
        "-0000",
        "-0001",
        "-0002",
    ]
    assert all(cell_len(line) < 80 for line in screen)


def test_before_the_first_task_ended_nobody_knows_how_long_it_takes() -> None:
    """The view says so."""
    assert "not known before" in drawn(evolve(a_shot(), eta=None, usual=None), 80, 24)[3]


def test_jobs_that_only_wait_are_counted_and_not_listed() -> None:
    """What the run waits for must not drown in what waits for a slot; a wait with a reason is shown."""
    quiet = JobLine(key="quiet", status="waiting", slots=1, age=1.0, note="", task_id="")
    told = evolve(quiet, key="told", note="1303: no free slot")

    shot = evolve(a_shot(), jobs=(*a_shot().jobs, told, *[quiet] * 40), waiting=41)
    text = "\n".join(drawn(shot, 80, 24))

    assert "told" in text
    assert "quiet" not in text
    assert "40 wait: 1303: no free slot" in text


def test_without_colour_bars_are_told_by_their_shape() -> None:
    """Full and empty differ as characters."""
    line = drawn(a_shot(), 80, 24, plain=True)[0]

    assert "#" in line
    assert "." in line


def test_control_characters_in_keys_and_messages_do_nothing() -> None:
    """Markup of rich stays text."""
    shot = evolve(a_shot(0), failures=(Failure(key="[red]k[/red]", message="m", short="[link=x]s[/link]"),))

    assert "[red]k[/red]  [link=x]s[/link]" in "\n".join(drawn(shot, 80, 24))


def test_the_live_view_as_a_picture() -> None:
    """For documents: an SVG that says it is emulated."""
    svg = as_svg(a_shot(), title="kling-async demo")

    assert svg.startswith("<svg")
    assert "emulated" in svg


def test_the_live_view_as_text() -> None:
    """For documents: as it is in eighty columns without colour."""
    lines = as_text(a_shot()).splitlines()

    assert lines[1].startswith(" slots  ########. 8/9")
    assert max(map(len, lines)) < 80
    assert "\x1b" not in "".join(lines)


class Terminal(io.StringIO):
    """A stream that passes for a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_window_that_became_narrower_is_drawn_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal wraps the lines that stand; the view goes up over all of their pieces, so that none stays behind."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    view = LiveView(Voice(), emulated=False)
    view._console.size = ConsoleDimensions(80, 24)
    view.start()
    view.show(a_shot())
    shown = list(view._lengths)
    before = terminal.getvalue().count("\x1b[1A")
    view._console.size = ConsoleDimensions(40, 24)
    view.show(a_shot())
    ups = terminal.getvalue().count("\x1b[1A") - before
    view.stop()

    assert ups == sum(max(1, -(-length // 40)) for length in shown) - 1
    assert ups > len(shown) - 1


def test_the_camera_takes_one_picture_in_the_middle(tmp_path: Path) -> None:
    """Not before half of the jobs are done, and not again."""
    camera = Camera(NoView(), tmp_path / "view.svg", "demo")
    camera.show(evolve(a_shot(), done=11))
    before = (tmp_path / "view.svg").exists()
    camera.show(evolve(a_shot(), done=12))
    taken = (tmp_path / "view.svg").read_text(encoding="utf-8")
    camera.show(evolve(a_shot(), done=24))

    assert not before
    assert "12/24" in taken
    assert (tmp_path / "view.svg").read_text(encoding="utf-8") == taken


def test_the_board_follows_a_job_from_waiting_to_its_end() -> None:
    """Each event changes what is shown of it; when it ends it is gone."""
    clock = Hands()
    notes: list[tuple[str, str]] = []
    board = Board(clock, 2, 4, lambda key, text: notes.append((key, text)))
    seen: list[tuple[str, ...]] = []

    def look() -> None:
        seen.append(tuple(f"{job.key} {job.status}" for job in board.snapshot(Statistics(seconds=1.0)).jobs))

    for event in (
        Waiting(key="a", slots=2, **WHO),
        Refused(key="a", code=1303, pause=None, **WHO),
        Retried(key="a", error=TransportError("no way"), attempt=1, pause=0.5, **WHO),
        Recovered(key="a", task_id="7", **WHO),
        Submitted(key="a", task_id="7", slots=2, **WHO),
        Finished(key="a", task_id="7", status="succeed", reason="", seconds=3.0, units=None, lag=None, **WHO),
        Saved(key="a", task_id="7", path="p", size=1, seconds=0.1, **WHO),
        Polled(account="default", requests=1, waiting=1, ended=1),
    ):
        board.see(event)
        look()
    board.end(Skipped(key="a", reason="x"))
    look()

    assert seen == [
        ("a waiting",), ("a waiting",), ("a waiting",), ("a recovered",), ("a recovered",), ("a saving",), ("a saving",),
        ("a saving",), (),
    ]  # fmt: skip
    assert [text[:4] for _, text in notes] == ["1303", "no w", "repl"]
    shot = board.snapshot(Statistics(seconds=1.0))
    assert (shot.recovered, shot.images, shot.polls) == (1, 1, 1)


def test_trouble_without_a_code_is_told_by_its_status() -> None:
    """A gateway's 502 is no "0", and passes; a code is told by itself."""
    notes: list[str] = []
    board = Board(Hands(), 2, 4, lambda _, text: notes.append(text))

    for error in (api_error(0, 502), api_error(5001, 503)):
        board.see(Retried(key="a", error=error, attempt=1, pause=0.5, **WHO))

    assert notes[0].startswith("HTTP 502: it came without a code, as from a gateway, and usually passes: ")
    assert notes[1].startswith("5001: try again later")


def a_run(
    board: Board, clock: Hands, *, rows: int, slots: int, skipped: int = 0
) -> Iterator[tuple[float, float | None]]:
    """Run rows of ten seconds in waves; yields the time and the seconds that the board says are left, at each end."""
    job, ended = MultiImage(subject_images=["a.png"]), 0
    while ended < rows:
        wave = range(ended, min(rows, ended + slots))
        for number in wave:
            board.see(Submitted(key=f"{number}", task_id="t", slots=1, **WHO))
        clock.now += 10.0
        for number in wave:
            names = {"key": f"{number}", "task_id": "t", "status": "succeed", "reason": "", **WHO}
            board.see(Finished(**names, seconds=10.0, units=None, lag=None))
            board.end(Failed(key=f"{number}", job=job, error=TransportError("any end will do")))
            ended += 1
            in_flight = len(wave) - (number - wave.start + 1)
            stats = Statistics(
                seconds=clock.now, slots=slots, failed=ended, in_flight=in_flight, skipped=skipped
            )
            yield clock.now, board.snapshot(stats).eta


def test_the_time_left_is_right_from_a_quarter_of_the_run_on() -> None:
    """Within a fifth, in a run that passes over what an earlier one has done."""
    clock = Hands()
    began = clock.now
    board = Board(clock, 1040, 40)

    shots = list(a_run(board, clock, rows=40, slots=5, skipped=1000))

    end = shots[-1][0]
    late = [(now, eta) for now, eta in shots if now - began >= (end - began) / 4 and now < end]
    assert late
    assert all(eta == pytest.approx(end - now, rel=0.2) for now, eta in late)
    assert shots[-1][1] is None


def test_a_task_that_takes_too_long_says_so() -> None:
    """Once there is a usual time, what has taken more than twice as long comes first, with when it is given up."""
    clock = Hands()
    board = Board(clock, 20, 20)
    board.see(Submitted(key="slow", task_id="s", slots=1, **WHO))
    list(a_run(board, clock, rows=10, slots=5))
    board.see(Submitted(key="quick", task_id="q", slots=1, **WHO))
    clock.now += 1

    shot = board.snapshot(Statistics(seconds=21.0, in_flight=2))

    assert [job.key for job in shot.jobs] == ["slow", "quick"]
    assert shot.jobs[0].note == "late: usually 10 s, given up after 30 min"
    assert shot.jobs[1].note == ""
    assert shot.usual == pytest.approx(10.0)


def test_a_pause_counts_down() -> None:
    """A job that waits to be tried again says for how long, and nothing about it when the time has come."""
    clock = Hands()
    board = Board(clock)
    board.see(Waiting(key="a", slots=1, **WHO))
    board.see(Refused(key="a", code=1303, pause=4.0, **WHO))
    notes = []
    for _ in range(3):
        notes.append(board.snapshot(Statistics(seconds=1.0)).jobs[0].note)
        clock.now += 3

    reason = "1303: no free slot, the refusal is free"
    assert notes == [f"{reason}, next try in 4.0 s", f"{reason}, next try in 1.0 s", reason]


def test_an_outage_is_told_until_something_is_accepted() -> None:
    """What creates end with, for how long, and what comes of it; a refusal of the job itself is no outage."""
    clock = Hands()
    board = Board(clock)
    seen = []
    for event in (
        Requested(account="a", route="create", seconds=0.1, status=400, code=1301),
        Requested(account="a", route="create", seconds=0.1, status=503, code=5001),
        Requested(account="a", route="list", seconds=0.1, status=200),
        Requested(account="a", route="create", seconds=0.1, error=TransportError("cannot connect to host:1")),
        Requested(account="a", route="create", seconds=0.1, status=502),
        Requested(account="a", route="create", seconds=0.1, status=200),
    ):
        board.see(event)
        clock.now += 2
        seen.append(board.snapshot(Statistics(seconds=1.0, queued=1)).trouble)

    assert seen[0] == seen[-1] == ""
    assert seen[1].startswith(
        "nothing was accepted for 2.0 s: 5001: Server temporarily unavailable; after 10 min"
    )
    assert seen[2].startswith("nothing was accepted for 4.0 s: 5001")
    assert seen[3].startswith("nothing was accepted for 6.0 s: cannot connect to host:1;")
    assert seen[4].startswith("nothing was accepted for 8.0 s: HTTP 502;")


def test_a_lost_create_is_no_outage_once_nothing_is_left_to_send() -> None:
    """Where no create follows, or the task was found, nobody is told that the service accepts nothing."""
    board = Board(Hands())
    lost = Requested(account="a", route="create", seconds=0.1, error=TransportError("the connection broke"))
    board.see(lost)
    idle = board.snapshot(Statistics(seconds=1.0)).trouble
    busy = board.snapshot(Statistics(seconds=1.0, queued=1)).trouble
    board.see(Submitted(key="k", task_id="t", slots=1, **WHO))
    found = board.snapshot(Statistics(seconds=1.0, queued=1)).trouble

    assert idle == found == ""
    assert "the connection broke" in busy


def test_why_nothing_more_is_sent_is_known() -> None:
    """By one account, by all, or because a person asked for it; an account that takes jobs again is not named."""
    board = Board(Hands())
    board.see(LaneStopped(account="shop", model="m", error=InArrears("Arrears", 1101, 429, "r", "top up")))
    one = board.snapshot(Statistics(seconds=1.0)).stopped
    all_of_them = board.snapshot(Statistics(seconds=1.0, stopped_by=BudgetSpent("raise it", 4, 4))).stopped
    board.see(Submitted(key="k", task_id="t", slots=1, **WHO | {"account": "shop"}))
    again = board.snapshot(Statistics(seconds=1.0)).stopped
    board.asked_to_end = True
    asked = board.snapshot(Statistics(seconds=1.0)).stopped

    assert one == ("shop: nothing more is sent: 1101: top up",)
    assert all_of_them == ("no more rows are taken: raise it",)
    assert again == ()
    assert asked[0].startswith("as you asked")


def test_what_an_earlier_run_has_sent_is_shown_and_what_is_dropped_is_not() -> None:
    """Every task that is waited for has a line, and no other job."""
    board = Board(Hands())
    board.see(Resumed(key="old", task_id="7", **WHO))
    board.see(Waiting(key="new", slots=1, **WHO))
    board.see(Dropped(key="new", error=None, **WHO))

    jobs = board.snapshot(Statistics(seconds=1.0)).jobs

    assert [(job.key, job.status, job.note) for job in jobs] == [
        ("old", "processing", "sent by an earlier run")
    ]


def test_failures_are_kept_short_and_few() -> None:
    """The last eight, by code and remedy."""
    board = Board(Hands())
    for number in range(20):
        error = ContentRefusal("Refused", 1301, 400, "rid", "change the prompt")
        board.end(Failed(key=f"k{number}", job=None, error=error))

    failures = board.snapshot(Statistics(seconds=1.0)).failures

    assert [failure.key for failure in failures] == [f"k{number}" for number in range(12, 20)]
    assert failures[0].short == "1301: change the prompt"
    assert "rid" in failures[0].message


def test_plain_lines_name_what_a_run_waits_for_in_the_end() -> None:
    """A run never hangs at 99 % without saying on what."""
    last = evolve(a_shot(1), done=23, running=1, saving=0, waiting=0)

    assert "waiting for demo-0000 (2.1 s)" in plain_line(last, emulated=False)
    assert "waiting for" not in plain_line(a_shot(), emulated=False)
    saving = evolve(last, running=0, saving=1, jobs=(evolve(last.jobs[0], status="saving"),))
    assert "waiting for demo-0000 (saving 2.1 s)" in plain_line(saving, emulated=False)


def test_plain_lines_become_rarer() -> None:
    """Every few seconds at first, every minute in the end: ten hours in a log of CI are some hundred lines."""
    view, pauses = PlainView(Voice(quiet=True), emulated=False), []
    for seconds in (1.0, 100.0, 7200.0):
        view.show(evolve(a_shot(), seconds=seconds))
        pauses.append(view.every)

    assert pauses == [5.0, 10.0, 60.0]


def test_plain_lines_tell_each_failure_once(capsys: pytest.CaptureFixture[str]) -> None:
    """And say how many did not fit."""
    view = PlainView(Voice(), emulated=False)
    view.show(a_shot(failures=1))
    view.show(a_shot(failures=1))
    view.show(evolve(a_shot(failures=8), failed=20))
    view.note("k", "1303: no free slot")
    view.note("k", "1303: no free slot")

    said = capsys.readouterr().err
    assert said.count("failed bad-0:") == 2
    assert "failed: 11 more" in said
    assert said.count("k: 1303") == 1


def test_json_lines_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line, told apart by `event`."""
    view = JsonView()
    view.show(a_shot())
    view.note("k", "t")

    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["failed", "progress", "note"]
    assert lines[1]["slots_held"] == 8


@pytest.mark.parametrize(
    ("progress", "kind"),
    [("auto", PlainView), ("live", PlainView), ("plain", PlainView), ("json", JsonView), ("none", NoView)],
)
def test_without_a_terminal_nothing_is_live(progress: str, kind: type) -> None:
    """Not even when it is asked for: a moving screen in a log helps nobody."""
    assert isinstance(choose_view(Voice(progress=progress), emulated=False), kind)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0 s"),
        (4, "4.0 s"),
        (12.3, "12 s"),
        (130, "2 min 10 s"),
        (1800, "30 min"),
        (7200, "2 h"),
        (11_100, "3 h 5 min"),
    ],
)
def test_durations_as_people_say_them(seconds: float, text: str) -> None:
    """In the two largest units."""
    assert duration(seconds) == text


def test_money_and_plurals() -> None:
    """A unit is 0.35 cents."""
    assert dollars(768) == "$2.69"
    assert (plural(1, "job"), plural(1000, "job")) == ("1 job", "1,000 jobs")
