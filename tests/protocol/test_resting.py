"""Jobs at rest: nothing is lost, and the collector has nothing to walk over."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from attrs import frozen

from kling_async.protocol.jobs import MultiImage
from kling_async.protocol.resting import rest, wake
from kling_async.protocol.sources import ImageSource

_URL = "https://example.com/woman.png"


class Picture:
    """What looks like a PIL image."""

    size = (300, 300)
    mode = "RGB"

    def save(self) -> None:
        """Be there."""

    def tobytes(self) -> bytes:
        """Return the pixels."""
        return b"pixels"


@frozen(kw_only=True)
class Titled(MultiImage):
    """A job of somebody's own kind."""

    title: str = ""


JOBS = {
    "url": MultiImage(subject_images=[_URL]),
    "all": MultiImage(
        subject_images=[_URL, "dress.png", b"bytes", Picture()],
        scene_image="s3://bucket/scene.png",
        style_image=_URL,
        prompt="Wearing the dress",
        negative_prompt="hats",
        model_name="kling-v3",
        n=4,
        aspect_ratio="1:1",
        watermark=True,
        callback_url="https://example.com/hook",
        external_task_id="mine-1",
        key="row 1",
        extra={"seed": {"value": 7}},
    ),
    "manifest": MultiImage(
        subject_images=[ImageSource.of("in/dress.png").behind(Path("/runs/one"))], scene_image="a.png"
    ),
    "own kind": Titled(subject_images=[_URL], title="mine"),
}


@pytest.mark.parametrize("name", JOBS)
def test_nothing_is_lost(name: str) -> None:
    """A job that was at rest is equal to what it was, and is known by the same hash."""
    job = JOBS[name]

    woken = wake(rest(job))

    assert woken == job
    assert type(woken) is type(job)
    assert repr(woken) == repr(job)
    assert woken.fingerprint() == job.fingerprint()
    assert [source.base for _, source in woken.pictures()] == [source.base for _, source in job.pictures()]


def test_what_is_added_to_one_job_is_not_added_to_another() -> None:
    """Jobs that had no further fields do not share the mapping of those."""
    one, other = (wake(rest(JOBS["url"])) for _ in range(2))

    assert one.extra is not other.extra


@pytest.mark.parametrize("name", ["url", "manifest"])
def test_the_collector_does_not_walk_over_it(name: str) -> None:
    """Of a job with addresses and paths only tuples are left, which collections leave out from then on."""
    resting = rest(JOBS[name])

    for _ in range(3):  # a tuple goes after those in it
        gc.collect()

    assert not gc.is_tracked(resting)
