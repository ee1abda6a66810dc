"""What once went wrong on the page, tried in a browser."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from shoal.home import Lock
from tests.browser.conftest import Windows
from tests.browser.test_page import go, served_to
from tests.cli.shell import eventually
from tests.made import experiment


@contextmanager
def with_token(home: Path, token: str) -> Iterator[str]:
    """The address of a server at which a token is needed."""
    command = [sys.executable, "-m", "shoal.cli.main", "ui", "--home", str(home), "--port", "0"]
    command += ["--token", token]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        found = re.search(r"(http://\S+/)login", process.stderr.readline())
        assert found is not None
        yield found[1]
    finally:
        process.terminate()
        process.communicate(timeout=20)


def forgive(window: Windows, code: str) -> None:
    """Leave out of the errors what browsers tell of each answer that is none."""
    window.errors[:] = [error for error in window.errors if code not in error]


def test_the_form_lets_in_whoever_has_the_token(window: Windows, tmp_path: Path) -> None:
    experiment(tmp_path)
    with with_token(tmp_path, "right-token") as site:
        page = window()
        page.goto(site)
        expect(page).to_have_url(f"{site}login")
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button", name="Go on").click()
        expect(page.get_by_role("alert")).to_contain_text("not the token")
        page.get_by_label("Token").fill("right-token")
        page.get_by_role("button", name="Go on").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Experiments")
        forgive(window, "401")
        window.close()


@pytest.mark.parametrize("members", [1, 2])
def test_parallel_coordinates_of_a_small_run_are_drawn(
    window: Windows, tmp_path: Path, members: int
) -> None:
    result = experiment(tmp_path, population=members, steps=3)
    with served_to(window, tmp_path) as site:
        page = window()
        go(page, site, result, "lineage")
        for name in ("lineage", "parallel"):
            chart = page.locator(f"[data-picture={name}]")
            chart.scroll_into_view_if_needed()
            chart.locator(".main-svg").first.wait_for()
            expect(chart).not_to_have_attribute("aria-busy", "true")
            expect(chart).to_have_attribute("role", "group")


def test_a_trial_that_is_not_there_leaves_the_other_views(window: Windows, tmp_path: Path) -> None:
    result = experiment(tmp_path)
    with served_to(window, tmp_path) as site:
        page = window()
        go(page, site, result, "trial/99999")
        expect(page.get_by_role("alert")).to_contain_text("has no trial 99999")
        page.get_by_role("navigation", name="views").get_by_role("link", name="members").click()
        expect(page.get_by_role("region", name="members").locator("tbody tr")).to_have_count(8)
        expect(page.get_by_role("alert")).to_have_count(0)
        expect(page.get_by_role("heading", level=1)).to_have_text("made done")
        forgive(window, "404")


def test_back_shows_what_was_chosen_and_where_it_was(window: Windows, tmp_path: Path) -> None:
    for name in ("first", *(f"made {n}" for n in range(40))):
        result = experiment(tmp_path, name=name, population=2, steps=2)
    with served_to(window, tmp_path) as site:
        page = window()
        go(page, site, result, "trials")
        member = page.get_by_label("member")
        member.fill("1")
        member.press("Enter")
        rows = page.get_by_role("region", name="trials").locator("tbody tr")
        expect(rows).to_have_count(2)
        page.go_back()
        expect(rows).to_have_count(4)
        page.get_by_role("heading", level=1).click()  # else it is what is being typed
        page.go_forward()
        expect(rows).to_have_count(2)
        expect(member).to_have_value("1")
        page.go_back()
        expect(rows).to_have_count(4)
        expect(member).to_have_value("")
        page.goto(site)
        page.get_by_label("Search").fill("made")
        expect(page.get_by_role("row")).to_have_count(41)
        page.evaluate("scrollTo(0, 300)")
        page.evaluate("new Promise(requestAnimationFrame)")  # so that it was told
        page.get_by_role("link", name="made 20").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("made 20 done")
        page.go_back()
        expect(page.get_by_label("Search")).to_have_value("made")
        eventually("the list is where it was", lambda: page.evaluate("scrollY") == 300)


def test_a_long_log_begins_near_its_end(window: Windows, tmp_path: Path) -> None:
    result = experiment(tmp_path, until=8)
    file = result.folder.trial(0, 1) / "stdout"
    file.parent.mkdir(parents=True)
    with Lock(result.folder), file.open("w") as out:
        out.write("the first line\n")
        out.seek(2 * 10**9)
        out.write("\n" + "".join(f"line {n}\n" for n in range(20_000)))
        out.flush()
        with served_to(window, tmp_path) as site:
            page = window()
            go(page, site, result, "trial/0")
            stdout = page.get_by_label("stdout")
            expect(stdout).to_contain_text("line 19999")
            asked = [request for request in window.requests if "/stdout" in request]
            assert len(asked) < 20
            expect(stdout).not_to_contain_text("line 11000\n")
            page.get_by_role("button", name="earlier").first.click()
            expect(stdout).to_contain_text("line 11000")
            expect(stdout).to_contain_text("line 19999")


def test_the_bands_of_a_lineage_are_whole(window: Windows, tmp_path: Path) -> None:
    result = experiment(tmp_path, population=1, steps=3)
    with served_to(window, tmp_path) as site:
        page = window()
        go(page, site, result, "lineage")
        chart = page.locator("[data-picture=lineage]")
        chart.locator(".main-svg").first.wait_for()
        assert axis(page, "lineage") == [-0.5, 0.5]
        assert chart.locator(".ytick text").all_text_contents() == ["0"]


def axis(page: Page, name: str) -> list[float]:
    found: list[float] = page.evaluate(
        f"document.querySelector('[data-picture={name}]')._fullLayout.yaxis.range"
    )
    return found


def test_a_finished_run_says_that_nothing_is_left_to_do(window: Windows, tmp_path: Path) -> None:
    result = experiment(tmp_path, name="one")
    other = experiment(tmp_path, name="two")
    with served_to(window, tmp_path) as site:
        page = window()
        go(page, site, result)
        page.get_by_role("button", name="Resume").click()
        page.get_by_role("dialog").get_by_role("button", name="Resume").click()
        expect(page.locator("#told")).to_contain_text(
            "Nothing is left to do: all 96 trials have ended"
        )
        go(page, site, other)
        expect(page.get_by_role("heading", level=1)).to_have_text("two done")
        expect(page.locator("#told")).to_have_text("")


def test_a_change_that_cannot_be_is_refused_and_one_that_can_is_told(
    window: Windows, tmp_path: Path
) -> None:
    result = experiment(tmp_path)
    with served_to(window, tmp_path) as site:
        page = window()
        go(page, site, result)
        page.get_by_role("button", name="Change").click()
        dialog = page.get_by_role("dialog")
        for field, value, said in (
            ("steps of each member", "3", "steps: expected 12 or more"),
            ("trials at a time", "100000000", "workers: expected 1,000,000 or less"),
        ):
            before = dialog.get_by_label(field).input_value()
            dialog.get_by_label(field).fill(value)
            dialog.get_by_role("button", name="Change").click()
            expect(dialog.get_by_role("alert")).to_contain_text(said)
            dialog.get_by_label(field).fill(before)
        dialog.get_by_label("trials at a time").fill("50")
        dialog.get_by_role("button", name="Change").click()
        expect(page.locator("#told")).to_contain_text("workers 8 → 50; at most 8 trials run")
        forgive(window, "400")
