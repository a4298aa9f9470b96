"""The pytest plugin, in test suites of its users: another pytest in another process."""

from __future__ import annotations

import re
import shutil
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A checkout announces no plugin; an installed package does.
_PLUGIN = () if entry_points(group="pytest11", name="kling_async") else ("-p", "kling_async.testing.plugin")
_STRICT = ("-p", "no:cacheprovider", "--strict-markers", "-W", "error")

_PNG = """
import asyncio, struct, zlib
import anyio, pytest
from kling_async import Kling
from kling_async.errors import NoFreeSlot

def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

HEADER = chunk(b"IHDR", struct.pack(">IIBBBBB", 300, 300, 8, 2, 0, 0, 0))
PIXELS = chunk(b"IDAT", zlib.compress((b"\\0" + b"\\x20\\x50\\x90" * 300) * 300))
PNG = b"\\x89PNG\\r\\n\\x1a\\n" + HEADER + PIXELS + chunk(b"IEND", b"")
"""


def _outcomes(pytester: pytest.Pytester, code: str) -> pytest.RunResult:
    pytester.makepyfile(_PNG + code)
    return pytester.runpytest_subprocess(*_PLUGIN, *_STRICT)


def test_a_sync_test_gets_a_whole_service(pytester: pytest.Pytester) -> None:
    """A test without any async plugin runs the client against the fixture and looks into the books."""
    code = """
    def test_it(kling_emulator):
        async def main():
            async with kling_emulator.client() as kling:
                task = await kling.images.multi_image.run(subject_images=[PNG], prompt="hello", n=2)
                return [await image.read() for image in task.images]

        pictures = asyncio.run(main())

        assert len(pictures) == 2
        assert all(picture.startswith(b"\\x89PNG") for picture in pictures)
        (task,) = kling_emulator.tasks
        assert (task.prompt, task.n, task.status) == ("hello", 2, "succeed")
        assert kling_emulator.accepted(task.external_task_id) == 1
        assert [each.method for each in kling_emulator.requests].count("POST") == 1
        assert task.prompt not in repr(kling_emulator)
        kling_emulator.reset()
        assert kling_emulator.tasks == []
    """

    result = _outcomes(pytester, _dedent(code))

    result.assert_outcomes(passed=1)


def test_an_async_test_finds_it_in_the_environment(pytester: pytest.Pytester) -> None:
    """In a test with a loop of its own `Kling()` finds the emulator, whatever the developer's own settings are."""
    code = """
    @pytest.fixture(autouse=True)
    def settings_of_a_developer(monkeypatch):
        monkeypatch.setenv("KLING_ACCESS_KEY", "half a pair")
        monkeypatch.setenv("KLING_REGION", "nowhere")
        monkeypatch.setenv("KLING_SLOTS", "many")

    @pytest.fixture
    def anyio_backend():
        return "asyncio"

    @pytest.mark.anyio
    async def test_it(settings_of_a_developer, kling_env):
        async with Kling(min_poll_interval=0.02) as kling:
            task = await kling.images.multi_image.run(subject_images=[PNG], prompt="hello")
        assert [each.task_id for each in kling_env.tasks] == [task.task_id]
    """

    result = _outcomes(pytester, _dedent(code))

    result.assert_outcomes(passed=1)


def test_the_marker_sets_the_emulator_up(pytester: pytest.Pytester) -> None:
    """The marker is known to strict suites and its settings are the emulator's; each test has one of its own."""
    code = """
    @pytest.mark.kling_emulator(slots=2, speed="manual", faults="1303")
    def test_with(kling_emulator):
        async def main():
            async with kling_emulator.client(slots=2, max_retries=0) as kling:
                with pytest.raises(NoFreeSlot):
                    await kling.images.multi_image.create(subject_images=[PNG], n=2)
                kling_emulator.faults = ""
                handle = await kling.images.multi_image.create(subject_images=[PNG], n=2)
                assert not (await handle.refresh()).ended
                kling_emulator.advance(3600)
                await handle.wait(10)

        asyncio.run(main())
        assert kling_emulator.peak_slots == 2

    def test_without(kling_emulator):
        assert kling_emulator.tasks == [] and not kling_emulator.faults.rows
    """

    result = _outcomes(pytester, _dedent(code))

    result.assert_outcomes(passed=2)


def test_callbacks_reach_a_receiver_in_the_tests_own_loop(pytester: pytest.Pytester) -> None:
    """`advance()` blocks nobody who waits for what it sets going."""
    code = """
    from aiohttp import web

    @pytest.mark.kling_emulator(speed="manual")
    def test_it(kling_emulator):
        async def main():
            statuses = []
            done = asyncio.Event()

            async def receive(request):
                statuses.append((await request.json())["task_status"])
                if statuses[-1] == "succeed":
                    done.set()
                return web.Response()

            app = web.Application()
            app.router.add_post("/", receive)
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            address = f"http://127.0.0.1:{runner.addresses[0][1]}/"
            async with kling_emulator.client() as kling:
                await kling.images.multi_image.create(subject_images=[PNG], callback_url=address)
                kling_emulator.advance(3600)
                async with asyncio.timeout(10):
                    await done.wait()
            await runner.cleanup()

        asyncio.run(main())
        assert kling_emulator.callbacks
    """

    result = _outcomes(pytester, _dedent(code))

    result.assert_outcomes(passed=1)


def test_one_emulator_for_the_session(pytester: pytest.Pytester) -> None:
    """Tests share it, with the settings of the suite, until one resets it."""
    pytester.makeconftest("""
        import pytest

        @pytest.fixture(scope="session")
        def kling_emulator_settings():
            return {"api_key": "key-of-the-suite"}
    """)
    code = """
    def make(emulator):
        async def main():
            async with emulator.client() as kling:
                await kling.images.multi_image.run(subject_images=[PNG])

        asyncio.run(main())

    def test_first(kling_emulator_session):
        make(kling_emulator_session)
        assert kling_emulator_session.tasks_created == 1

    def test_second(kling_emulator_session):
        make(kling_emulator_session)
        assert kling_emulator_session.tasks_created == 2
        assert kling_emulator_session.api_key == "key-of-the-suite"
        kling_emulator_session.reset()

    def test_third(kling_emulator_session, kling_emulator):
        assert kling_emulator_session.tasks_created == kling_emulator.tasks_created == 0
        assert kling_emulator_session.url != kling_emulator.url
    """

    result = _outcomes(pytester, _dedent(code))

    result.assert_outcomes(passed=3)


def test_the_page_about_testing_passes(pytester: pytest.Pytester) -> None:
    """What docs/testing.md shows is a file of tests, as it stands there."""
    page = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    pytester.makepyfile("\n\n".join(blocks))
    shutil.copy(ROOT / "examples" / "pictures" / "robot.jpg", pytester.path)

    result = pytester.runpytest_subprocess(*_PLUGIN, *_STRICT)

    result.assert_outcomes(passed=6)


def test_suites_that_do_not_use_it_pay_nothing(pytester: pytest.Pytester) -> None:
    """Where no fixture is used the plugin imports neither aiohttp nor the rest of the package."""
    pytester.makepyfile("""
        import sys

        def test_it():
            assert "kling_async.testing.plugin" in sys.modules
            assert "aiohttp" not in sys.modules
            assert {name for name in sys.modules if name.startswith("kling_async.")} <= {
                "kling_async._version", "kling_async.testing", "kling_async.testing.plugin",
            }
    """)

    result = pytester.runpytest_subprocess(*_PLUGIN, *_STRICT)

    result.assert_outcomes(passed=1)


def _dedent(code: str) -> str:
    return "\n".join(line[4:] for line in code.splitlines())
