"""Journal -> tables, on a journal small enough to be read."""

from dataclasses import replace

from shoal import views
from shoal.core.records import Failed, Finished, Record, Trial
from shoal.stores.base import Entry

# Three members, three steps. Member 2 copies member 0 at step 1; member 1 fails at step 1 and is
# refilled from member 0 at step 2; member 0 never copies.
RECORDS: list[Record] = [
    Trial(0, 0, 0, {"lr": 0.1}, None),
    Trial(1, 1, 0, {"lr": 0.2}, None),
    Trial(2, 2, 0, {"lr": 0.3}, None),
    Finished(0, 0.5),
    Finished(1, 0.4, {"loss": 2.0}),
    Finished(2, 0.1),
    Trial(3, 0, 1, {"lr": 0.1}, 0),
    Trial(4, 1, 1, {"lr": 0.2}, 1),
    Trial(5, 2, 1, {"lr": 0.12}, 0),
    Finished(3, 0.6),
    Failed(4, "crash", "exit code 1"),
    Trial(4, 1, 1, {"lr": 0.2}, 1, attempt=2),
    Failed(4, "crash", "exit code 1", attempt=2),
    Finished(5, 0.7),
    Trial(6, 0, 2, {"lr": 0.1}, 3),
    Trial(7, 1, 2, {"lr": 0.08}, 3),
    Trial(8, 2, 2, {"lr": 0.12}, 5),
    Finished(6, 0.65),
    Failed(7, "lost", "the machine went away"),
    Finished(8, 0.7),
]
ENTRIES = [Entry(100.0 + at, record) for at, record in enumerate(RECORDS)]


def rows(mode: str = "max", *, alive: bool = False) -> list[views.Row]:
    return views.table(ENTRIES, mode, alive=alive)


def test_a_table_has_every_trial_once() -> None:
    table = rows()
    assert [row.id for row in table] == list(range(9))
    assert [row.state for row in table] == [
        "finished", "finished", "finished", "finished", "failed", "finished", "finished",
        "interrupted", "finished",
    ]  # fmt: skip
    assert rows(alive=True)[7].state == "retrying"
    assert (table[4].attempt, table[4].error) == (2, "crash: exit code 1")
    assert (table[4].started, table[4].ended) == (111.0, 112.0)
    assert table[1].metrics == {"loss": 2.0}


def test_what_runs_without_a_controller_was_interrupted() -> None:
    cut = ENTRIES[:7]
    assert views.table(cut, "max", alive=True)[3].state == "running"
    assert views.table(cut, "max", alive=False)[3].state == "interrupted"


def test_a_minimised_metric_is_shown_as_it_was_reported() -> None:
    assert [row.metric for row in rows("min")][:3] == [-0.5, -0.4, -0.1]
    assert (
        str(views.table([ENTRIES[0], Entry(1.0, Finished(0, 0.0))], "min", alive=False)[0].metric)
        == "0.0"
    )


def test_a_table_of_some_trials() -> None:
    some = [entry for entry in ENTRIES if of(entry.record) in {4, 8}]
    assert views.table(some, "max", alive=False) == [row for row in rows() if row.id in {4, 8}]


def of(record: Record) -> int:
    return record.id if isinstance(record, Trial) else record.trial


def test_a_schedule_is_that_of_a_line() -> None:
    line = [rows()[id] for id in (0, 5, 8)]
    assert views.schedule(line) == [
        {"step": 0, "hparams": {"lr": 0.1}},
        {"step": 1, "hparams": {"lr": 0.12}},
        {"step": 2, "hparams": {"lr": 0.12}},
    ]


def test_who_copied_and_who_is_the_best_of_the_others() -> None:
    members = {row.id: row.member for row in rows()}
    assert views.copies(rows(), members) == {5: 0, 7: 0}
    scores = {r.trial: r.score for r in RECORDS if isinstance(r, Finished)}
    starts = [(row.id, row.member, row.parent, scores.get(row.id)) for row in rows()]
    assert views.uncopied(starts) == 6
    assert views.uncopied([]) is None


def test_the_step_is_the_lowest_that_is_yet_to_end() -> None:
    table = rows()
    assert views.step(table[6:], 3) == 2, "member 1 has yet to end step 2"
    assert views.step(table[6:], 4) == 0, "member 3 has not begun"
    assert views.step([table[8]], 0) == 0


def test_the_total_is_that_of_the_tighter_limit() -> None:
    assert views.total(None, None, 8) is None
    assert views.total(5, None, 8) == 40
    assert views.total(None, 42, 8) == 42
    assert views.total(5, 42, 8) == 40
    assert views.total(5, 30, 8) == 30


def test_an_export_has_nnis_columns_and_five_more() -> None:
    told = [replace(row, intermediate=[0.1, 0.2]) if row.id == 5 else row for row in rows()]
    exported = views.export(told)
    assert exported[5] == {
        "parameter": {"lr": 0.12, "load_checkpoint_dir": "0/0", "save_checkpoint_dir": "2/1"},
        "value": 0.7,
        "trialJobId": "00005",
        "intermediate": [0.1, 0.2],
        "member": 2,
        "step": 1,
        "parent": 0,
        "state": "finished",
        "metrics": {},
    }
    assert exported[0]["parameter"]["load_checkpoint_dir"] == "0/0", "as at step 0 in NNI"
    assert exported[4]["value"] is None
    flat = views.columns(exported, ["lr"])
    assert list(flat[5]) == [
        "lr", "load_checkpoint_dir", "save_checkpoint_dir", "reward", "trialJobId", "member",
        "step", "parent", "state",
    ]  # fmt: skip


def test_json_has_the_documented_keys() -> None:
    assert list(rows()[5].json()) == [
        "id", "member", "step", "hparams", "parent", "state", "metric", "checkpoint", "attempt",
        "started", "ended", "error", "metrics", "intermediate",
    ]  # fmt: skip
    assert rows()[5].json()["started"] == "1970-01-01T00:01:48.000+00:00"
