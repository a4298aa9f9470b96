"""J00 to J09: a process killed at each step of a job's life, and the same command again."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from crash_kit import Work, Zygote, assert_kept
from fault_server import Remote
from fault_server import catalogue as go

# Where the process dies, and the time it passes there at which it does: early, in the middle, late.
POINTS = {
    "J00 after row load": ("after-row", 3),
    "J01 after slot grant": ("after-slots", 3),
    "J02 before intent commit": ("before-commit", 2),
    "J02 after intent commit": ("after-intent", 3),
    "J02 after intent commit, in the writer": ("submitting", 3),
    "J03 after POST sent": ("after-post", 3),
    "J04 after answer": ("before-submitted", 3),
    "J05 after SUBMITTED commit": ("submitted", 3),
    "J06 mid-poll": ("mid-poll", 2),
    "J07 success noted": ("after-succeeded", 3),
    "J07 after SUCCEEDED commit": ("succeeded", 3),
    "J08 after fsync": ("after-fsync", 4),
    "J09 after link": ("after-link", 4),
    "J09 after rename": ("after-rename", 4),
    "J09 after DONE commit": ("done", 3),
    "J09 before the line": ("after-done", 2),
}


@pytest.fixture(params=[True, False], ids=["unique", "not unique"])
def service_in_two_modes(service: Remote, request: pytest.FixtureRequest) -> Remote:
    """A service that refuses doubled external ids, and one that would bill them."""
    service.change(unique=request.param)
    return service


@pytest.mark.parametrize(("point", "nth"), POINTS.values(), ids=POINTS)
def test_a_killed_run_is_continued(
    zygote: Zygote,
    service_in_two_modes: Remote,
    work: Work,
    undisturbed: Mapping[str, str],
    point: str,
    nth: int,
) -> None:
    """Killed at any step, the same command ends every job; none is sent or paid twice, and the files are the same."""
    server = service_in_two_modes

    first = zygote.live(work.order(server, crash=point, nth=nth))
    second = zygote.live(work.order(server))

    assert first.killed
    assert second.code == 0, second.report
    assert_kept(server, work, undisturbed)


@pytest.mark.parametrize("point", ["after-post", "before-submitted"])
def test_a_create_that_never_arrived_is_sent_again(
    zygote: Zygote, service_in_two_modes: Remote, work: Work, undisturbed: Mapping[str, str], point: str
) -> None:
    """J03 when the service got the create and lost it: only that job is sent twice, and it is paid once."""
    server = service_in_two_modes
    server.break_with(go.cut("rst", "read", match="job 2."))

    first = zygote.live(work.order(server, crash=point, nth=3))
    second = zygote.live(work.order(server))

    assert first.killed
    assert second.code == 0, second.report
    assert_kept(server, work, undisturbed, posts={"job 2.": 2})


def test_a_create_that_is_found_late_is_not_sent_again(
    zygote: Zygote, service_in_two_modes: Remote, work: Work, undisturbed: Mapping[str, str]
) -> None:
    """J03 when the service shows the task only at the third look (N09): it is taken up, nothing is sent again."""
    server = service_in_two_modes
    server.change(lag_looks=2)

    first = zygote.live(work.order(server, crash="after-post", nth=3))
    second = zygote.live(work.order(server))

    assert first.killed
    assert second.code == 0, second.report
    assert_kept(server, work, undisturbed)


@pytest.mark.parametrize("point", ["after-intent", "after-post", "succeeded", "after-fsync", "after-done"])
def test_j10_a_run_killed_five_times_at_the_same_place(
    zygote: Zygote, service_in_two_modes: Remote, work: Work, undisturbed: Mapping[str, str], point: str
) -> None:
    """J10: killed again and again at the first such step of each resume, the run ends as if nothing had happened."""
    server = service_in_two_modes

    deaths = [zygote.live(work.order(server, crash=point)) for _ in range(5)]
    last = zygote.live(work.order(server))

    assert deaths[0].killed
    assert last.code == 0, last.report
    assert_kept(server, work, undisturbed)


def test_tasks_of_a_killed_run_keep_their_slots(
    zygote: Zygote, service: Remote, work: Work, undisturbed: Mapping[str, str]
) -> None:
    """R1: a run that is continued sends nothing before the tasks of the killed one have left room for it."""
    service.change(life={"seconds": 0.6})

    first = zygote.live(work.order(service, crash="submitted", nth=3))
    second = zygote.live(work.order(service))

    assert first.killed
    assert second.code == 0, second.report
    assert_kept(service, work, undisturbed)
    assert service.books()["peak"] <= 4
