"""A headless Chromium for the tests of this folder; it needs `chromium` and `chromedriver` on the path."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

Shoot = Callable[[str], Path]

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1000",
    "--force-device-scale-factor=1",
)


def _where(*names: str) -> str:
    found = next(filter(None, map(shutil.which, names)), None)
    assert found, f"expected {' or '.join(names)} on the path; install Debian's chromium and chromium-driver"
    return found


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    """Start a browser that knows nothing of earlier tests; in the end its pages must not have complained."""
    with tempfile.TemporaryDirectory(prefix="kling-browser-", ignore_cleanup_errors=True) as profile:
        options = Options()
        options.binary_location = _where("chromium", "chromium-browser")
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(_where("chromedriver")))
        try:
            driver.set_page_load_timeout(60)
            yield driver
            complaints = [line["message"] for line in _log_of(driver) if line["level"] == "SEVERE"]
        finally:
            driver.quit()
    # That a server is away, or refuses something, is what some tests are about.
    assert [line for line in complaints if "net::ERR_" not in line and "status of 422" not in line] == []


def _log_of(driver: webdriver.Chrome) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = driver.get_log("browser")  # type: ignore[no-untyped-call]  # selenium's own
    return lines


@pytest.fixture
def shoot(browser: webdriver.Chrome, tmp_path: Path) -> Shoot:
    """Take a picture of the whole page, into the folder `KLING_TEST_SHOTS` if that is set."""
    folder = Path(os.environ.get("KLING_TEST_SHOTS") or tmp_path)

    def take(name: str) -> Path:
        path = folder / f"{name}.png"
        height = browser.execute_script("return document.documentElement.scrollHeight")
        width = browser.execute_script("return document.documentElement.clientWidth")
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        browser.save_screenshot(str(path))
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        return path

    return take
