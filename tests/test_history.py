"""The journal as columns: the same as the tables say, and as new records come."""

from pathlib import Path

import numpy as np
import pytest

from shoal.core.records import LOST, Failed, Finished, Record, Saved, Started, Trial
from shoal.history import FAILED, FINISHED, GONE, NOBODY, RUNNING, History, Reader, domains
from shoal.stores.sqlite import SqliteStore
from tests.made import experiment, put
from tests.plots.story import history_of


@pytest.mark.parametrize("synchronous", [True, False])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_it_says_what_the_tables_say(tmp_path: Path, mode: str, *, synchronous: bool) -> None:
    result = experiment(tmp_path, mode=mode, synchronous=synchronous, failing=0.1, population=6)
    history, rows = History.of(result), result.trials()
    assert len(history) == len(rows)
    assert history.member.tolist() == [row.member for row in rows]
    assert history.step.tolist() == [row.step for row in rows]
    assert [p if p != NOBODY else None for p in history.parent.tolist()] == [r.parent for r in rows]
    assert [None if np.isnan(x) else x for x in history.metric] == [row.metric for row in rows]
    assert history.started.tolist() == [row.started for row in rows]
    assert history.ended.tolist() == [row.ended for row in rows]
    assert history.values["lr"].tolist() == [row.hparams["lr"] for row in rows]
    sizes = history.labels["batch_size"]
    assert [int(sizes[int(x)]) for x in history.values["batch_size"]] == [
        row.hparams["batch_size"] for row in rows
    ]
    assert np.flatnonzero(history.copied).tolist() == sorted(result.copies(rows))
    assert result.best is not None
    assert history.lineage(history.best).tolist() == [row.id for row in result.best.lineage]
    assert history.founder.tolist() == [founder(history, id) for id in range(len(rows))]
    assert result.uncopied is not None
    assert history.uncopied == result.uncopied.id
    with result.folder.open() as store:
        for members, steps in ((range(2), 3), (range(2, 8), 9), (range(1, 2), 0)):
            assert history.top(members, steps) == store.top(members, steps)
    last: dict[int, int] = {}
    for row in rows:
        assert history.before[row.id] == last.get(row.member, NOBODY)
        assert history.grid[row.member, row.step] == row.id
        last[row.member] = row.id
    assert (history.state == FAILED).sum() == sum(row.state == "failed" for row in rows) > 0


def founder(history: History, id: int) -> int:
    return int(history.member[history.lineage(id)[0]])


def test_of_equals_the_first_is_the_best(tmp_path: Path) -> None:
    records: list[Record] = [
        Trial(0, 0, 0, {}, None),
        Trial(1, 1, 0, {}, None),
        Finished(1, 2.0),
        Finished(0, 2.0),
    ]
    assert history_of(tmp_path, records).best == 0


def test_of_nothing_there_is_nothing(tmp_path: Path) -> None:
    history = history_of(tmp_path, [])
    assert (len(history), history.steps, history.best, history.grid.shape) == (0, 0, None, (2, 0))
    assert history.lineage(None).tolist() == []


def test_what_comes_later_is_taken_in(tmp_path: Path) -> None:
    store = SqliteStore.create(tmp_path / "journal.db", {})
    reader = Reader(2, "metric", higher=True, space={"lr": {"float": [0, 1]}})
    assert not reader.read(store)

    put(store, Trial(0, 0, 0, {"lr": 0.5}, None), 10.0)
    store.commit()
    assert reader.read(store)
    assert reader.history().state.tolist() == [RUNNING]
    assert not reader.read(store)

    put(store, Started(0), 11.0)
    store.commit()
    assert reader.read(store)
    assert reader.history().started.tolist() == [11.0]
    assert not reader.read(store)

    put(store, Failed(0, LOST, "gone"), 12.0)
    store.commit()
    assert reader.read(store)
    assert reader.history().state.tolist() == [GONE]

    put(store, Trial(0, 0, 0, {"lr": 0.5}, None, attempt=2), 13.0)
    store.commit()
    assert reader.read(store)
    again = reader.history()
    assert again.state.tolist() == [RUNNING]
    assert np.isnan([again.started[0], again.ended[0]]).all()
    assert again.decided.tolist() == [10.0]

    put(store, Started(0, attempt=2), 14.0)
    put(store, Finished(0, 3.0, attempt=2), 15.0)
    put(store, Trial(1, 1, 0, {"lr": 0.25}, 0), 16.0)
    store.commit()
    assert reader.read(store)
    whole = reader.history()
    assert whole.state.tolist() == [FINISHED, RUNNING]
    assert (whole.started[0], whole.ended[0], whole.metric[0]) == (14.0, 15.0, 3.0)
    assert whole.values["lr"].tolist() == [0.5, 0.25]
    assert whole.copied.tolist() == [False, True]
    assert np.isnan(whole.saved).all()

    for at in (17.0, 18.0):
        put(store, Saved(0, at - 16.5), at)
        store.commit()
        assert reader.read(store)
        assert (reader.history().saved[0], reader.history().saving[0]) == (at, at - 16.5)
        assert not reader.read(store)
    store.close()


def test_nested_choices_are_laid_flat(tmp_path: Path) -> None:
    space = {
        "optimizer": {
            "choice": [
                {
                    "_name": "sgd", "lr": {"float": [0.1, 1.0], "log": True},
                    "nesterov": {"choice": [True, False]},
                },
                {"_name": "adam", "lr": {"float": [1e-4, 0.5], "log": True}},
                "none",
            ]
        },
        "size": {"int": [1, 8]},
        "noise": {"normal": [0.0, 1.0]},
        "depth": {"fixed": 3},
    }  # fmt: skip
    found = {domain.name: domain for domain in domains(space)}
    assert list(found) == [
        "optimizer", "optimizer.lr", "optimizer.nesterov", "size", "noise", "depth",
    ]  # fmt: skip
    lr = found["optimizer.lr"]
    assert (lr.numeric, lr.log, lr.low, lr.high) == (True, True, 1e-4, 1.0)
    assert found["optimizer"].options == ("sgd", "adam", "none")
    assert (found["noise"].low, found["noise"].high) == (None, None)
    assert found["depth"].fixed
    sgd, adam = {"_name": "sgd", "lr": 0.5, "nesterov": False}, {"_name": "adam", "lr": 0.25}
    rest = {"noise": 1.0, "depth": 3}
    trials = [
        Trial(0, 0, 0, {"optimizer": sgd, "size": 2, **rest}, None),
        Trial(1, 1, 0, {"optimizer": adam, "size": 3, **rest}, None),
        Trial(2, 0, 1, {"optimizer": "none", "size": 4, **rest}, 0),
    ]
    history = history_of(tmp_path, trials, space=space)
    assert history.values["optimizer"].tolist() == [0, 1, 2]
    assert history.values["optimizer.lr"].tolist()[:2] == [0.5, 0.25]
    assert np.isnan(history.values["optimizer.lr"][2])
    assert history.labels["optimizer.nesterov"] == ["true", "false"]
    assert history.values["optimizer.nesterov"][0] == 1
    assert history.values["size"].tolist() == [2, 3, 4]
