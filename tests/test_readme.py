"""What README.md and docs/ show, run as they show it; and what they point to, there."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from shoal.cli.main import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "bench" / "README.md"]
README = PAGES[0].read_text()


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The README's own example, written by its own blocks."""
    folder = tmp_path_factory.mktemp("readme")
    for block in blocks(README, "python") + blocks(README, "yaml"):
        if (name := re.match(r"# (\S+\.(?:py|yml))\n", block)) is not None:
            (folder / name[1]).write_text(block)
    return folder


def run(folder: Path, *argv: str) -> str:
    ours = {"SHOAL_HOME": str(folder / "home")}
    ours["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        argv,
        cwd=folder,
        env=os.environ | ours,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, f"{argv}: {ended.stdout}{ended.stderr}"
    return ended.stdout


def test_the_commands_of_the_readme_run(folder: Path) -> None:
    (shown,) = blocks(README, "sh")
    lines = [line.split("#")[0].strip() for line in shown.splitlines()]
    assert len(lines) == 4
    for line in lines:
        assert run(folder, "bash", "-c", line)


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_python_of_a_page_runs(folder: Path, page: str) -> None:
    shown = [b for b in blocks((ROOT / page).read_text(), "python") if "# train.py" not in b]
    assert shown
    for code in shown:
        if "import torch" in code and find_spec("torch") is None:
            continue
        context = "" if "import " in code else "import shoal\n"
        printed = run(folder, sys.executable, "-c", context + code)
        assert printed or "print" not in code


def test_the_loop_of_ones_own_has_ten_lines_and_learns(folder: Path) -> None:
    loop = blocks((ROOT / "docs" / "python.md").read_text(), "python")[-1]
    lines = loop[loop.index("tuner = ") :].splitlines()
    assert len(lines) <= 10
    best = float(run(folder, sys.executable, "-c", loop).split()[0])
    assert best > -0.5, "starts at -9"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in headings}
            assert anchor in anchors, f"{page.name}: {target}"


def test_the_commands_named_exist() -> None:
    named = set(re.findall(r"`shoal ([a-z]+)", README))
    assert named <= set(cli.commands), named - set(cli.commands)
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"\bmake (demo|test|check|bench)\b", README):
        assert f"\n{target}: " in makefile
    for command, option in re.findall(r"`shoal ([a-z]+)[^`]*?(--[a-z-]+)", README):
        options = [name for param in cli.commands[command].params for name in param.opts]
        assert option in options, f"shoal {command} {option}"
