"""The search page in Chromium, against the service over a socket."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import Dupmae, Service

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.browser

Page = Any


@pytest.fixture(scope="module")
def address(start: Callable[..., AbstractContextManager[Service]], index: str) -> Iterator[str]:
    with start() as service:
        yield service.address


@pytest.fixture
def page(address: str) -> Iterator[Page]:
    """A page that fails its test when the browser reports any error, a broken content policy among them."""
    errors: list[str] = []
    with playwright.sync_playwright() as session:
        browser = session.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(base_url=address)
        page.set_default_timeout(20_000)
        page.on("console", lambda message: errors.append(message.text) if _is_ours(message) else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
        browser.close()
    assert errors == []


def _is_ours(message: Any) -> bool:
    """Whether a console message is an error of the page; Chromium reports every 404 of an answer too."""
    return message.type == "error" and not message.text.startswith("Failed to load resource")


def test_a_question_is_answered_from_the_keyboard_and_stays_in_the_address(page: Page) -> None:
    page.goto("/")
    page.keyboard.type("compress a file")  # the field has the focus
    page.keyboard.press("Enter")
    page.get_by_role("list", name="Results").get_by_role("listitem").nth(3).wait_for()
    assert "4 results" in page.get_by_role("status").inner_text()
    assert page.url.endswith("/?q=compress+a+file")
    page.get_by_text("Words", exact=True).click()
    page.wait_for_url("**/?q=compress+a+file&mode=ot")
    page.go_back()
    page.wait_for_url("**/?q=compress+a+file")
    assert page.get_by_label("Fused").is_checked()


def test_a_link_to_a_question_shows_its_results_with_parts_and_reasons(page: Page) -> None:
    page.goto("/?q=compress+a+file")
    first = page.get_by_role("article").first
    first.get_by_role("img", name="Score").wait_for()
    first.get_by_text("Why this?").click()
    assert first.get_by_role("row").count() > 1


def test_text_of_the_index_is_never_markup_nor_a_script(page: Page) -> None:
    page.goto("/?q=speed+of+sound")
    article = page.get_by_role("article").filter(has_text="<b>Sound</b>")
    article.wait_for()
    assert "<i>air</i> & water" in article.inner_text()
    assert article.locator("h2 a").get_attribute("href") is None


def test_a_passage_of_a_long_document_says_which_it_is(page: Page, dupmae: Dupmae, tmp_path: Path) -> None:
    source = tmp_path / "long.jsonl"
    source.write_text(json.dumps({"_id": "long", "text": "The king of the island had a horse. " * 40}))
    assert dupmae("index", "build", str(source), "--index", "long").returncode == 0
    page.goto("/?q=the+king&index=long")
    article = page.get_by_role("article")
    article.wait_for()
    assert re.search(r"passage \d+ of \d+", article.inner_text())
    page.goto("/?q=speed+of+sound")
    page.get_by_role("article").filter(has_text="<b>Sound</b>").wait_for()
    assert page.locator(".passage").count() == 0


def test_a_refused_question_is_explained_in_the_status(page: Page) -> None:
    page.goto("/?q=x&index=missing")
    page.locator("#status.problem").wait_for()
    assert "missing" in page.get_by_role("status").inner_text()
