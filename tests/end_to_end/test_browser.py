"""The search page in Chromium, against the service over a socket. Only failures are made up: a route answers them."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import Dupmae, Service

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.browser

Page = Any
Open = Callable[..., Page]

KINDS = ["book", "letter", "map"]
LONG_WORD = "compress" * 40
ODD = [
    {"title": "<b>Sound</b>", "text": "The speed of sound in <i>air</i> & water.", "url": "javascript:x"},
    {"text": "A text without a title or an address."},
    {"title": LONG_WORD, "text": f"compress {LONG_WORD}", "url": f"https://x.test/{LONG_WORD}"},
    {"title": "The king", "text": "The king of the island had a horse. " * 40},
]
LIBRARY = [
    {
        "_id": f"shelf/{number}",
        "title": f"File {number}",
        "text": f"How to compress a file, part {number}, and how to read it.",
        "url": f"https://x.test/{number}",
        "metadata": {"kind": KINDS[number % 3], "year": 1990 + number},
    }
    for number in range(24)
]


@pytest.fixture(scope="module")
def address(
    start: Callable[..., AbstractContextManager[Service]], index: str, dupmae: Dupmae, tmp_path_factory: Any
) -> Iterator[str]:
    """A service of two indexes, of which `library` declares fields and is the default."""
    source: Path = tmp_path_factory.mktemp("source") / "library.jsonl"
    odd = [{"_id": f"odd/{number}", "metadata": {"kind": "odd"}} | document for number, document in enumerate(ODD)]
    source.write_text("".join(json.dumps(document) + "\n" for document in [*LIBRARY, *odd]))
    fields = ["--field", "metadata.kind=keyword", "--field", "metadata.year=integer"]
    built = dupmae("index", "build", str(source), "--index", "library", *fields)
    assert built.returncode == 0, built.stderr
    with start(DUPMAE_INDEX="library", DUPMAE_LOG_LEVEL="warning") as service:  # nobody reads the log: it must not fill
        yield service.address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as session:
        browser = session.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, address: str) -> Iterator[Open]:
    """Opens pages that fail their test when the browser reports any error, a broken content policy among them."""
    errors: list[str] = []
    contexts = []

    def run(path: str = "/", *, routes: dict[str, Callable[[Any], None]] | None = None, **options: Any) -> Page:
        context = browser.new_context(base_url=address, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: errors.append(message.text) if _is_ours(message) else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        for pattern, answer in (routes or {}).items():
            page.route(pattern, answer)
        page.goto(path)
        return page

    yield run
    for context in contexts:
        context.close()
    assert errors == []


def _is_ours(message: Any) -> bool:
    """Whether a console message is an error of the page; Chromium reports every 404 of an answer too."""
    return message.type == "error" and not message.text.startswith("Failed to load resource")


def results(page: Page) -> Any:
    return page.get_by_role("list", name="Results").get_by_role("listitem")


def status(page: Page, text: str) -> None:
    page.get_by_role("status").filter(has_text=text).wait_for()


def focused(page: Page) -> str:
    found: str = page.evaluate("document.activeElement.textContent || document.activeElement.id")
    return found


def problem(code: int, name: str, detail: str = "as the service says it", **headers: str) -> Callable[[Any], None]:
    body = {"type": f"urn:dupmae:{name}", "title": "", "status": code, "detail": detail, "request_id": "r-1"}
    return lambda route: route.fulfill(
        status=code, body=json.dumps(body), content_type="application/problem+json", headers=headers
    )


# questions and the address


def test_a_question_is_answered_while_it_is_typed_and_stays_in_the_address(open_page: Open) -> None:
    page = open_page()
    page.keyboard.type("compress a file")  # the field has the focus
    status(page, "The best 10 results")
    page.wait_for_url("**/?q=compress+a+file")
    page.get_by_text("Words", exact=True).click()
    page.wait_for_url("**/?q=compress+a+file&mode=ot")
    page.go_back()
    page.wait_for_url("**/?q=compress+a+file")
    assert page.get_by_label("Both").is_checked()
    page.go_back()  # the whole burst of typing is one step
    page.get_by_text("One model reads your question").wait_for()
    assert page.get_by_label("Search for").input_value() == ""


def test_a_link_says_everything_that_is_shown(open_page: Open) -> None:
    page = open_page("/?q=compress&mode=ot&index=library&metadata.kind=book&metadata.year=1990..2000")
    status(page, "4 results")
    assert page.get_by_label("Search for").input_value() == "compress"
    assert page.get_by_label("Words").is_checked()
    assert page.get_by_label("Index").input_value() == "library"
    assert page.get_by_role("link", name="Remove “year: 1990 to 2000”").is_visible()


def test_a_late_answer_never_replaces_a_newer_one(open_page: Open) -> None:
    held = []

    def hold_the_first(route: Any) -> None:
        if route.request.post_data_json["query"] == "king":
            held.append(route)
        else:
            route.continue_()

    page = open_page(routes={"**/v1/search": hold_the_first})
    field = page.get_by_label("Search for")
    with page.expect_request("**/v1/search"):
        field.fill("king")
    field.fill("compress a file")
    page.wait_for_url("**/?q=compress+a+file")
    results(page).first.wait_for()
    shown = results(page).all_inner_texts()
    held[0].fulfill(json={"results": [], "meta": {}})
    page.get_by_label("Meaning").focus()  # a round trip through the page: what was late has been dealt with
    assert results(page).all_inner_texts() == shown
    assert page.url.endswith("/?q=compress+a+file")


# results


def test_a_score_is_explained_by_what_meaning_and_words_add(open_page: Open) -> None:
    page = open_page("/?q=compress+a+file")
    first = page.get_by_role("article").first
    assert re.search(r"Score \d+\.\d+= meaning -?\d+\.\d+\+ words \d+\.\d+", first.locator(".score").text_content())
    first.get_by_role("button", name="Why this?").click()
    first.get_by_role("row", name="score").wait_for()
    rows = [float(text) for text in first.locator("tbody .adds").all_inner_texts()]
    total = float(first.locator("tfoot .adds").inner_text())
    assert sum(rows) == pytest.approx(total, abs=0.0006 * len(rows))
    first.get_by_role("button", name="Why this?").click()
    assert first.get_by_role("row").count() == 0


def test_text_of_the_index_is_never_markup_nor_a_script(open_page: Open) -> None:
    page = open_page("/?q=sound+in+air&metadata.kind=odd")
    article = page.get_by_role("article").filter(has_text="<b>Sound</b>")
    article.wait_for()
    assert "<i>air</i> & water" in article.inner_text()
    assert article.locator("h2 a").get_attribute("href") is None


def test_a_passage_says_which_it_is_and_a_document_without_a_title_shows_its_id(open_page: Open) -> None:
    page = open_page("/?q=the+king&metadata.kind=book")
    status(page, "8 results")
    assert page.get_by_text("passage").count() == 0
    page.goto("/?q=the+king&metadata.kind=odd")
    page.get_by_role("article").filter(has_text=re.compile(r"passage \d+ of \d+")).wait_for()
    assert page.get_by_role("heading", name="odd/1", exact=True).is_visible()


def test_more_results_follow_and_the_focus_goes_to_the_first_of_them(open_page: Open) -> None:
    page = open_page("/?q=compress+a+file")
    page.get_by_role("button", name="More results").click()
    status(page, "The best 20 results")
    assert results(page).count() == 20
    assert focused(page) == results(page).nth(10).get_by_role("heading").inner_text()
    page.get_by_role("button", name="More results").click()
    status(page, "28 results")
    assert not page.get_by_role("button", name="More results").is_visible()


def test_more_like_this_is_a_view_with_a_way_back(open_page: Open) -> None:
    page = open_page("/?q=compress+a+file&metadata.kind=map")
    results(page).first.get_by_role("link", name="More like this").click()
    page.wait_for_url("**/?q=compress+a+file&like=shelf*")
    status(page, "7 results")
    page.get_by_role("button", name="Why this?").first.click()
    page.get_by_role("columnheader", name="Original").wait_for()
    page.get_by_role("link", name="Remove “like shelf/").click()
    status(page, "8 results")


# filters and indexes


def test_facets_count_documents_and_narrow_the_results(open_page: Open) -> None:
    page = open_page("/?q=compress+a+file", viewport={"width": 1280, "height": 900})
    page.get_by_role("link", name="letter 8").click()
    status(page, "8 results")
    page.wait_for_url("**/?q=compress+a+file&metadata.kind=letter")
    page.get_by_label("year from").fill("2000")
    page.get_by_label("year from").press("Enter")
    status(page, "5 results")
    page.get_by_role("link", name="letter 5").wait_for()
    page.get_by_role("link", name="Remove “kind: letter”").click()
    page.wait_for_url("**/?q=compress+a+file&metadata.year=2000..")
    page.get_by_role("link", name="book 4").wait_for()


def test_nothing_found_under_a_filter_says_so(open_page: Open) -> None:
    page = open_page("/?q=compress&metadata.kind=song")
    status(page, "Nothing found under these filters.")


def test_another_index_is_a_choice_that_forgets_the_filters_of_the_first(open_page: Open) -> None:
    page = open_page("/?q=compress+a+file&metadata.kind=book")
    page.get_by_label("Index").select_option("default")
    page.wait_for_url("**/?q=compress+a+file&index=default")
    status(page, "4 results")


# hands, ears and eyes


def test_the_keyboard_reaches_everything_in_the_order_of_the_page(open_page: Open) -> None:
    page = open_page("/?q=compress+a+file&metadata.kind=book", viewport={"width": 1280, "height": 900})
    status(page, "8 results")
    page.get_by_role("link", name="book 8").wait_for()
    titles = [title.inner_text() for title in page.locator("#results h2").all()]
    page.keyboard.press("ArrowDown")
    assert focused(page) == titles[0]
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    assert focused(page) == titles[1]
    assert page.locator("h2:has(:focus-visible)").evaluate("h2 => getComputedStyle(h2).outlineStyle") == "solid"
    page.keyboard.press("Tab")
    assert focused(page) == "book"
    page.keyboard.press("Tab")
    assert focused(page) == "Why this?"
    page.keyboard.press("Enter")
    page.get_by_role("row", name="score").wait_for()
    page.keyboard.press("Escape")
    assert focused(page) == "query"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.get_by_text("words 0.00").count() == 0
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**&mode=cls&**")
    page.get_by_text("words 0.00").first.wait_for()  # or the answer takes the focus out of what it replaces
    page.keyboard.press("/")
    assert focused(page) == "query"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    assert focused(page) == "query"


def test_a_choice_by_keyboard_keeps_its_place(open_page: Open) -> None:
    page = open_page("/?q=compress+a+file", viewport={"width": 1280, "height": 900})
    page.get_by_role("link", name="map 8").press("Enter")
    status(page, "8 results")
    page.get_by_role("link", name="map 8").and_(page.locator("[aria-current]")).wait_for()
    assert focused(page) == "map 8"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_system_until_somebody_chooses(open_page: Open, scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    other = {"light": "dark", "dark": "light"}[scheme]
    ground = "getComputedStyle(document.body).backgroundColor"
    system = page.evaluate(ground)
    page.get_by_role("button", name="Dark").click()
    chosen = page.evaluate(ground)
    assert chosen != system
    page.reload()
    assert page.evaluate(ground) == chosen
    assert page.get_by_role("button", name="Dark").get_attribute("aria-pressed") == str(other == "dark").lower()
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate("localStorage.length") == 0


@pytest.mark.parametrize("width", [320, 390])
def test_a_narrow_screen_never_scrolls_sideways(open_page: Open, width: int) -> None:
    page = open_page("/?q=compress&metadata.year=1990..", viewport={"width": width, "height": 844})
    status(page, "results")
    page.get_by_text("Filters (1)").click()
    page.goto("/?q=compress&metadata.kind=odd")
    page.get_by_role("heading", name=LONG_WORD).wait_for()
    page.get_by_role("button", name="Why this?").first.click()
    page.get_by_role("row", name="score").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_results_are_read_while_their_facets_are_counted(open_page: Open) -> None:
    counting: list[Any] = []
    hold = lambda route: counting.append(route) if "facets" in route.request.post_data else route.continue_()  # noqa: E731
    page = open_page("/?q=compress+a+file", routes={"**/v1/search": hold})
    results(page).first.wait_for()
    page.wait_for_function("getComputedStyle(document.querySelector('#results')).opacity === '1'")
    while not counting:
        page.wait_for_timeout(10)
    counting.pop().continue_()
    page.get_by_role("link", name="book 8").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_mend(open_page: Open, scheme: str) -> None:
    folder = find_spec("axe_playwright_python")
    assert folder is not None
    assert folder.origin is not None
    axe = Path(folder.origin).with_name("axe.min.js").read_text()
    page = open_page(color_scheme=scheme, viewport={"width": 1280, "height": 900})
    page.get_by_text("28 documents").wait_for()
    found = violations(page, axe)
    page.goto("/?q=compress+a+file&metadata.kind=book")
    page.get_by_role("link", name="book 8").wait_for()
    page.get_by_role("button", name="Why this?").first.click()
    page.get_by_role("row", name="score").wait_for()
    found += violations(page, axe)
    page.route("**/v1/search", problem(401, "unauthorized"))
    page.reload()
    page.get_by_label("API key").wait_for()
    assert found + violations(page, axe) == []


def violations(page: Page, axe: str) -> list[str]:
    page.wait_for_function("!document.querySelector('#results').hasAttribute('aria-busy')")
    page.evaluate(axe)
    found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
    return [f"{each['id']}: {node['html']}" for each in found for node in each["nodes"]]


# what can go wrong


def test_a_busy_service_is_asked_again_when_it_said(open_page: Open) -> None:
    refusals = [problem(429, "queue-full", "too many wait", **{"Retry-After": "1"})]
    answer = lambda route: refusals.pop()(route) if refusals else route.continue_()  # noqa: E731
    page = open_page("/?q=compress", routes={"**/v1/search": answer})
    page.get_by_role("alert").get_by_text("Too many questions at once").wait_for()
    page.get_by_role("alert").get_by_text("by itself in 1 s").wait_for()
    results(page).first.wait_for()
    assert page.get_by_role("alert").inner_text() == ""


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (problem(503, "not-ready", "nothing is published"), "The service is not ready"),
        (problem(504, "deadline-exceeded"), "No answer in time"),
        (problem(500, "internal-error"), "The service failed"),
        (problem(413, "too-large"), "The question is too long"),
        (problem(422, "query-refused"), "cannot be answered as it is"),
        (problem(418, "teapot"), "The service answered 418"),
        (lambda route: route.fulfill(status=502, body="<html>Bad gateway"), "between here and the service"),
        (lambda route: route.abort(), "The service cannot be reached"),
    ],
)
def test_what_went_wrong_is_said_with_a_way_on(open_page: Open, answer: Callable[[Any], None], said: str) -> None:
    page = open_page("/?q=compress", routes={"**/v1/search": answer})
    alert = page.get_by_role("alert")
    alert.get_by_text(said).wait_for()
    page.unroute("**/v1/search")
    alert.get_by_role("button", name="Try again").click()
    results(page).first.wait_for()
    assert alert.inner_text() == ""


def test_the_details_of_a_problem_are_shown(open_page: Open) -> None:
    page = open_page("/?q=x&index=missing")
    alert = page.get_by_role("alert")
    alert.get_by_text("Not found").wait_for()
    assert "missing" in alert.inner_text()
    assert "Request " in alert.inner_text()


def test_a_key_is_asked_for_used_and_forgotten(open_page: Open) -> None:
    def guard(route: Any) -> None:
        known = route.request.headers.get("authorization") == "Bearer secret"
        route.continue_() if known else problem(401, "unauthorized")(route)

    page = open_page("/?q=compress", routes={"**/v1/*": guard})
    page.get_by_label("API key").fill("secret")
    page.get_by_label("API key").press("Enter")
    results(page).first.wait_for()
    page.reload()
    results(page).first.wait_for()
    page.get_by_role("button", name="Forget the API key").click()
    page.get_by_label("API key").wait_for()
    assert results(page).count() == 0


def test_a_page_of_results_that_is_gone_leaves_what_is_shown(open_page: Open) -> None:
    page = open_page("/?q=compress")
    results(page).nth(9).wait_for()
    page.get_by_role("link", name="book 8").wait_for(state="attached")
    page.route("**/v1/search", problem(410, "cursor-expired"))
    page.get_by_role("button", name="More results").click()
    page.get_by_role("alert").get_by_text("out of date").wait_for()
    assert results(page).count() == 10
    page.unroute("**/v1/search")
    page.get_by_role("button", name="Try again").click()
    status(page, "The best 10 results")


def test_a_service_that_is_away_is_asked_again_when_the_browser_is_online(open_page: Open) -> None:
    page = open_page("/?q=compress", routes={"**/v1/search": lambda route: route.abort()})
    page.get_by_role("alert").get_by_text("cannot be reached").wait_for()
    page.unroute("**/v1/search")
    page.evaluate("dispatchEvent(new Event('online'))")
    results(page).first.wait_for()
