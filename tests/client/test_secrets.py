"""No key, token or picture is in anything that a person or a log may see."""

from __future__ import annotations

import asyncio
import base64
import pickle
import traceback
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import rich.traceback
from socket_kit import PATH, Asked, Plain, answer, client, job, logged, png, reply, task, until

from kling_async import Account, ImageSource, Kling
from kling_async.client.clock import Clock
from kling_async.emulator import Emulator, Fault
from kling_async.errors import KlingError
from kling_async.integrations.logs import EventLog
from kling_async.protocol.endpoints import Timeouts

pytestmark = pytest.mark.anyio

API_KEY = "an-api-key-that-nobody-may-see"
ACCESS_KEY = "an-access-key-of-ours"
SECRET_KEY = "a-secret-key-that-nobody-may-see-either"
PICTURE = png(400, 300)
# Every JWT begins like this; a stretch from the middle of the picture's base64 stands for all of it.
# What signs a result's URL.
SIGNATURE = "signed-for-thirty-days"
MARKS = (API_KEY, SECRET_KEY, SIGNATURE, "eyJ", base64.b64encode(PICTURE).decode()[60:100])


def shown(value: object) -> Iterator[str]:
    """Return every text that *value* could become: str, repr, pickle, and tracebacks with their causes."""
    yield from (str(value), repr(value))
    if isinstance(value, BaseException):
        yield "".join(traceback.format_exception(value))
        yield from _with_locals(value)
        for link in (value.__cause__, value.__context__):
            if link is not None:
                yield from shown(link)
    if isinstance(value, KlingError):
        yield pickle.dumps(value).decode("latin-1")


def _with_locals(error: BaseException) -> Iterator[str]:
    """Write the traceback as tools do that show local variables, without the frames of the tests, which know the secrets."""
    found: traceback.TracebackException | None = traceback.TracebackException.from_exception(
        error, capture_locals=True
    )
    while found is not None:
        frames = [frame for frame in found.stack if "/tests/" not in frame.filename]
        yield from traceback.StackSummary.from_list(frames).format()
        found = found.__cause__ or found.__context__
    trace = rich.traceback.Traceback.from_exception(type(error), error, error.__traceback__, show_locals=True)
    for stack in trace.trace.stacks:
        for frame in stack.frames:
            if "/tests/" not in frame.filename:
                yield from (str(node) for node in (frame.locals or {}).values())


def assert_silent(*values: object) -> None:
    """Assert that no secret is in any text of *values*."""
    for value in values:
        for text in shown(value):
            for mark in MARKS:
                assert mark not in text, f"{mark[:12]}… shows in {type(value).__name__}: {text[:300]}"


CREDENTIALS: dict[str, dict[str, Any]] = {
    "api key": {"api_key": API_KEY},
    "signed": {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY},
    "accounts": {"accounts": [Account("one", api_key=API_KEY)]},
}


def _refuse(code: int, _: Asked) -> bytes:
    return answer(None, code=code, status=400)


# What goes wrong, as the reply to a create and to a read.
TROUBLES: dict[str, Callable[[Asked], bytes]] = {
    **{str(code): partial(_refuse, code) for code in (1000, 1102, 1201, 1301, 5000)},
    "garbage": lambda _: b"what is this\r\n\r\n",
    "html": lambda _: reply(502, b"<html>", kind="text/html"),
    "redirect": lambda asked: reply(301, b"", Location=f"http://elsewhere.example{asked.target}"),
    "nothing": lambda _: reply(200, b""),
    "double length": lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    "big header": lambda _: b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
    "bad gzip": lambda _: reply(200, b"no gzip at all", Content_Encoding="gzip"),
    "hang": lambda _: Plain.HANG,
    "half": lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{" + Plain.HANG,
}


@pytest.mark.parametrize("credentials", CREDENTIALS)
@pytest.mark.parametrize("trouble", TROUBLES)
async def test_no_error_shows_a_secret(trouble: str, credentials: str) -> None:
    """Whatever a request meets, neither its error, with all causes, nor any log line shows a secret or a picture."""
    say, caught = TROUBLES[trouble], []

    def fail(asked: Asked) -> bytes:
        if asked.method == "GET" and PATH not in asked.path:
            return answer(None, code=1203, status=404)
        found = asked.path.endswith("/t-1") or asked.method == "POST"
        return say(asked) if found else answer(None, code=1203, status=404)

    with logged() as log:
        async with Plain(fail) as server:
            options = {**CREDENTIALS[credentials], "max_retries": 0}
            async with client(server, timeout=_brief(), **options) as kling:
                for call in (_create, _retrieve):
                    with pytest.raises(KlingError) as one:
                        await call(kling)
                    caught.append(one.value)
                told = [kling, kling.images.multi_image, kling.account, kling._engine, *kling._engine.links]

    assert_silent(*caught, *log.lines, *map(repr, told))


def _brief() -> Timeouts:
    return Timeouts(request=0.15, settle=0.01)


def _create(kling: Kling) -> Awaitable[Any]:
    return kling.images.multi_image.create(
        job(subject_images=[PICTURE], scene_image=ImageSource.from_bytes(PICTURE))
    )


def _retrieve(kling: Kling) -> Awaitable[Any]:
    return kling.images.multi_image.retrieve("t-1")


async def test_nothing_refuses_without_a_secret_in_it() -> None:
    """A service that cannot be reached is told without the token that would have been sent."""
    with logged() as log:
        async with Kling(api_key=API_KEY, base_url="http://127.0.0.1:9", max_retries=0, slots=9) as kling:
            caught = []
            for call in (_create, _retrieve):
                with pytest.raises(KlingError) as one:
                    await call(kling)
                caught.append(one.value)

    assert_silent(*caught, *log.lines)
    assert "127.0.0.1:9" in str(caught[0])


async def test_a_whole_life_shows_no_secret(tmp_path: Path) -> None:
    """Events, handles, tasks, outcomes and all log lines of a run with trouble show no secret; nor do the files."""
    faults = [Fault(action="html-502", route="get", times=2), Fault(action="reset-after-accept", times=1)]
    events: list[object] = []

    with logged() as log:
        async with (
            Emulator(
                speed="instant", paint="stamp", access_key=ACCESS_KEY, secret_key=SECRET_KEY, faults=faults
            ) as emulator,
            client(emulator, access_key=ACCESS_KEY, secret_key=SECRET_KEY, on_event=events.append) as kling,
        ):
            handle = await kling.images.multi_image.create(job(subject_images=[PICTURE]))
            made = [handle, await handle, kling]
            async with kling.batch([job(subject_images=[PICTURE])], out=tmp_path / "out") as batch:
                made += [outcome async for outcome in batch]
            made += [batch, batch.statistics()]

    assert_silent(*made, *events, *log.lines)
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            assert_silent(path.read_bytes().decode("latin-1"))


@pytest.mark.parametrize("credentials", CREDENTIALS)
@pytest.mark.parametrize("trouble", ["hang", "half"])
async def test_leaving_shows_no_secret(trouble: str, credentials: str) -> None:
    """What a caller gets who is cancelled or out of time in mid-request has no token in its frames' variables."""
    caught: list[BaseException] = []

    async with Plain(TROUBLES[trouble]) as server:
        async with client(
            server, timeout=Timeouts(request=30, settle=0.01), **CREDENTIALS[credentials]
        ) as kling:
            try:
                async with asyncio.timeout(0.1):
                    await _retrieve(kling)
            except TimeoutError as error:
                caught.append(error)
            work = asyncio.ensure_future(_list(kling))
            await until(lambda: len(server.asked) > 1)
            work.cancel()
            try:
                await work
            except asyncio.CancelledError as error:
                caught.append(error)

    assert [type(error) for error in caught] == [TimeoutError, asyncio.CancelledError]
    assert_silent(*caught)


async def _list(kling: Kling) -> object:
    return await kling.images.multi_image.list()


RESULTS: dict[str, Callable[[Asked], bytes]] = {
    "403": lambda _: reply(403, b"gone"),
    "500": lambda _: reply(500, b"broken"),
    "html": lambda _: reply(200, b"<html>" + b" " * 64),
    "cut": lambda _: reply(200, PICTURE[:-300]),
    "elsewhere": lambda asked: reply(302, b"", Location=f"ftp://elsewhere.example/?{asked.target}"),
}


@pytest.mark.parametrize("trouble", RESULTS)
async def test_no_signed_url_shows(trouble: str, tmp_path: Path) -> None:
    """The query of a result's URL is in no error, event, log line, repr or traceback, whatever the result host does."""
    events: list[object] = []

    def say(asked: Asked) -> bytes:
        if "/made" in asked.path:
            return RESULTS[trouble](asked)
        images = [{"index": 0, "url": f"{server.url}/made.png?sign={SIGNATURE}"}]
        return answer(task("t-1", "succeed", task_result={"images": images}))

    with logged() as log:
        async with Plain(say) as server, client(server, on_event=[events.append, EventLog()]) as kling:
            multi_image = kling.images.multi_image
            done = await multi_image.run(job(), wait_timeout=5)
            raw = await multi_image.with_raw_response.retrieve("t-1")
            kling._engine.downloads.clock = Clock.hurried(1000)
            caught = []
            calls: tuple[Callable[[Any], Awaitable[Any]], ...] = (
                lambda image: image.save(tmp_path),
                lambda image: image.read(),
            )
            for call in calls:
                with pytest.raises(KlingError) as one:
                    await call(done.images[0])
                caught.append(one.value)
            async with kling.batch([job()], out=tmp_path / "out") as batch:
                outcomes = [outcome async for outcome in batch]

    assert_silent(*caught, done, raw, raw._reply, *outcomes, *events, *_texts(log.lines))


def _texts(lines: list[str]) -> list[str]:
    # What aiohttp says of its own work at DEBUG is not ours.
    return [line for line in lines if "aiohttp" not in line and "asyncio" not in line]


@pytest.mark.parametrize(
    "make",
    [
        lambda text: ImageSource.from_base64(text + "*"),
        ImageSource.of,
        lambda text: job(subject_images=[text]),
        lambda text: job(subject_images=[ImageSource.from_base64(text)], n=99),
    ],
)
def test_no_picture_shows_where_a_job_is_refused(make: Callable[[str], object]) -> None:
    """A job that is refused shows none of its pictures' base64, however they were given."""
    text = base64.b64encode(PICTURE).decode()

    try:
        made = make(text)
    except KlingError as error:
        assert_silent(error)
    else:
        assert_silent(made)


async def test_a_callers_note_has_the_id_and_no_more() -> None:
    """What a cancelled create leaves on its CancelledError is the external id."""
    async with Plain(lambda asked: Plain.HANG if asked.method == "POST" else answer(task())) as server:
        kling = client(server, api_key=API_KEY)
        work = asyncio.ensure_future(_create(kling))
        await until(lambda: server.asked)
        work.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await work
        await kling._engine.aclose(grace=0.01)
        await kling.aclose()

    assert_silent(caught.value, *caught.value.__notes__)
    assert caught.value.__notes__[0].startswith("external_task_id: ka-")


@pytest.mark.parametrize(
    "options",
    [
        {"access_key": ACCESS_KEY},
        {"secret_key": SECRET_KEY},
        {"api_key": API_KEY, "secret_key": SECRET_KEY},
        {"api_key": f"{API_KEY} with blanks"},
        {"api_key": API_KEY, "base_url": f"https://{API_KEY}@host.example"},
        {"api_key": API_KEY, "base_url": f"https://host.example/?key={API_KEY}"},
        {"api_key": API_KEY, "base_url": f"host.example/?key={API_KEY}"},
        {"api_key": API_KEY, "proxy": f"socks5://user:{API_KEY}@host.example"},
        {"api_key": API_KEY, "slots": 0},
        {"accounts": [Account("one", access_key=ACCESS_KEY)]},
        {"api_key": API_KEY, "accounts": [Account("one", api_key=API_KEY)]},
    ],
    ids=str,
)
def test_no_configuration_error_shows_a_secret(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong with credentials, addresses or options is told without them."""
    for name in ("KLING_API_KEY", "KLING_ACCESS_KEY", "KLING_SECRET_KEY", "KLING_BASE_URL"):
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(KlingError) as caught:
        Kling(**options)

    assert_silent(caught.value)
