"""The page, driven as its users do."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from shoal.core.records import Finished, Trial
from shoal.home import Lock
from shoal.result import Result
from shoal.stores.sqlite import SqliteStore
from tests.browser.conftest import Windows
from tests.made import experiment, put


@contextmanager
def served(home: Path, port: int = 0) -> Iterator[str]:
    """The address of the page of `home`, served by the real command."""
    command = [sys.executable, "-m", "shoal.cli.main", "ui", "--home", str(home)]
    process = subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        found = re.search(r"http://\S+", said)
        assert found is not None, said + process.stderr.read()
        yield found[0]
    finally:
        process.terminate()
        process.communicate(timeout=20)


@contextmanager
def served_to(window: Windows, home: Path, port: int = 0) -> Iterator[str]:
    """As `served`; the windows are closed before the server ends: they would say that it has."""
    with served(home, port) as address:
        yield address
        window.close()


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return experiment(tmp_path_factory.mktemp("page") / "home", failing=0.1)


@pytest.fixture(scope="module")
def site(result: Result) -> Iterator[str]:
    with served(result.folder.path.parent) as address:
        yield address


def go(page: Page, site: str, result: Result, where: str = "overview") -> None:
    page.goto(f"{site}#/{result.id}/{where}")
    page.get_by_role("navigation", name="views").wait_for()


def test_the_list_leads_to_an_experiment(window: Windows, site: str, result: Result) -> None:
    page = window()
    page.goto(site)
    row = page.get_by_role("row").nth(1)
    expect(row).to_contain_text(result.id)
    expect(row).to_contain_text("done")
    page.get_by_label("Search").fill("nothing like it")
    expect(page.get_by_text("None is called that.")).to_be_visible()
    page.get_by_label("Search").fill("made")
    page.get_by_role("link", name="made").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("made done")
    expect(page.get_by_text("The best metric is")).to_be_visible()
    for name in ("population", "schedule"):
        chart = page.locator(f"[data-picture={name}]")
        chart.scroll_into_view_if_needed()
        chart.locator(".main-svg").first.wait_for()


def test_every_view_shows_itself(window: Windows, site: str, result: Result) -> None:
    page = window()
    go(page, site, result)
    tabs = page.get_by_role("navigation", name="views").get_by_role("link")
    for name in tabs.all_inner_texts():
        page.get_by_role("link", name=name, exact=True).click()
        current = page.locator("nav a[aria-current=page]")
        expect(current).to_have_text(name)
        expect(page.locator("main > div:last-child > *").first).to_be_visible()
    assert f"#/{result.id}/settings" in page.url


def test_lineage_is_drawn(window: Windows, site: str, result: Result) -> None:
    page = window()
    go(page, site, result, "lineage")
    charts = page.locator(".chart")
    expect(charts).to_have_count(6)
    for n in range(6):
        charts.nth(n).scroll_into_view_if_needed()
        charts.nth(n).locator(".main-svg").first.wait_for()


def test_trials_are_sorted_filtered_and_turned(window: Windows, site: str, result: Result) -> None:
    page = window()
    go(page, site, result, "trials")
    rows = page.get_by_role("region", name="trials").locator("tbody tr")
    expect(rows).to_have_count(50)
    page.get_by_role("button", name="After").click()
    expect(page.get_by_text("page 2 of")).to_be_visible()
    page.get_by_role("button", name="metric").click()
    page.get_by_role("button", name="metric").click()
    assert result.best is not None
    expect(rows.first.locator("td").first).to_have_text(str(result.best.lineage[-1].id))
    expect(page.get_by_role("columnheader", name="metric")).to_have_attribute(
        "aria-sort", "descending"
    )
    failed = sum(row.state == "failed" for row in result.trials())
    page.get_by_label("state").select_option("failed")
    expect(rows).to_have_count(failed)
    # the address holds the view
    other = window()
    other.goto(page.url)
    expect(other.get_by_role("region", name="trials").locator("tbody tr")).to_have_count(failed)
    page.go_back()
    expect(rows).to_have_count(50)


def test_why_a_member_was_replaced(window: Windows, site: str, result: Result) -> None:
    page = window()
    go(page, site, result, "copies")
    page.get_by_role("link", name="why?").first.click()
    expect(page.get_by_role("heading", level=2)).to_contain_text(re.compile("copied|refilled"))
    expect(page.get_by_role("region", name="compared")).to_contain_text("donor")


def test_a_trial_ends_and_the_page_knows(window: Windows, tmp_path: Path) -> None:
    result = experiment(tmp_path, until=0)
    store = SqliteStore(result.folder.journal)
    hparams = {"lr": 0.1, "momentum": 0.5, "batch_size": 32}
    put(store, Trial(0, 0, 0, hparams, None), time.time())
    store.commit()
    with served_to(window, tmp_path) as site:
        page = window()
        go(page, site, result, "members")
        members = page.get_by_role("region", name="members").locator("tbody tr")
        expect(members).to_have_count(8)
        put(store, Finished(0, 0.875), time.time())
        store.commit()
        began = time.monotonic()
        expect(members.first).to_contain_text("0.875")
        took = time.monotonic() - began
        print(f"shown after {took:.2f} s")
        expect(page).to_have_title("made: 1 trials")
    store.close()


def test_what_a_trial_prints_is_followed(window: Windows, tmp_path: Path) -> None:
    result = experiment(tmp_path, until=0)
    store = SqliteStore(result.folder.journal)
    put(store, Trial(0, 0, 0, {"lr": 0.1, "momentum": 0.5, "batch_size": 32}, None), time.time())
    store.close()
    folder = result.folder.trial(0, 1)
    folder.mkdir(parents=True)
    with (
        (folder / "stdout").open("w") as file,
        Lock(result.folder),  # so it is one that runs
        served_to(window, tmp_path) as site,
    ):
        file.write("first <b>line</b>\n")
        file.flush()
        page = window()
        go(page, site, result, "trial/0")
        stdout = page.get_by_label("stdout")
        expect(stdout).to_have_text("first <b>line</b>")
        file.write("second line\n")
        file.flush()
        expect(stdout).to_contain_text("second line")
        with page.expect_download() as download:
            page.get_by_role("link", name="download").first.click()
        assert Path(download.value.path()).read_text() == "first <b>line</b>\nsecond line\n"


def test_a_server_that_is_started_again_is_found(window: Windows, tmp_path: Path) -> None:
    result = experiment(tmp_path)
    page = window()
    with served(tmp_path) as site:
        port = int(site.rstrip("/").rpartition(":")[2])
        go(page, site, result, "members")
        expect(page.locator("#link")).to_have_text("live")
    expect(page.locator("#link")).to_contain_text("disconnected")
    window.errors.clear()  # that nobody answers is told by the browser, too
    with served_to(window, tmp_path, port):
        expect(page.locator("#link")).to_have_text("live", timeout=20_000)
        window.errors.clear()
        other = window()
        go(other, site, result)
        expect(other.get_by_text("The best metric is")).to_be_visible()


def test_the_keyboard_will_do(window: Windows, site: str, result: Result) -> None:
    page = window()
    page.goto(site)
    page.get_by_role("link", name="made").wait_for()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "made":
            break
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(result.id))


@pytest.mark.parametrize("where", ["overview", "lineage", "members", "trials", "copies", "trial/3"])
def test_a_phone_in_the_dark(window: Windows, site: str, result: Result, where: str) -> None:
    page = window(phone=True, dark=True)
    go(page, site, result, where)
    expect(page.locator("main > div:last-child > *").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    expect(page.locator("body")).to_have_css("background-color", "rgb(20, 23, 28)")


def test_names_are_text(window: Windows, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    space = {evil: {"choice": [evil, "b"]}, "lr": {"float": [0.1, 1.0]}}
    result = experiment(tmp_path, name=evil, space=space)
    store = SqliteStore(result.folder.journal)
    store.log("warning", evil)
    store.close()
    page = window()
    page.on("dialog", lambda _: window.errors.append("an alert"))
    with served_to(window, tmp_path) as site:
        page.goto(site)
        expect(page.get_by_role("link", name=evil)).to_be_visible()
        for where in ("overview", "trials", "copies", "log", "trial/3", "settings"):
            go(page, site, result, where)
            expect(page.get_by_text(evil).first).to_be_visible()
            assert page.locator("img[src=x]").count() == 0


def test_what_is_not_there_is_said(window: Windows, site: str) -> None:
    page = window()
    page.goto(f"{site}#/nothing")
    expect(page.get_by_role("alert")).to_contain_text("no experiment 'nothing'")
    window.errors.clear()  # a 404, and a stream that is none


def test_an_empty_home_says_what_to_do(window: Windows, tmp_path: Path) -> None:
    with served_to(window, tmp_path) as site:
        page = window()
        page.goto(site)
        expect(page.get_by_text("There is no experiment yet")).to_be_visible()


def test_the_api_can_be_read_and_tried(window: Windows, site: str, result: Result) -> None:
    page = window(phone=True)
    page.goto(site)
    page.get_by_role("link", name="API").click()
    asked = page.locator("details[data-path='/api/experiments/{id}/trials']")
    asked.locator("summary").click()
    expect(asked).to_contain_text("running | finished | failed | lost")
    asked.get_by_label("id", exact=True).fill(result.id)
    asked.get_by_label("member").fill("3")
    asked.get_by_role("button", name="Ask").click()
    answer = asked.get_by_label("answer of")
    expect(answer).to_contain_text("200")
    expect(answer).to_contain_text(f'"total": {sum(row.member == 3 for row in result.trials())}')
    expect(asked.get_by_role("link")).to_have_attribute(
        "href", f"api/experiments/{result.id}/trials?member=3"
    )
    update = page.locator("details[data-path='/api/experiments/{id}/update']")
    update.locator("summary").click()
    expect(update).to_contain_text("max_duration")
    expect(update.get_by_role("button")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
