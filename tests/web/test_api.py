"""What the API answers: the same as `--json` gives, and errors that say what was expected."""

import csv
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from shoal.buckets import Upload
from shoal.checkpoints import leave_note
from shoal.plots import PICTURES
from shoal.plots.captions import CAPTIONS
from shoal.report import report
from shoal.result import Result
from shoal.stores.sqlite import SqliteStore
from tests.cli.shell import eventually
from tests.made import experiment
from tests.web.conftest import Opened


def test_the_list_is_that_of_the_command(client: TestClient, result: Result) -> None:
    assert client.get("/api/experiments").json() == [result.brief()]


def test_the_status_is_that_of_the_command(client: TestClient, result: Result) -> None:
    answer = client.get(f"/api/experiments/{result.id}").json()
    assert {key: answer[key] for key in result.status()} == result.status()
    assert len(answer["sentences"]) == 3


@pytest.mark.parametrize("state", ["done", "beginning", "empty", "asynchronous", "low"])
def test_what_is_kept_in_memory_is_what_is_read(tmp_path: Path, opened: Opened, state: str) -> None:
    states: dict[str, dict[str, Any]] = {
        "done": {}, "beginning": {"until": 11, "failing": 0.4}, "empty": {"until": 0},
        "asynchronous": {"synchronous": False, "failing": 0.1}, "low": {"mode": "min"},
    }  # fmt: skip
    result = experiment(tmp_path, **states[state])
    got = opened(tmp_path).get(f"/api/experiments/{result.id}").json()
    assert {key: got[key] for key in result.status()} == result.status()


def test_trials(client: TestClient, result: Result) -> None:
    rows = result.trials()

    def asked(**query: Any) -> list[int]:
        answer = client.get(f"/api/experiments/{result.id}/trials", params=query).json()
        return [row["id"] for row in answer["trials"]]

    copied = result.copies(rows)
    first = client.get(f"/api/experiments/{result.id}/trials", params={"size": 1}).json()
    assert first["total"] == len(rows)
    assert first["trials"] == [{**rows[0].json(), "copied": None}]
    assert asked(size=1000) == [row.id for row in rows]
    assert asked(member=3, size=1000) == [row.id for row in rows if row.member == 3]
    assert asked(step=2) == [row.id for row in rows if row.step == 2]
    assert asked(state="failed") == [row.id for row in rows if row.state == "failed"]
    assert asked(copied="true") == sorted(copied)
    known = [row for row in rows if row.metric is not None]
    best_first = sorted(known, key=lambda row: (-(row.metric or 0.0), row.id))
    assert asked(sort="metric", order="desc", size=5) == [row.id for row in best_first[:5]]
    everyone = asked(sort="metric", order="desc", size=1000)
    assert set(everyone[len(known) :]) == {row.id for row in rows if row.metric is None}
    assert asked(page=1, size=10) == list(range(10, 20))


def test_a_trial(client: TestClient, result: Result) -> None:
    (row,) = result.trials([9])
    got = client.get(f"/api/experiments/{result.id}/trials/9").json()
    assert {key: got[key] for key in row.json()} == row.json()
    assert len(got["intermediate"]) == 3
    for child in got["children"]:
        assert result.trials([child["id"]])[0].parent == 9


def test_members(client: TestClient, result: Result) -> None:
    got = client.get(f"/api/experiments/{result.id}/members").json()
    assert [one["member"] for one in got] == list(range(8))
    for one in got:
        mine = [r for r in result.trials() if r.member == one["member"]]
        known = [r.metric for r in mine if r.metric is not None]
        assert (one["trial"], one["metric"], one["best"]) == (mine[-1].id, known[-1], max(known))
        assert one["spark"] == pytest.approx(known, rel=1e-4)


def test_the_best_its_schedule_and_its_ancestors(client: TestClient, result: Result) -> None:
    at, best = f"/api/experiments/{result.id}", result.best
    assert best is not None
    assert client.get(f"{at}/schedule").json() == best.schedule
    assert client.get(f"{at}/lineage").json() == [row.json() for row in best.lineage]
    assert client.get(f"{at}/best").json() == {**best.lineage[-1].json(), "schedule": best.schedule}


def test_exploits_and_why(client: TestClient, result: Result) -> None:
    at, rows = f"/api/experiments/{result.id}", result.trials()
    got = client.get(f"{at}/exploits", params={"size": 1000}).json()
    copied = result.copies(rows)
    assert [one["trial"] for one in got["exploits"]] == sorted(copied, reverse=True)
    for one in got["exploits"]:
        assert one["failed"] == (rows[one["trial"]].metric is None)
    one = got["exploits"][0]
    why = client.get(f"{at}/explain", params={"member": one["member"], "step": one["step"]}).json()
    assert why["trial"] == one["trial"]
    assert why["what"] in {"copied", "was refilled"}
    assert client.get(f"{at}/explain", params={"member": 99, "step": 0}).status_code == 404


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(client: TestClient, result: Result, name: str) -> None:
    got = client.get(f"/api/experiments/{result.id}/plots/{name}")
    figure = PICTURES[name](result).update_layout(meta={"caption": CAPTIONS[name]})
    assert got.json() == json.loads(figure.to_json())


def test_downloads(client: TestClient, result: Result) -> None:
    at = f"/api/experiments/{result.id}"
    table = client.get(f"{at}/export.csv")
    assert "attachment" in table.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert [row["reward"] for row in rows] == [str(e["value"] or "") for e in result.export()]
    assert client.get(f"{at}/export.json").json() == result.export()
    assert client.get(f"{at}/report").text == report(result)


def test_checkpoints(tmp_path: Path, opened: Opened) -> None:
    result = experiment(tmp_path, population=2, steps=2)
    folder = result.checkpoints / "1" / "1"
    (folder / "inner").mkdir(parents=True)
    (folder / "model.pt").write_bytes(b"12345")
    (folder / "inner" / "more").write_bytes(b"1")
    (folder / "secret").symlink_to("/etc/passwd")
    (folder / "latest").symlink_to("model.pt")
    (folder / "folder").symlink_to("inner")
    client, at = opened(tmp_path), f"/api/experiments/{result.id}/checkpoints"
    got = client.get(at).json()
    (one,) = got["checkpoints"]
    assert (one["member"], one["step"], one["trial"]) == (1, 1, 3)
    assert one["why"]
    with tarfile.open(fileobj=io.BytesIO(client.get(f"{at}/1/1").content)) as archive:
        top, names = f"{result.id}-1-1/", archive.getnames()
        left_out = archive.extractfile(f"{top}LEFT-OUT.txt")
        assert left_out is not None
        assert left_out.read() == b"secret: a link to /etc/passwd, outside of it\n"
        assert archive.getmember(f"{top}latest").linkname == "model.pt"
        assert archive.getmember(f"{top}folder").linkname == "inner"
    assert {name.removeprefix(top) for name in names} == {
        "folder", "latest", "model.pt", "inner/more", "LEFT-OUT.txt",
    }  # fmt: skip
    assert client.get(f"{at}/0/0").status_code == 404
    leave_note(result.checkpoints / "0" / "1", Upload("x", {"model.pt": (7, ""), "y": (3, "")}))
    (away,) = [one for one in client.get(at).json()["checkpoints"] if one["member"] == 0]
    assert (away["files"], away["bytes"]) == (2, 10)
    assert "/0/1 only" in client.get(f"{at}/0/1").json()["error"]


def test_what_a_trial_prints(tmp_path: Path, opened: Opened) -> None:
    result = experiment(tmp_path)
    client, at = opened(tmp_path), f"/api/experiments/{result.id}/trials/4"
    assert client.get(f"{at}/stdout").text == ""
    folder = result.folder.trial(4, 1)
    folder.mkdir(parents=True)
    (folder / "stdout").write_bytes(b"one\n\xfftwo\n")
    got = client.get(f"{at}/stdout")
    assert (got.text, got.headers["x-next-offset"]) == ("one\n�two\n", "9")
    assert client.get(f"{at}/stdout", params={"offset": 4}).text == "�two\n"
    assert client.get(f"{at}/stdout/file").content == b"one\n\xfftwo\n"
    assert client.get(f"{at}/trial.json").status_code == 404


def test_what_is_new_is_answered(tmp_path: Path, opened: Opened, monkeypatch: Any) -> None:
    monkeypatch.setattr("shoal.web.followed.FRESH_S", 0.0)
    result = experiment(tmp_path, until=0)
    client, at = opened(tmp_path), f"/api/experiments/{result.id}"
    before = client.get(f"{at}/members")
    tag = {"if-none-match": before.headers["etag"]}
    assert client.get(f"{at}/members", headers=tag).status_code == 304
    store = SqliteStore(result.folder.journal)
    store.log("info", "something was said")
    store.close()
    again = client.get(f"{at}/log", headers=tag)
    assert again.status_code == 200
    assert [line["text"] for line in again.json()] == ["something was said"]
    seq = again.json()[0]["seq"]
    assert client.get(f"{at}/log", params={"after": seq}).json() == []


@pytest.mark.parametrize(
    ("path", "code", "said"),
    [
        ("/api/experiments/none", 404, "no experiment 'none'"),
        ("/api/experiments/%2e%2e", 404, ""),
        ("/api/experiments/..%2f..", 404, ""),
        ("{at}/trials?size=0", 400, "size: expected a whole number, 1 or more"),
        ("{at}/trials?sort=x", 400, "sort: expected one of id, member"),
        ("{at}/trials?member=1.5", 400, "member: expected a whole number"),
        ("{at}/trials?copied=maybe", 400, "copied: expected true or false"),
        ("{at}/trials/999999", 404, "has no trial 999999"),
        ("{at}/trials/x", 404, ""),
        ("{at}/plots/none", 404, "there are population, schedule"),
        ("{at}/explain?member=1", 400, "step is missing"),
        ("{at}/checkpoints/0/0", 404, "no checkpoint"),
        ("/api/nothing", 404, ""),
    ],
)
def test_errors_say_what_was_expected(
    client: TestClient, result: Result, path: str, code: int, said: str
) -> None:
    got = client.get(path.format(at=f"/api/experiments/{result.id}"))
    assert got.status_code == code
    if got.headers["content-type"] == "application/json":
        assert said in got.json()["error"]


def test_one_that_cannot_be_read_says_so(tmp_path: Path, opened: Opened) -> None:
    result = experiment(tmp_path)
    result.folder.journal.write_bytes(b"no journal at all, but of some length")
    for ending in ("-wal", "-shm"):
        result.folder.journal.with_name(f"journal.db{ending}").unlink(missing_ok=True)
    client = opened(tmp_path)
    assert client.get(f"/api/experiments/{result.id}").status_code == 409
    (brief,) = client.get("/api/experiments").json()
    assert brief["state"] == "unreadable"


def test_secrets_are_not_told(tmp_path: Path, opened: Opened) -> None:
    result = experiment(tmp_path, env={"API_KEY": "hush-hush"})
    client, at = opened(tmp_path), f"/api/experiments/{result.id}"
    for path in (at, f"{at}/config", f"{at}/report"):
        text = client.get(path).text
        assert "hush-hush" not in text
    assert client.get(f"{at}/config").json()["env"] == {"API_KEY": "..."}


def test_one_that_was_moved_is_gone(tmp_path: Path, opened: Opened) -> None:
    result = experiment(tmp_path)
    client = opened(tmp_path)
    assert client.get(f"/api/experiments/{result.id}").status_code == 200
    result.folder.path.rename(tmp_path / "moved")
    assert client.get(f"/api/experiments/{result.id}").status_code == 404
    assert client.get("/api/experiments/moved").status_code == 200


def test_a_journal_that_is_replaced_is_read_anew(tmp_path: Path, opened: Opened) -> None:
    before = experiment(tmp_path / "home", steps=6, failing=0.2)
    after = experiment(tmp_path / "other", steps=4)
    client = opened(tmp_path / "home")

    def shown() -> tuple[int, Any]:
        at = f"/api/experiments/{before.id}"
        return client.get(at).json()["trials"]["finished"], client.get(f"{at}/schedule").json()

    assert shown()[0] == before.progress.finished
    finished, best = after.progress.finished, after.best
    assert best is not None
    after.folder.journal.rename(before.folder.journal)  # as `shoal repair` does
    eventually("the other journal", lambda: shown()[0] == finished)
    assert shown()[1] == best.schedule
