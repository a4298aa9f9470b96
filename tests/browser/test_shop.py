"""The page of the shop in a real browser: orders, live progress, and what happens when the server goes away."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait
from web_kit import EXAMPLES, free_port, path_with, served

from kling_async.testing import RunningEmulator, running_emulator

JUG = EXAMPLES / "pictures" / "jug.jpg"
Shoot = Callable[[str], Path]


@pytest.fixture
def emulator() -> Iterator[RunningEmulator]:
    """Run a Kling of nine slots whose tasks take a second or two and whose pictures are worth looking at."""
    with running_emulator(speed=10, task_seconds=30, paint="composite") as emulator:
        yield emulator


@contextmanager
def shop(emulator: RunningEmulator, folder: Path, port: int) -> Iterator[Popen[bytes]]:
    """Open the shop that is made with FastAPI."""
    env = {**emulator.env, "SHOP_URL": f"http://127.0.0.1:{port}", **path_with(EXAMPLES)}
    with served(["-m", "fastapi_shop.app", str(port)], port, folder=folder, env=env) as process:
        yield process


def choose(browser: Chrome, name: str, value: str) -> None:
    """Click on one of several choices."""
    browser.find_element(By.CSS_SELECTOR, f"label:has([name={name}][value='{value}'])").click()


def order(browser: Chrome, photo: Path | None = None, scene: str = "meadow", style: str = "") -> WebElement:
    """Order pictures as a customer does and return the card of the order."""
    before = len(browser.find_elements(By.CSS_SELECTOR, "#orders > li"))
    if photo is not None:
        browser.find_element(By.NAME, "photo").send_keys(str(photo))
    choose(browser, "scene", scene)
    choose(browser, "style", style)
    browser.find_element(By.CSS_SELECTOR, "form button").click()
    WebDriverWait(browser, 30).until(
        lambda page: len(page.find_elements(By.CSS_SELECTOR, "#orders > li")) > before
    )
    return browser.find_element(By.CSS_SELECTOR, "#orders > li")


def wait_for(browser: Chrome, card: WebElement, status: str) -> None:
    """Wait until *card* shows *status*, and its pictures are there if it has any."""
    WebDriverWait(browser, 60, poll_frequency=0.05).until(
        lambda _: card.get_attribute("data-status") == status
    )
    WebDriverWait(browser, 30).until(lambda page: page.execute_script(_ALL_SHOWN))


_ALL_SHOWN = (
    "return [...document.images].every((one) => one.hidden || (one.complete && one.naturalWidth > 0))"
)
# Keeps every status that the newest card has shown.
_WATCH = """
    window.seen = [];
    new MutationObserver(() => {
        const status = document.querySelector("#orders > li")?.dataset.status;
        if (status && status !== window.seen.at(-1)) window.seen.push(status);
    }).observe(document.getElementById("orders"), { subtree: true, childList: true, attributes: true });
"""


def test_a_photo_becomes_pictures(
    browser: Chrome, shoot: Shoot, emulator: RunningEmulator, tmp_path: Path
) -> None:
    """A customer uploads a photo, sees the order go on without touching anything, and gets pictures that can be seen."""
    port = free_port()
    with shop(emulator, tmp_path, port):
        browser.get(f"http://127.0.0.1:{port}/")
        shoot("shop-empty")
        browser.execute_script(_WATCH)
        card = order(browser, JUG, scene="harbour", style="watercolour")
        wait_for(browser, card, "processing")
        shoot("shop-running")
        wait_for(browser, card, "succeeded")
        second = order(browser, scene="meadow")
        wait_for(browser, second, "succeeded")
        shoot("shop-done")
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": "dark"}]},
        )
        shoot("shop-dark")
        seen = browser.execute_script("return window.seen")
        pictures = card.find_elements(By.CSS_SELECTOR, ".pictures img")
        browser.get(browser.current_url)
        again = browser.find_elements(By.CSS_SELECTOR, "#orders > li")
        wait_for(browser, again[0], "succeeded")

    assert seen[: seen.index("succeeded") + 1][-1] == "succeeded"
    assert {"accepted", "processing"} <= set(seen)
    assert len(pictures) == 2
    assert len(again) == 2


def test_a_server_that_comes_back(browser: Chrome, emulator: RunningEmulator, tmp_path: Path) -> None:
    """The shop is killed while an order runs and started again: the page goes on by itself, and the order is made once."""
    port = free_port()
    with shop(emulator, tmp_path, port) as process:
        browser.get(f"http://127.0.0.1:{port}/")
        card = order(browser)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with shop(emulator, tmp_path, port):
        wait_for(browser, card, "succeeded")
        tasks = [emulator.accepted(task.external_task_id) for task in emulator.tasks]

    assert tasks == [1]


def test_what_is_refused_is_said(
    browser: Chrome, shoot: Shoot, emulator: RunningEmulator, tmp_path: Path
) -> None:
    """A file that is no picture is refused with a reason on the page, and a failed task shows why it failed."""
    wrong = tmp_path / "notes.png"
    wrong.write_text("no picture", encoding="utf-8")
    emulator.faults = "fail-task:100%"
    port = free_port()
    with shop(emulator, tmp_path, port):
        browser.get(f"http://127.0.0.1:{port}/")
        browser.find_element(By.NAME, "photo").send_keys(str(wrong))
        browser.find_element(By.CSS_SELECTOR, "form button").click()
        problem = browser.find_element(By.ID, "problem")
        WebDriverWait(browser, 30).until(lambda _: problem.is_displayed())
        said = problem.text
        choose(browser, "sample", "dress")
        card = order(browser)
        wait_for(browser, card, "failed")
        reason = card.find_element(By.CSS_SELECTOR, ".status").text
        shoot("shop-failed")

    assert "a whole PNG or JPEG picture" in said
    assert "failed" in reason
