"""Runs steered from the page: real ones, in processes of their own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Windows
from tests.browser.test_page import served_to
from tests.cli.shell import Shell
from tests.cli.shell import running as held


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "home")


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


@pytest.fixture
def run(shell: Shell, gate: Path, tmp_path: Path) -> Iterator[Any]:
    """A run that waits for the gate in its step 1; its status."""
    with held(shell, tmp_path / "toy", gate) as status:
        yield status


@pytest.fixture
def page(shell: Shell, run: Any, window: Windows) -> Iterator[Page]:
    with served_to(window, shell.home) as site:
        page = window()
        page.goto(f"{site}#/{run['id']}")
        expect(state(page)).to_have_text("running")
        yield page


def state(page: Page) -> Locator:
    return page.locator("h1 .state")


def asked(page: Page, button: str) -> Locator:
    """The dialog that `button` opens."""
    page.get_by_role("button", name=button).click()
    return page.get_by_role("dialog")


def test_paused_changed_and_let_go_on(page: Page, shell: Shell, gate: Path) -> None:
    dialog = asked(page, "Pause")
    expect(dialog).to_contain_text("Pause toy?")
    dialog.get_by_role("button", name="Pause").click()
    expect(dialog).to_be_hidden()
    expect(page.locator("#told")).to_have_text("It pauses once what runs has ended.")
    expect(page.get_by_role("button", name="Go on")).to_be_visible()
    expect(page.locator("main")).to_contain_text("before it pauses")
    gate.touch()
    expect(state(page)).to_have_text("paused")
    dialog = asked(page, "Change")
    steps = dialog.get_by_label("steps of each member")
    expect(steps).to_have_value("3")
    steps.fill("4")
    dialog.get_by_label("trials at a time").fill("3")
    dialog.get_by_role("button", name="Change").click()
    expect(dialog).to_be_hidden()
    expect(page.locator("main")).to_contain_text("of 16 trials")
    asked(page, "Go on").get_by_role("button", name="Go on").click()
    expect(state(page)).to_have_text("done", timeout=60_000)
    now = shell.json("status")
    assert (now["trials"]["finished"], now["steps"], now["workers"]) == (16, 4, 3)


def test_stopped_by_keyboard_and_resumed(page: Page, shell: Shell, gate: Path) -> None:
    button = page.get_by_role("button", name="Stop")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(button).to_be_focused()
    assert shell.json("status")["state"] == "running", "nothing was done"
    page.keyboard.press("Enter")
    now = page.get_by_role("dialog").get_by_role("checkbox")
    expect(now).to_be_focused()
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(state(page)).to_have_text("stopped")
    gate.touch()
    asked(page, "Resume").get_by_role("button", name="Resume").click()
    expect(state(page)).to_have_text("done", timeout=60_000)
    assert shell.json("status")["trials"]["finished"] == 12


def test_what_cannot_be_done_is_told_where_it_was_asked_for(page: Page, window: Windows) -> None:
    dialog = asked(page, "Change")
    dialog.get_by_label("time, in all").fill("soon")
    with page.expect_response("**/update"):
        dialog.get_by_role("button", name="Change").click()
    expect(dialog.get_by_role("alert")).to_contain_text("max_duration: expected a time above 0")
    assert [error for error in window.errors if "400" not in error] == []
    window.errors.clear()  # browsers tell of each answer that is none
    dialog.get_by_label("time, in all").fill("10m")
    dialog.get_by_role("button", name="Change").click()
    expect(dialog).to_be_hidden()


def test_a_dialog_fits_a_phone(shell: Shell, run: Any, window: Windows) -> None:
    with served_to(window, shell.home) as site:
        page = window(phone=True, dark=True)
        page.goto(f"{site}#/{run['id']}")
        dialog = asked(page, "Change")
        box = dialog.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        dialog.get_by_role("button", name="Cancel").click()
        expect(dialog).to_have_count(0)
