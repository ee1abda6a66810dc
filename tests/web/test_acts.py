"""What the API has done: to real runs in processes of their own."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from shoal.home import Folder
from tests.cli.shell import Shell, eventually, write
from tests.cli.shell import running as held
from tests.made import experiment
from tests.web.conftest import Opened

Act = Callable[..., tuple[int, str]]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "home")


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


@pytest.fixture
def running(shell: Shell, gate: Path, tmp_path: Path) -> Iterator[Any]:
    """A run that waits for the gate in its step 1; its status."""
    with held(shell, tmp_path / "toy", gate) as status:
        yield status


def acting(client: TestClient, id: str) -> Act:
    """Has something done: (the code, what was said)."""
    headers = {"x-shoal-guard": client.get("/api/guard").json()["guard"]}

    def act(what: str, **body: Any) -> tuple[int, str]:
        got = client.post(f"/api/experiments/{id}/{what}", json=body, headers=headers)
        (said,) = got.json().values()
        return got.status_code, said

    return act


def test_a_run_is_steered(shell: Shell, running: Any, gate: Path, opened: Opened) -> None:
    client = opened(shell.home)
    act, at = acting(client, running["id"]), f"/api/experiments/{running['id']}"

    def now() -> Any:
        return client.get(at).json()

    assert now()["limits"] == {
        "steps": 3, "max_trials": None, "max_duration": None, "target": None, "workers": 2,
    }  # fmt: skip
    assert act("pause")[0] == 200
    eventually("that to be seen", lambda: now()["pausing"])
    assert now()["state"] == "running"
    assert act("resume") == (200, "It goes on.")
    eventually("that to be seen", lambda: not now()["pausing"])
    assert act("update", workers=3, max_duration="10m")[0] == 200
    eventually("that to be seen", lambda: now()["workers"] == 3)
    assert now()["limits"]["max_duration"] == 600.0
    assert act("pause")[0] == 200
    eventually("that to be taken", lambda: now()["pausing"])
    gate.touch()
    eventually("the pause", lambda: now()["state"] == "paused")
    assert act("resume", steps=4) == (200, "It goes on.")
    eventually("the end", lambda: now()["state"] == "done")
    assert now()["trials"]["finished"] == 16


@pytest.mark.parametrize("immediately", [True, False])
def test_a_run_is_stopped_and_resumed(
    shell: Shell, running: Any, gate: Path, opened: Opened, *, immediately: bool
) -> None:
    client = opened(shell.home)
    act, folder = acting(client, running["id"]), Folder(Path(running["folder"]))
    assert act("stop", now=immediately)[0] == 200
    if not immediately:
        eventually("that to be seen", lambda: "interrupted" in shell("log").stdout)
        gate.touch()
    eventually("the end", lambda: folder.holder() is None)
    gate.touch()
    assert shell.json("status")["state"] == "stopped"
    for what in ("stop", "pause"):
        assert act(what) == (409, f"experiment {running['id']} is not running: stopped")
    code, said = act("resume", workers=4)
    assert code == 200
    assert "It goes on: process " in said
    eventually("the end", lambda: shell.json("status")["state"] == "done")
    assert shell.json("status")["trials"]["finished"] == 12
    assert shell.json("status")["workers"] == 4


def test_who_cannot_go_on_says_why(shell: Shell, tmp_path: Path, opened: Opened) -> None:
    assert shell("run", write(tmp_path / "toy")).returncode == 0
    status = shell.json("status")
    act = acting(opened(shell.home), status["id"])
    with (Path(status["folder"]) / "journal.db").open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3000)
    code, said = act("resume")
    assert code == 409
    assert "cannot be read as a journal" in said


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "expected JSON"),
        (b"[" * 5000, "expected JSON"),
        (b"[3]", "expected an object, got [3]"),
        (b"{}", "nothing to change: expected one of steps, max_trials, "),
        (b'{"stepz": 3}', "unknown: 'stepz'; there is steps, max_trials, "),
        (b'{"steps": "3"}', "steps: expected a whole number, 1 or more"),
        (b'{"steps": null}', "steps: expected a whole number, 1 or more"),
        (b'{"steps": true}', "steps: expected a whole number, 1 or more"),
        (b'{"workers": 0}', "workers: expected a whole number, 1 or more"),
        (b'{"target": NaN}', "target: expected a number"),
        (b'{"max_duration": "soon"}', "max_duration: expected a time above 0"),
        (b"x" * 100_000, "longer than"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    shell: Shell, tmp_path: Path, opened: Opened, body: bytes, said: str
) -> None:
    result = experiment(shell.home, population=2, steps=2)
    client = opened(shell.home)
    headers = {"x-shoal-guard": client.get("/api/guard").json()["guard"]}
    got = client.post(f"/api/experiments/{result.id}/update", content=body, headers=headers)
    assert got.status_code == 400
    assert said in got.json()["error"]


def test_without_the_guard_nothing_is_done(shell: Shell, running: Any, opened: Opened) -> None:
    client = opened(shell.home)
    at = f"/api/experiments/{running['id']}"
    for what in ("stop", "pause", "resume", "update"):
        got = client.post(f"{at}/{what}", json={"steps": 9} if what == "update" else {})
        assert (got.status_code, "guard" in got.json()["error"]) == (403, True)
        assert client.get(f"{at}/{what}").status_code == 405, "and looking does nothing"
    assert not client.get(at).json()["pausing"]
    assert shell.json("status")["state"] == "running"
    assert "interrupted" not in shell("log").stdout
    assert not list((Path(running["folder"])).glob("orders/*"))
