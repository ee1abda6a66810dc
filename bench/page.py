"""What the page costs: to whoever looks, to the machine, and to the run that is looked at.

    python bench/page.py [--members N] [--steps N]

An experiment of 100 members and 1,000 steps is made (no training). Then, in headless Chromium
against the real server: how long until the page can be used, and how many bytes that took besides
plotly.js; how long until it shows a trial that has ended; the server's processor time with three
pages open while a trial ends every second; and `shoal report`. At last the same short run again and
again, in turns with and without a page that looks at it.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from playwright.sync_api import Page, Playwright, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.browser.conftest import FLAGS, PROGRAM
from tests.made import experiment, put

from shoal.core.records import Finished, Trial
from shoal.home import Folder, Lock
from shoal.result import Result
from shoal.stores.sqlite import SqliteStore

WATCHED_S = 20
RUNS = 6  # with and without a page
SEEN_S = 6  # after which a page has been seen
SLEEPY = """
import time
from shoal.trial import current
trial = current()
(trial.save / "x").write_text("x")
time.sleep(0.1)
trial.finish(trial.hparams["lr"])
"""


@contextmanager
def served(home: Path) -> Iterator[tuple[str, psutil.Process]]:
    """(address of the page of `home`, the process that serves it)."""
    command = [sys.executable, "-m", "shoal.cli.main", "ui", "--home", str(home), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    found = re.search(r"http://\S+", process.stderr.readline())
    assert found is not None
    try:
        yield found[0], psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


def cpu_s(process: psutil.Process) -> float:
    """The processor time that a process has had."""
    times = process.cpu_times()
    return times.user + times.system


def usable(playwright: Playwright, address: str) -> tuple[float, float]:
    """The seconds from the address until (anything, the first picture too) is seen.

    Of a Chromium that has just been started, and that nobody looks into meanwhile: with a debugger
    attached, plotly.js takes half a second longer.
    """
    assert PROGRAM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        own = ["--headless=new", "--window-size=1280,900", "--remote-debugging-port=0"]
        process = subprocess.Popen(
            [PROGRAM, *FLAGS, *own, f"--user-data-dir={profile}", address],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        found = next(filter(None, (re.search(r"ws://\S+", line) for line in process.stderr)))
        time.sleep(SEEN_S)
        browser = playwright.chromium.connect_over_cdp(found[0])
        page = browser.contexts[0].pages[0]
        (first,) = page.evaluate("performance.getEntriesByName('first-contentful-paint')")
        (picture,) = page.evaluate("performance.getEntriesByName('seen population')")
        browser.close()
        process.terminate()
        process.wait(20)
    return first["startTime"] / 1000, picture["startTime"] / 1000


def sizes(page: Page) -> Callable[[], int]:
    """Gives the bytes that have come over the wire since, for all but plotly.js."""
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    names: dict[str, str] = {}
    sizes: dict[str, int] = {}

    def asked(event: Any) -> None:
        names[event["requestId"]] = event["request"]["url"]

    def came(event: Any) -> None:
        sizes[event["requestId"]] = int(event["encodedDataLength"])

    session.on("Network.requestWillBeSent", asked)
    session.on("Network.loadingFinished", came)
    return lambda: sum(n for id, n in sizes.items() if "plotly.js" not in names.get(id, ""))


def update_s(page: Page, store: SqliteStore, trial: int, score: float) -> float:
    """The seconds from a trial's end to its score on the page."""
    put(store, Finished(trial, score), time.time())
    store.commit()
    began = time.perf_counter()
    page.get_by_role("region", name="members").get_by_text(f"{score}").first.wait_for()
    return time.perf_counter() - began


def live(result: Result, home: Path, pages: list[Page], population: int, steps: int) -> None:
    """How fast pages follow a run, and what that costs the server."""
    store = SqliteStore(result.folder.journal)
    hparams = {"lr": 0.1, "momentum": 0.5, "batch_size": 32}
    first = population * (steps - 1)
    for member in range(population):
        parent = population * (steps - 2) + member
        put(store, Trial(first + member, member, steps - 1, hparams, parent), time.time())
    store.commit()
    with Lock(result.folder), served(home) as (address, process):  # so it is one that runs
        for page, tab in zip(pages, ("members", "overview", "lineage"), strict=True):
            page.goto(f"{address}#/{result.id}/{tab}")
            page.get_by_role("navigation", name="views").wait_for()
        time.sleep(5)
        delays = []
        before, began = cpu_s(process), time.perf_counter()
        for n in range(WATCHED_S):
            delays.append(update_s(pages[0], store, first + n, 0.7000 + n / 1000))
            time.sleep(max(0.0, began + n + 1 - time.perf_counter()))
        share = (cpu_s(process) - before) / (time.perf_counter() - began)
    print(f"update on the page: median {median(delays):.2f} s, at most {max(delays):.2f} s")
    print(f"server, 3 pages open, a trial a second: {share:.1%} of a core")
    store.close()


def run_s(folder: Path, home: Path, look: Callable[[str], object]) -> float:
    """The seconds of a run of short steps, while somebody looks at it."""
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text(SLEEPY)
    config = {
        "command": "python3 train.py", "space": {"lr": {"float": [0.1, 1]}}, "population": 4,
        "steps": 40, "workers": 1,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    there = set(home.iterdir()) if home.exists() else set()
    command = [sys.executable, "-m", "shoal.cli.main", "run", str(folder / "config.json")]
    process = subprocess.Popen(
        [*command, "--home", str(home)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not (new := [p for p in set(home.glob("[!.]*")) - there if p.is_dir()]):
        time.sleep(0.05)
    look(new[0].name)
    process.wait()
    return Result(Folder(new[0])).seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--members", type=int, default=100)
    parser.add_argument("--steps", type=int, default=1000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as root, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=FLAGS)
        home = Path(root) / "home"
        total = given.members * given.steps
        whole = experiment(home, population=given.members, steps=given.steps, name="whole")
        with served(home) as (address, _):
            place = f"{address}#/{whole.id}/overview"
            for what in ("just started", "again", "again"):
                text, picture = usable(playwright, place)
                print(f"page of {total:,} trials, server {what}: {text:.2f}, {picture:.2f} s")
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            wire = sizes(page)
            page.goto(place)
            page.locator("[data-picture=schedule] .main-svg").first.wait_for()
            print(f"over the wire, besides plotly.js: {wire() / 1e6:.2f} MB")
            page.close()
        began = time.perf_counter()
        file = Path(root) / "report.html"
        command = [sys.executable, "-m", "shoal.cli.main", "report", whole.id, "--home", str(home)]
        subprocess.run([*command, "-o", str(file)], check=True, capture_output=True)
        took = time.perf_counter() - began
        print(f"shoal report: {took:.1f} s, {file.stat().st_size / 1e6:.1f} MB")
        part = experiment(
            home, population=given.members, steps=given.steps, name="part",
            until=given.members * (given.steps - 1),
        )  # fmt: skip
        pages = [browser.new_page(viewport={"width": 1280, "height": 900}) for _ in range(3)]
        live(part, home, pages, given.members, given.steps)
        alone, watched, cpu = [], [], 0.0
        other = Path(root) / "other"
        with served(other) as (address, process):
            page = pages[0]
            for n in range(RUNS):
                alone.append(run_s(Path(root) / f"run-{n}", other, lambda _: None))
                before = cpu_s(process)
                watched.append(
                    run_s(
                        Path(root) / f"run-{n}", other,
                        lambda name: page.goto(f"{address}#/{name}/overview"),
                    )
                )  # fmt: skip
                cpu += cpu_s(process) - before
                page.goto("about:blank")
        print(f"a run, watched against not: {median(watched) / median(alone):.3f} x")
        print(f"the server's share of a core in that: {cpu / sum(watched):.1%}")
        browser.close()


if __name__ == "__main__":
    main()
