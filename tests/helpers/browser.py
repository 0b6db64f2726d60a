"""Headless Chromium for tests, where it is installed."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium(url: str) -> Iterator:
    """A page in Chromium; skips the test where selenium, Chromium or its driver is missing."""
    selenium = pytest.importorskip("selenium.webdriver", reason="pip install selenium")
    program, driver = next(filter(None, map(shutil.which, NAMES)), None), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    options = selenium.ChromeOptions()
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu"):
        options.add_argument(f"--{argument}")
    options.add_argument("--window-size=1280,1100")
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    try:
        browser.get(url)
        yield browser
    finally:
        browser.quit()


def requested(browser) -> set[str]:
    """Addresses that the page has asked for."""
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    sent = (message for message in messages if message["method"] == "Network.requestWillBeSent")
    return {message["params"]["request"]["url"] for message in sent}
