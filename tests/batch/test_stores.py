"""Batches whose pictures go to an object store, in memory; the S3 protocol itself is proved in tests/faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import obstore
import pytest
from socket_kit import client, job

from kling_async import Failed, Skipped, Succeeded, errors
from kling_async.emulator import Emulator, Fault
from kling_async.transport.stores import open_place

pytestmark = pytest.mark.anyio

JOBS = [job(key="one", n=2), job(key="Zug 4/b", watermark=True)]


@pytest.fixture
def place(request: pytest.FixtureRequest) -> str:
    """A place of the test's own."""
    return f"memory://{request.node.name}/runs/july"


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Where the journal lies, and the results beside it."""
    return tmp_path / "run" / "journal.db"


def objects(place: str) -> dict[str, bytes]:
    """Return what is at *place*, by the path below it."""
    opened = open_place(place)
    found = [str(each["path"]) for batch in obstore.list(opened.store, opened.path) for each in batch]
    return {
        path.removeprefix(f"{opened.path}/"): bytes(obstore.get(opened.store, path).bytes()) for path in found
    }


def put(place: str, name: str, content: bytes) -> None:
    opened = open_place(place)
    obstore.put(opened.store, f"{opened.path}/{name}", content)


async def run(emulator: Emulator, place: str, journal: Path, **options: Any) -> list[Any]:
    async with client(emulator) as kling:
        batch = kling.batch(options.pop("jobs", JOBS), out=place, journal=journal, **options)
        return [outcome async for outcome in batch]


async def test_pictures_go_to_the_store_and_lines_stay_here(place: str, journal: Path) -> None:
    """Outcomes and lines name pictures by URL; journal and lines lie together on this machine."""
    async with Emulator(speed=1000, paint="stamp") as emulator:
        outcomes = {outcome.key: outcome for outcome in await run(emulator, place, journal)}
        again = await run(emulator, place, journal)

    found = objects(place)
    lines = [json.loads(line) for line in (journal.parent / "results.jsonl").read_text("utf-8").splitlines()]
    assert outcomes["one"].files == (f"{place}/images/one_0.png", f"{place}/images/one_1.png")
    assert len(outcomes["Zug 4/b"].watermarked) == 1
    assert len(found) == 5
    assert {f"{place}/{name}" for name in found if name != "run.json"} == {
        file for line in lines for file in line["sha256"]
    }
    assert all(content.startswith(b"\x89PNG") for name, content in found.items() if name != "run.json")
    assert {type(outcome) for outcome in again} == {Skipped}
    assert not (journal.parent / "images").exists()


async def test_an_object_is_made_once(place: str, journal: Path) -> None:
    """An object that has the name already stays as it is; one with the same content counts as saved."""
    dead = Fault(action="expired-link", times=None)
    async with Emulator(speed=1000, paint="stamp", faults=[dead]) as emulator:
        await run(emulator, place, journal)
        emulator.faults = ()
        put(place, "images/one_0.png", b"somebody else's")
        outcomes = {outcome.key: outcome for outcome in await run(emulator, place, journal)}
        blocked = objects(place)["images/one_0.png"]
        opened = open_place(place)
        obstore.delete(opened.store, f"{opened.path}/images/one_0.png")
        last = {outcome.key: outcome for outcome in await run(emulator, place, journal)}

    assert isinstance(outcomes["one"], Failed)
    assert f"{place}/images/one_0.png" in str(outcomes["one"].error)
    assert isinstance(outcomes["Zug 4/b"], Succeeded)
    assert blocked == b"somebody else's"
    assert isinstance(last["one"], Succeeded), "its second picture was there already"
    assert len(emulator.tasks) == 2


async def test_a_lost_machine_costs_nothing_twice(place: str, tmp_path: Path) -> None:
    """With a new journal on another machine the run is known by its place, and its tasks are found again."""
    async with Emulator(speed=1000, paint="stamp", unique_external_ids=False) as emulator:
        await run(emulator, place, tmp_path / "here" / "journal.db")
        outcomes = await run(emulator, place, tmp_path / "there" / "journal.db")

    assert {type(outcome) for outcome in outcomes} == {Succeeded}
    assert len(emulator.tasks) == 2


async def test_places_are_not_shared(place: str, tmp_path: Path) -> None:
    """Pictures of nobody's run, and a journal of another run than the place's, are refused before anything is sent."""
    put(f"{place}/strange", "images/mine.png", b"mine")
    async with Emulator(speed=1000, paint="stamp") as emulator:
        with pytest.raises(errors.ConfigError, match="no pictures"):
            await run(emulator, f"{place}/strange", tmp_path / "a" / "journal.db")
        await run(emulator, f"{place}/one", tmp_path / "b" / "journal.db")
        await run(emulator, f"{place}/two", tmp_path / "c" / "journal.db")
        with pytest.raises(errors.ConfigError, match="those of run"):
            await run(emulator, f"{place}/two", tmp_path / "b" / "journal.db")

    assert len(emulator.tasks) == 4


async def test_rows_that_changed_set_old_pictures_aside(place: str, journal: Path) -> None:
    """A new attempt under the same key leaves the pictures of the old one in `earlier/`."""
    async with Emulator(speed=1000, paint="stamp") as emulator:
        await run(emulator, place, journal, jobs=[job(key="k", prompt="a")])
        before = objects(place)["images/k_0.png"]
        (outcome,) = await run(emulator, place, journal, jobs=[job(key="k", prompt="b")], update=True)

    found = objects(place)
    (aside,) = (name for name in found if "/earlier/" in name)
    assert isinstance(outcome, Succeeded)
    assert found[aside] == before
    assert aside.endswith("-k_0.png")


async def test_missing_objects_are_fetched_again(place: str, journal: Path) -> None:
    """`fetch()` brings back what somebody has deleted from the store."""
    async with Emulator(speed=1000, paint="stamp") as emulator:
        await run(emulator, place, journal)
        before = objects(place)
        opened = open_place(place)
        obstore.delete(opened.store, f"{opened.path}/images/one_1.png")
        async with client(emulator) as kling:
            found = await kling.fetch(out=place, journal=journal)

    assert found.fetched == (f"{place}/images/one_1.png",)
    assert found.whole == 3
    assert objects(place) == before


async def test_a_store_comes_with_a_journal() -> None:
    """Without a place for the journal nothing begins."""
    async with Emulator() as emulator, client(emulator) as kling:
        with pytest.raises(errors.ConfigError, match="--journal"):
            kling.batch(JOBS, out="memory://x/y")
        with pytest.raises(errors.ConfigError, match="s3://"):
            kling.batch(JOBS, out="ftp://x/y")


async def test_a_file_url_is_a_folder(tmp_path: Path) -> None:
    """`file://` needs no extra and is the folder that it names."""
    async with Emulator(speed=1000, paint="stamp") as emulator, client(emulator) as kling:
        outcomes = [o async for o in kling.batch([job(key="k")], out=(tmp_path / "o ut").as_uri())]

    assert isinstance(outcomes[0], Succeeded)
    assert outcomes[0].files == (tmp_path / "o ut" / "images" / "k_0.png",)
    assert (tmp_path / "o ut" / "journal.db").is_file()


async def test_single_pictures_go_to_folders() -> None:
    """A store given to `image.save()` is refused, instead of becoming a folder of that name."""
    async with Emulator(speed=1000, paint="stamp") as emulator, client(emulator) as kling:
        task = await kling.images.multi_image.run(job())
        with pytest.raises(errors.ConfigError, match="object stores"):
            await task.images[0].save("s3://bucket/x")
