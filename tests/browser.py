"""A real browser for tests of pages: Debian's chromium, driven by playwright, signed in to the embedded Airflow."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""A browser of this machine; playwright's own are not on PyPI."""
PATIENCE_SECONDS = 60
"""How long a page may take, on a machine that is at work, before a test gives up."""


def needs_browser() -> pytest.MarkDecorator:
    """Skip a test where no browser can be started, and say why."""
    return pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH (Debian: apt-get install chromium)")


@contextmanager
def signed_in(address: str, home: Path) -> Iterator["BrowserContext"]:
    """Yield a browser whose pages are signed in to the embedded Airflow of a folder, as its administrator."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    passwords = json.loads((home / "airflow" / "simple_auth_manager_passwords.json.generated").read_text())
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context(viewport={"width": 1400, "height": 1000}, locale="en-GB", timezone_id="UTC")
        context.set_default_timeout(PATIENCE_SECONDS * 1000)
        page = context.new_page()
        page.goto(f"{address}/auth/login/")
        page.locator("input[name=username]").fill("admin")
        page.locator("input[name=password]").fill(passwords["admin"])
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(lambda url: "/login" not in url)
        page.close()
        try:
            yield context
        finally:
            browser.close()
