"""The pictures of the search page in docs/, from a running `dupmae demo`.

    dupmae demo &
    python -m runs.screenshots http://localhost:8000

They show whatever fonts the machine has; the committed ones were drawn with Inter.
"""

import argparse
import io
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from playwright.sync_api import sync_playwright

DOCS = Path(__file__).parents[1] / "docs"
QUERY = "run a function every five seconds"
COLOURS = 256
"""Of a picture: text and a few bars need no more, and the file is half the size."""


class Picture(NamedTuple):
    """One picture and the screen it is taken from."""

    name: str
    width: int
    height: int
    scheme: str


PICTURES = (
    Picture("search.png", 1280, 860, "light"),
    Picture("search-dark.png", 1280, 860, "dark"),
    Picture("search-mobile.png", 390, 844, "light"),
)


def main() -> None:
    """Draw them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="where the demo answers, such as http://localhost:8000")
    address = parser.parse_args().address
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as session:
        browser = session.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for picture in PICTURES:
            size = _draw(browser, address, picture)
            print(f"{DOCS / picture.name}: {size:,} bytes")
        browser.close()


def _draw(browser: Any, address: str, picture: Picture) -> int:
    """Draw one picture, with the first score explained, and return its size in bytes."""
    page = browser.new_page(
        base_url=address, color_scheme=picture.scheme, viewport={"width": picture.width, "height": picture.height}
    )
    page.goto(f"/?q={QUERY.replace(' ', '+')}")
    page.locator("#filters li").first.wait_for(state="attached")
    page.get_by_role("button", name="Why this?").first.click()
    page.get_by_role("row", name="score").wait_for()
    page.mouse.move(0, 0)
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    page.close()
    target = DOCS / picture.name
    shot.quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
    return target.stat().st_size


if __name__ == "__main__":
    main()
