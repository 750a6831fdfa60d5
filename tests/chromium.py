"""A headless Chromium for tests.

Tests that need one are skipped where there is no browser or no Playwright. Chromium is looked for on the path; another
browser of its family is named by the environment variable DCCRN_BROWSER.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",  # a microphone that beeps
)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def browser_executable() -> str | None:
    """Path of the browser: DCCRN_BROWSER (which must exist), or the first Chromium on the path; None without one."""
    wanted = os.environ.get("DCCRN_BROWSER")
    if wanted:
        found = shutil.which(wanted)
        assert found, f"DCCRN_BROWSER names {wanted!r}, which is not a program on this machine"
        return found
    return next(filter(None, map(shutil.which, NAMES)), None)


# of each browser that is open, all the same: Playwright allows one in a process, and two folders of tests keep theirs
_drivers: list[Any] = []


@contextmanager
def chromium(*flags: str) -> Iterator[Any]:
    """A headless Chromium with a fresh profile and these flags beside the usual ones."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is missing: pip install -e '.[browser]'")
    executable = browser_executable()
    if executable is None:
        pytest.skip("no Chromium found: install it (Debian: apt install chromium) or name one in DCCRN_BROWSER")
    driver = _drivers[-1] if _drivers else playwright.sync_playwright().start()
    _drivers.append(driver)
    try:
        program = driver.chromium.launch(executable_path=executable, headless=True, args=[*FLAGS, *flags])
        yield program
        program.close()
    finally:
        _drivers.pop()
        if not _drivers:
            driver.stop()
