"""Pictures of the page for the README: what `make demo` has trained, in headless Chromium.

python docs/screenshots.py HOME
"""

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.page import served
from tests.browser.conftest import FLAGS, PROGRAM

SHOTS = (("overview", "population", False), ("lineage", "lineage", True))  # view, picture, dark


def main() -> None:
    home, folder = Path(sys.argv[1]), Path(__file__).parent / "screenshots"
    folder.mkdir(exist_ok=True)
    with served(home) as (address, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=FLAGS)
        for tab, picture, dark in SHOTS:
            page = browser.new_page(
                viewport={"width": 1100, "height": 760}, color_scheme="dark" if dark else "light"
            )
            page.goto(address)
            page.get_by_role("row").nth(1).get_by_role("link").click()
            page.get_by_role("link", name=tab, exact=True).click()
            chart = page.locator(f"[data-picture={picture}]")
            chart.scroll_into_view_if_needed()
            chart.locator(".main-svg").first.wait_for()
            page.wait_for_timeout(300)  # the picture's own fading in
            chart.evaluate("(chart) => scrollTo(0, chart.offsetTop - 66)")
            page.screenshot(path=folder / f"{tab}.png")
        browser.close()


if __name__ == "__main__":
    main()
