from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kling_async.errors import InvalidJob
from kling_async.protocol.pictures import Picture
from kling_async.protocol.sources import ImageSource
from kling_async.transport.larder import Larder
from kling_async.transport.pictures import inspect
from kling_async.transport.turns import Step, Turns

pytestmark = pytest.mark.anyio
Make = Callable[..., bytes]


@pytest.fixture
async def pictures(tmp_path: Path, make_picture: Make) -> list[Picture]:
    """Four pictures of 1.2 million bytes each, in files."""
    found = []
    for number in range(4):
        path = tmp_path / f"{number}.png"
        path.write_bytes(make_picture().ljust(1_200_000, b"%d" % number))
        found.append(await inspect(ImageSource.of(path), "style_image"))
    return found


def content(picture: Picture) -> bytes:
    assert picture.source.path is not None
    return base64.b64encode(picture.source.path.read_bytes())


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


async def send(larder: Larder, picture: Picture) -> bytes:
    step, got = Step(), b""
    async for piece in larder.pieces(picture, step):
        got += piece
        step.heard(0)
        await asyncio.sleep(0)
    return got


async def test_a_shared_picture_is_encoded_once(pictures: list[Picture]) -> None:
    """However many send a picture, at once and later, it is read and encoded once and arrives whole at each."""
    larder, picture = Larder(), pictures[0]
    for _ in range(11):
        larder.expect(picture)

    got = await asyncio.gather(*(send(larder, picture) for _ in range(10)))
    got.append(await send(larder, picture))

    assert set(got) == {content(picture)}
    assert larder.encoded == picture.size


async def test_a_slow_one_holds_up_nobody(pictures: list[Picture]) -> None:
    """Whoever needs the next bytes makes them, so one that has stopped in the middle does not matter."""
    larder, picture = Larder(), pictures[0]
    larder.expect(picture)
    larder.expect(picture)
    slow = larder.pieces(picture, Step())
    first = bytes(await anext(slow))

    whole = await send(larder, picture)
    rest = b"".join([bytes(piece) async for piece in slow])

    assert whole == first + rest == content(picture)
    assert larder.encoded == picture.size


async def test_what_one_job_uses_is_not_kept(pictures: list[Picture]) -> None:
    """A large picture of a single job is sent straight from its file; memory stays free."""
    larder = Larder()
    larder.expect(pictures[0])

    assert await send(larder, pictures[0]) == content(pictures[0])
    assert larder.held == 0


async def test_a_small_picture_is_kept_from_the_start(tmp_path: Path, make_picture: Make) -> None:
    """A small one is kept when it is first sent, and moves to the others when it is used again."""
    path, larder = tmp_path / "a.png", Larder()
    path.write_bytes(make_picture())
    picture = await inspect(ImageSource.of(path), "style_image")

    larder.expect(picture)
    await send(larder, picture)
    larder.expect(picture)
    await send(larder, picture)

    assert larder.encoded == picture.size
    assert larder._once.taken == 0
    assert larder._often.taken == len(content(picture))


async def test_the_budget_is_kept(pictures: list[Picture]) -> None:
    """The one unused for longest goes; what is being sent stays, and what finds no room is sent from its file."""
    larder = Larder(budget=4_300_000)  # room for two of them
    for picture in pictures:
        larder.expect(picture)
        larder.expect(picture)

    for picture in (pictures[0], pictures[1], pictures[0], pictures[2]):
        assert await send(larder, picture) == content(picture)
    held = {key[0].name for key in larder._often._kept}  # type: ignore[index]  # keys of files
    streams = [larder.pieces(picture, Step()) for picture in (pictures[0], pictures[2])]
    for stream in streams:
        await anext(stream)
    other = await send(larder, pictures[3])
    for stream in streams:
        await stream.aclose()

    assert held == {"0.png", "2.png"}
    assert other == content(pictures[3])
    assert larder.held <= larder.budget
    assert larder.encoded == 4 * 1_200_000


async def test_without_a_budget_nothing_is_kept(pictures: list[Picture]) -> None:
    """A budget of nothing reads each time."""
    larder = Larder(budget=0)
    larder.expect(pictures[0])
    larder.expect(pictures[0])

    await send(larder, pictures[0])
    await send(larder, pictures[0])

    assert (larder.held, larder.encoded) == (0, 2 * pictures[0].size)


async def test_a_changed_file_is_not_kept(pictures: list[Picture]) -> None:
    """A file that changes while it is encoded ends all who send it, none with the whole text, and nothing stays."""
    larder, picture = Larder(), pictures[0]
    larder.expect(picture)
    larder.expect(picture)
    stream = larder.pieces(picture, Step())
    await anext(stream)
    assert picture.source.path is not None
    os.utime(picture.source.path, ns=(1, 1))

    with pytest.raises(InvalidJob, match="stays as it is"):
        await send(larder, picture)
    with pytest.raises(InvalidJob, match="stays as it is"):
        [piece async for piece in stream]

    assert larder.held == 0


async def test_who_leaves_early_leaves_nothing(pictures: list[Picture]) -> None:
    """A picture that nobody went on with is let go, with its file."""
    larder, picture = Larder(), pictures[0]
    larder.expect(picture)
    larder.expect(picture)
    before = open_files()
    stream = larder.pieces(picture, Step())
    await anext(stream)

    await stream.aclose()

    assert larder.held == 0
    assert open_files() == before


async def test_bytes_are_known_by_themselves(make_picture: Make) -> None:
    """Two jobs with the same bytes share them; other bytes of the same length are others."""
    data, larder = make_picture(), Larder()
    given = (data, data, make_picture())
    first, second, other = [await inspect(ImageSource.of(each), "style_image") for each in given]
    for picture in (first, second, other):
        larder.expect(picture)

    got = [await send(larder, picture) for picture in (first, second, other)]

    assert got[0] == got[1] == base64.b64encode(data)
    assert larder.encoded == first.size + other.size


async def test_counts_of_uses_are_bounded(pictures: list[Picture], monkeypatch: pytest.MonkeyPatch) -> None:
    """What was expected long ago is forgotten first."""
    monkeypatch.setattr("kling_async.transport.larder._COUNTED", 2)
    larder = Larder()

    for picture in pictures:
        larder.expect(picture)

    assert len(larder._uses) == 2


async def test_steps_follow_the_peer() -> None:
    """A piece grows while the peer takes all at once, shrinks when it does not, and stays between its bounds."""
    step = Step()
    step.bound(10, 60)

    sizes = [step.now]
    for left in (0, 0, 0, 0, 5, 5, 5, 0):
        step.heard(left)
        sizes.append(step.now)
    step.bound(30, 40)

    assert sizes == [10, 20, 40, 60, 60, 30, 15, 10, 20]
    assert step.now == 30


async def test_turns_are_taken_in_order_and_in_portions() -> None:
    """In one pass of the loop no more goes out than its portion, first come first served."""
    turns, order, passes = Turns(), [], []
    turns.active = 100
    loop_pass = 0

    async def body(number: int) -> None:
        for _ in range(3):
            await turns.take(1 << 20)
            order.append(number)
            passes.append(loop_pass)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(body(number)) for number in range(10)]
        while not all(task.done() for task in tasks):
            loop_pass += 1
            await asyncio.sleep(0)

    assert order == [*range(10)] * 3
    assert max(passes.count(each) for each in passes) <= 2


async def test_a_cancelled_body_gives_its_turn_away() -> None:
    """Who was cancelled while it waited for its turn holds up nobody."""
    turns = Turns()
    turns.active = 100
    first, second = (asyncio.create_task(turns.take(8 << 20)) for _ in range(2))
    await asyncio.sleep(0)

    first.cancel()
    await second

    assert first.cancelled()
    assert not turns._waiting
