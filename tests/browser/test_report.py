"""The report, opened from the disk."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from shoal.plots import PICTURES
from shoal.report import report
from tests.browser.conftest import Windows
from tests.made import experiment


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    path.write_text(report(experiment(tmp_path, failing=0.05)))
    return path


def drawn(page: Page) -> int:
    """How many pictures are drawn after all were scrolled to."""
    charts = page.locator(".chart")
    for n in range(charts.count()):
        charts.nth(n).scroll_into_view_if_needed()
        charts.nth(n).locator(".main-svg").first.wait_for()
    return charts.count()


def test_it_draws_itself_without_a_network(window: Windows, file: Path) -> None:
    page = window()
    page.goto(file.as_uri())
    assert drawn(page) == len(PICTURES)
    assert window.requests == [file.as_uri()]
    lines = page.locator(".chart").first.evaluate("(chart) => chart.data.map((line) => line.name)")
    assert "the winner's ancestry" in lines


def test_a_phone_in_the_dark(window: Windows, file: Path) -> None:
    page = window(phone=True, dark=True)
    page.goto(file.as_uri())
    drawn(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    colour = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(colour) == "rgb(20, 23, 28)"
    title = page.locator(".chart .gtitle").first
    expect(title).to_have_css("fill", "rgb(230, 233, 237)")
    page.emulate_media(color_scheme="light")
    expect(title).to_have_css("fill", "rgb(28, 33, 40)")


def test_lines_are_selected_by_a_box_over_an_axis(window: Windows, file: Path) -> None:
    page = window()
    page.goto(file.as_uri())
    chart = page.locator(".chart[data-figure=figure-parallel]")
    chart.scroll_into_view_if_needed()
    area = chart.locator(".nsewdrag").bounding_box()
    assert area is not None
    # the last axis is the gain: its upper half
    x, y = area["x"] + area["width"] * 0.93, area["y"]
    page.mouse.move(x - 15, y + 2)
    page.mouse.down()
    page.mouse.move(x + 30, y + area["height"] / 2, steps=5)
    page.mouse.up()
    expect(chart).to_have_attribute("data-lines", re.compile(r"[1-9]\d*"))
    count = int(chart.get_attribute("data-lines") or 0)
    assert 0 < count < 88
    page.mouse.dblclick(area["x"] + 5, y + 5)
    expect(chart).to_have_attribute("data-lines", "")


def test_the_schedule_is_copied(window: Windows, file: Path) -> None:
    page = window(permissions=["clipboard-read", "clipboard-write"])
    page.goto(file.as_uri())
    page.get_by_role("button", name="Copy as JSON").click()
    page.get_by_role("button", name="Copied").wait_for()
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert [part["step"] for part in copied] == list(range(12))


def test_names_are_text(window: Windows, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
    space = {evil: {"choice": [evil, "b"]}, "lr": {"float": [0.1, 1.0]}}
    file = tmp_path / "report.html"
    file.write_text(report(experiment(tmp_path, name=evil, space=space, metric=evil)))
    page = window()
    page.on("dialog", lambda _: window.errors.append("an alert"))
    page.goto(file.as_uri())
    assert drawn(page) == len(PICTURES)
    assert page.locator("img[src=x]").count() == 0
    assert page.locator("h1").inner_text().startswith(evil)
    assert page.locator("th", has_text=evil).count() == 1


def test_all_pictures_are_printed(window: Windows, file: Path) -> None:
    page = window()
    page.goto(file.as_uri())
    charts = page.locator(".chart")
    assert page.locator(".chart .main-svg").count() < charts.count(), "those in view are drawn"
    page.pdf()
    for chart in charts.all():
        assert chart.locator(".main-svg").count() > 0
