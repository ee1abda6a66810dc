"""One suite for every store: what is appended and committed is there, in order, when reopened."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.core.records import LOST, Failed, Finished, Measured, Record, Started, Trial
from shoal.core.space import Float, Space
from shoal.core.tuner import Tuner
from shoal.stores.base import Store
from shoal.stores.memory import MemoryStore
from shoal.stores.sqlite import SCHEMA, SqliteStore, StoreError, Tally, decode, encode, reading
from tests.play import Luck, Play


def sqlite_store(folder: Path) -> SqliteStore:
    return SqliteStore.create(folder / "journal.db", {"id": "x"})


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
    else:
        with closing(sqlite_store(tmp_path)) as store:
            yield store


RECORDS: list[Record] = [
    Trial(0, 0, 0, {"lr": 1e-4, "layers": [1, 2], "opt": {"_name": "sgd", "m": 0.5}}, None),
    Trial(1, 1, 0, {"lr": 0.1, "layers": None, "opt": {"_name": "adam"}}, None),
    Finished(0, -0.25, {"loss": 0.25, "accuracy": 1.0}),
    Failed(1, "crash", "exit code 1\n  Traceback: ünïcödé"),
    Trial(1, 1, 0, {"lr": 0.1, "layers": None, "opt": {"_name": "adam"}}, None, attempt=2),
    Finished(1, 1e300, {}, saved=False, attempt=2),
    Trial(2, 0, 1, {"lr": 5e-324, "layers": True, "opt": "text"}, 1),
]


def test_what_was_committed_is_read_in_order(store: Store) -> None:
    for record in RECORDS:
        store.append(record)
    store.commit()
    assert [entry.record for entry in store.read()] == RECORDS
    times = [entry.at for entry in store.read()]
    assert times == sorted(times)


def test_who_goes_on_under_the_same_hyperparameters_shares_them(tmp_path: Path) -> None:
    with closing(sqlite_store(tmp_path)) as store:
        for step in range(3):
            store.append(Trial(step, 0, step, {"lr": 0.1 if step < 2 else 0.2}, None))
        store.commit()
        first, second, third = [r.hparams for r in store.records() if isinstance(r, Trial)]
    assert first is second, "a million trials are remembered, of whom most copied nobody"
    assert third == {"lr": 0.2}


def test_nothing_is_read_before_it_is_committed(store: Store) -> None:
    store.append(RECORDS[0])
    assert list(store.read()) == []
    store.commit()
    store.commit()
    assert len(list(store.read())) == 1


def test_what_is_measured_is_no_part_of_the_journal(store: Store) -> None:
    store.append(RECORDS[0])
    store.append(Started(0))
    store.append(Measured(0, 0, 0.5))
    store.commit()
    assert [entry.record for entry in store.read()] == RECORDS[:1]


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)  # fmt: skip
ids = st.integers(0, 2**40)
trials = st.builds(
    Trial, ids, ids, ids, st.dictionaries(st.text(), values, max_size=4), st.none() | ids,
    st.integers(1, 99),
)  # fmt: skip
finite = st.floats(allow_nan=False, allow_infinity=False)
finished = st.builds(
    Finished, ids, finite, st.dictionaries(st.text(), finite, max_size=3), st.booleans(), ids
)
failed = st.builds(Failed, ids, st.text(), st.text(), ids)


@given(st.lists(trials | finished | failed, max_size=5))
def test_any_record_comes_back_as_it_was(records: list[Record]) -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(SCHEMA)
        for record in records:
            db.execute(*encode(record, 1.5))
        rows = db.execute("SELECT * FROM journal ORDER BY seq").fetchall()
    assert [decode(row).record for row in rows] == records
    assert [repr(decode(row).record) for row in rows] == [repr(record) for record in records]


def test_what_decisions_need_is_read_faster(tmp_path: Path) -> None:
    store = SqliteStore.create(tmp_path / "journal.db", {})
    for record in RECORDS:
        store.append(record)
    store.commit()
    lean = [replace(r, metrics={}) if isinstance(r, Finished) else r for r in RECORDS]
    assert list(store.records()) == lean
    store.close()


def test_others_read_while_one_writes(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    writer = SqliteStore.create(path, {"id": "x"})
    count = (
        "import sys; from pathlib import Path; from shoal.stores.sqlite import SqliteStore\n"
        "print(len(list(SqliteStore(Path(sys.argv[1]), read_only=True).read())))"
    )
    for expected in (1, 2):
        writer.append(RECORDS[expected - 1])
        writer.commit()
        reader = subprocess.run(
            [sys.executable, "-c", count, str(path)], capture_output=True, text=True, check=True
        )
        assert reader.stdout.strip() == str(expected)
    writer.close()


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    sqlite_store(tmp_path).close()
    with reading(tmp_path / "journal.db") as reader:
        reader.append(RECORDS[0])
        with pytest.raises(StoreError, match="its disk is read-only, or it is not yours"):
            reader.commit()
        reader._pending.clear()


@pytest.mark.parametrize("content", [b"", b"this is text, and no database" * 100, b"\0" * 5000])
def test_what_is_no_journal_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"journal\.db (cannot be read as|is no) (a )?journal"):
        SqliteStore(path)


def test_a_missing_journal_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no journal at"):
        SqliteStore(tmp_path / "journal.db")
    assert list(tmp_path.iterdir()) == []


def test_a_journal_of_a_newer_shoal_is_refused(tmp_path: Path) -> None:
    SqliteStore.create(tmp_path / "journal.db", {}).close()
    db = sqlite3.connect(tmp_path / "journal.db")
    db.execute("UPDATE meta SET value = '99' WHERE key = 'version'")
    db.commit()
    db.close()
    with pytest.raises(StoreError, match="has format 99, this shoal reads format 1"):
        SqliteStore(tmp_path / "journal.db")


def test_sessions_tell_who_drove_it_and_how_it_ended(tmp_path: Path) -> None:
    store = SqliteStore.create(tmp_path / "journal.db", {})
    store.begin(11, "here")
    store.seen()
    store.commit()
    store.begin(12, "there")  # the first was killed
    store.end("done", "")
    first, second = store.sessions()
    assert (first.pid, first.outcome, first.ended) == (11, None, first.seen)
    assert (second.pid, second.host, second.outcome) == (12, "there", "done")
    store.close()


def test_the_log_is_read_from_where_one_left_off(tmp_path: Path) -> None:
    store = SqliteStore.create(tmp_path / "journal.db", {})
    for text in "abc":
        store.log("info", text)
    store.commit()
    assert [line.text for line in store.lines()] == ["a", "b", "c"]
    assert [line.text for line in store.lines(after=store.lines()[1].seq)] == ["c"]
    store.close()


def asked(store: SqliteStore, members: int) -> dict[str, object]:
    """What is asked of a journal without reading it all."""
    best = store.best()
    return {
        "tally": store.tally(),
        "best": best,
        "line": [] if best is None else store.ancestors(best),
        "newest": sorted(store.newest(members)),
        "starts": list(store.starts()),
    }


def counted(records: list[Record], members: int) -> dict[str, object]:
    """The same, counted by hand."""
    trials = {r.id: r for r in records if isinstance(r, Trial)}
    last = {r.id if isinstance(r, Trial) else r.trial: r for r in records}
    scores = {r.trial: r.score for r in records if isinstance(r, Finished)}
    best = max(scores, key=lambda trial: (scores[trial], -trial), default=None)
    line = [] if best is None else [best]
    while line and (parent := trials[line[-1]].parent) is not None:
        line.append(parent)
    newest = {trial.member: trial.id for trial in sorted(trials.values(), key=lambda t: t.id)}
    assert set(newest) <= set(range(members))
    return {
        "tally": Tally(
            trials=len(trials),
            finished=len(scores),
            failed=sum(isinstance(record, Failed) for record in last.values()),
            failures=any(isinstance(record, Failed) for record in records),
            best=max(scores.values(), default=None),
            least=min(scores.values(), default=None),
        ),
        "best": best,
        "line": line[::-1],
        "newest": sorted(newest.values()),
        "starts": [(t.id, t.member, t.parent, scores.get(t.id)) for t in trials.values()],
    }


@given(
    st.integers(1, 6), st.integers(1, 5), st.integers(1, 4), st.booleans(), st.integers(0, 10**6),
    st.integers(0, 80),
)  # fmt: skip
def test_what_is_asked_is_what_is_in_it(
    members: int, steps: int, slots: int, synchronous: bool, seed: int, limit: int
) -> None:
    tuner = Tuner(
        Space({"x": Float(0, 1)}), population=members, steps=steps, seed=seed,
        synchronous=synchronous,
    )  # fmt: skip
    outcome = Luck(seed, failing=0.3, levels=4)
    records = Play(tuner, outcome, slots, Random(seed)).run(limit).journal
    with (
        TemporaryDirectory() as folder,
        closing(SqliteStore.create(Path(folder) / "journal.db", {})) as store,
    ):
        for record in records:
            store.append(record)
        store.commit()
        expected = counted(records, members)
        assert asked(store, members) == expected
        some = [id for id in range(len(tuner.population.trials)) if id % 3 == seed % 3]
        read = [entry.record for entry in store.read_of(some)]
        ids = [r.id if isinstance(r, Trial) else r.trial for r in records]
        of = {id: [r for r, i in zip(records, ids, strict=True) if i == id] for id in some}
        assert read == [record for id in some for record in of[id]]
        # a journal of an older shoal has no index: what reads it makes do
        store._db.execute("DROP INDEX by_trial")
        with reading(Path(folder) / "journal.db") as old:
            assert asked(old, members) == expected
            assert [entry.record for entry in old.read_of(some)] == read
            assert len(list(old.read())) == len(records)


def test_when_attempts_began(tmp_path: Path) -> None:
    with closing(SqliteStore.create(tmp_path / "journal.db", {})) as store:
        for trial, attempt in ((0, 1), (1, 1), (1, 2)):
            store.append(Started(trial, attempt))
        store.commit()
        assert set(store.started()) == {(0, 1), (1, 1), (1, 2)}
        assert set(store.started([1, 7])) == {(1, 1), (1, 2)}


def test_what_was_lost_has_not_failed(tmp_path: Path) -> None:
    store = SqliteStore.create(tmp_path / "journal.db", {})
    for id, kind in enumerate((LOST, "crash", LOST)):
        store.append(Trial(id, id, 0, {}, None))
        store.append(Failed(id, kind, "as it happens"))
    store.append(Trial(2, 2, 0, {}, None, attempt=2))
    store.commit()
    tally = store.tally()
    assert (tally.trials, tally.failed, tally.failures) == (3, 1, True)
    store.close()
