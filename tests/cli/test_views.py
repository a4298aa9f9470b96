"""What a run looks like: the board's figures, the live view at several sizes, the plain and JSON lines."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from attrs import evolve
from rich.console import Console

from kling_async.batch.outcomes import Failed, Skipped
from kling_async.batch.statistics import Statistics
from kling_async.cli.board import Board, Failure, JobLine, Snapshot
from kling_async.cli.live import Camera, as_svg, render
from kling_async.cli.money import dollars, duration, plural
from kling_async.cli.views import JsonView, NoView, PlainView, choose_view, plain_line
from kling_async.cli.voice import Voice
from kling_async.errors import ContentRefusal, TransportError
from kling_async.protocol.events import (
    Finished,
    Polled,
    Recovered,
    Refused,
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
        "17/24", "ok 16", "failed 1", "running 4", "8/9", "93% used", "4.1/s", "1303: 2", "recovered 1",
        "512/1,000 units", "$1.79 emulated", "pictures 30", "about 4.0 s left", "demo-0002", "1301: change the prompt",
    ):  # fmt: skip
        assert word in text, word


def test_jobs_that_only_wait_are_counted_and_not_listed() -> None:
    """What the run waits for must not drown in what waits for a slot; a wait with a reason is shown."""
    quiet = JobLine(key="quiet", status="waiting", slots=1, age=1.0, note="", task_id="")
    told = evolve(quiet, key="told", note="1303: no free slot")

    text = "\n".join(drawn(evolve(a_shot(), jobs=(*a_shot().jobs, told, *[quiet] * 40)), 80, 24))

    assert "told" in text
    assert "quiet" not in text
    assert "and 40 more, most of them waiting for a free slot" in text


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
    assert [text[:4] for _, text in notes] == ["1303", "repl"]
    shot = board.snapshot(Statistics(seconds=1.0))
    assert (shot.recovered, shot.images, shot.polls) == (1, 1, 1)


def test_the_time_left_is_right_from_a_quarter_of_the_run_on() -> None:
    """Within a fifth, for tasks of one length on slots that are kept full."""
    clock = Hands()
    each, slots, rows = 10.0, 5, 40
    board = Board(clock, rows, rows)
    began, job = clock.now, MultiImage(subject_images=["a.png"])
    for wave in range(rows // slots):
        for place in range(slots):
            board.see(Submitted(key=f"{wave}-{place}", task_id="t", slots=1, **WHO))
        clock.now += each
        ends = [f"{wave}-{place}" for place in range(slots)]
        for key in ends:
            board.see(
                Finished(
                    key=key,
                    task_id="t",
                    status="succeed",
                    reason="",
                    seconds=each,
                    units=None,
                    lag=None,
                    **WHO,
                )
            )
            board.end(Failed(key=key, job=job, error=TransportError("any end will do")))
        elapsed = clock.now - began
        stats = Statistics(seconds=elapsed, slots=slots, slot_utilisation=1.0, failed=(wave + 1) * slots)
        left, eta = rows / slots * each - elapsed, board.snapshot(stats).eta

        if wave == rows // slots - 1:
            assert eta is None
        elif elapsed >= rows / slots * each / 4:
            assert eta == pytest.approx(left, rel=0.2)


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
    [(-1, "0.0 s"), (4, "4.0 s"), (12.3, "12 s"), (130, "2 min 10 s"), (11_100, "3 h 5 min")],
)
def test_durations_as_people_say_them(seconds: float, text: str) -> None:
    """In the two largest units."""
    assert duration(seconds) == text


def test_money_and_plurals() -> None:
    """A unit is 0.35 cents."""
    assert dollars(768) == "$2.69"
    assert (plural(1, "job"), plural(1000, "job")) == ("1 job", "1,000 jobs")
