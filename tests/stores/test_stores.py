"""One suite for every store: what is appended and committed is there, in order, when reopened."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.core.records import Failed, Finished, Measured, Record, Started, Trial
from shoal.stores.base import Store
from shoal.stores.memory import MemoryStore
from shoal.stores.sqlite import SqliteStore, StoreError, decode, encode

Make = Callable[[Path], Store]


def sqlite_store(folder: Path) -> Store:
    path = folder / "journal.db"
    return SqliteStore(path) if path.exists() else SqliteStore.create(path, {"id": "x"})


@pytest.fixture(params=[lambda _: MemoryStore(), sqlite_store], ids=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    make: Make = request.param
    return make(tmp_path)


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
    db = sqlite3.connect(":memory:")
    from shoal.stores.sqlite import SCHEMA  # noqa: PLC0415

    db.executescript(SCHEMA)
    for record in records:
        db.execute(*encode(record, 1.5))
    rows = db.execute("SELECT * FROM journal ORDER BY seq").fetchall()
    db.close()
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
    sqlite_store(tmp_path)
    reader = SqliteStore(tmp_path / "journal.db", read_only=True)
    reader.append(RECORDS[0])
    with pytest.raises(StoreError, match="its disk is read-only, or it is not yours"):
        reader.commit()


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
