"""What lasts, and in which order it is made to."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal import checkpoints as rooms
from shoal.checkpoints import LASTS, WORKERS, Checkpoints, lasts
from shoal.core.live import Live
from shoal.core.population import Population
from shoal.core.records import Finished, Trial
from shoal.durable import AtOnce, InThread, Later, boot, make_last
from shoal.stores.sqlite import SqliteStore
from tests.lab import experiment


@pytest.fixture
def synchronised(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were synchronised, in order."""
    paths: list[str] = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        paths.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", noting)
    return paths


def test_all_of_a_folder_lasts_and_its_name(tmp_path: Path, synchronised: list[str]) -> None:
    folder = tmp_path / "3" / "7"
    (folder / "deep").mkdir(parents=True)
    (folder / "model").write_text("x")
    (folder / "deep" / "more").write_text("x")
    (folder / "nowhere").symlink_to("gone")
    os.mkfifo(folder / "fifo")  # would wait for somebody for ever
    make_last(folder, tmp_path)
    told = [str(Path(path).relative_to(tmp_path)) for path in synchronised]
    assert set(told) == {"3/7/model", "3/7/deep/more", "3/7/deep", "3/7", "3", "."}
    assert told[-3:] == ["3/7", "3", "."], "a name after what it names"


@pytest.fixture(params=[AtOnce, InThread])
def later(request: pytest.FixtureRequest) -> Iterator[Later]:
    later = request.param()
    yield later
    later.close()


def test_it_is_done_in_order(later: Later) -> None:
    done: list[int] = []
    for number in range(100):
        later(lambda number=number: done.append(number))  # type: ignore[misc]
    later.flush()
    assert done == list(range(100))
    assert later.waiting == 0


def test_what_goes_wrong_is_heard_of_and_the_rest_is_done() -> None:
    later, done = InThread(), threading.Event()

    def full() -> None:
        raise OSError(28, "No space left on device")

    later(full)
    later(done.set)
    with pytest.raises(OSError, match="No space left"):
        later.flush()
    assert done.is_set()
    later.flush()
    later.close()


def test_who_gives_up_does_nothing_more() -> None:
    later, done = InThread(gives_up=True), threading.Event()

    def silent() -> None:
        raise TimeoutError("no answer for three minutes")

    later(silent)
    later(done.set)
    with pytest.raises(TimeoutError):
        later.flush()
    later(done.set)
    later.flush()
    later.close()
    assert not done.is_set()


def grown(root: Path, later: Later) -> tuple[Population, Checkpoints]:
    """A member with two steps, of which a worker has saved the first."""
    population = Population(1)
    kept = Checkpoints(root, population, later=later)
    kept.remade = True
    for id, parent in ((0, None), (1, 0)):
        population.apply(Trial(id, 0, id, {}, parent))
        population.apply(Finished(id, 0.0, saved=False))
    save(kept, 0)
    return population, kept


def save(kept: Checkpoints, id: int, machine: str | None = "another machine") -> None:
    folder = kept.save(kept.population.trials[id])
    folder.mkdir(parents=True)
    (folder / "model").write_text("x")
    (folder / WORKERS).write_text(f'{{"trial": {id}, "boot": "{machine}"}}')
    kept.published(id)


def test_the_new_lasts_before_the_old_is_deleted(
    tmp_path: Path, synchronised: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    deeds: list[str] = []
    monkeypatch.setattr(rooms, "remove", lambda folder: deeds.append(f"remove {folder.name}"))
    monkeypatch.setattr(rooms, "make_last", lambda folder, _: deeds.append(f"last {folder.name}"))
    later = InThread()
    _, kept = grown(tmp_path, later)
    kept.retain(Live({1}))
    later.flush()
    deeds.clear()
    save(kept, 1)
    kept.retain(kept.live)
    later.close()
    assert deeds == ["last 1", "last 1", "remove 0"], "itself, then the note that it lasts"


def test_what_is_gone_before_it_lasts_is_nobodys_trouble(tmp_path: Path) -> None:
    waiting, later = threading.Event(), InThread()

    def hold_up() -> None:
        waiting.wait()

    later(hold_up)
    population, kept = grown(tmp_path, later)
    rooms.remove(kept.save(population.trials[0]))
    waiting.set()
    later.flush()
    later.close()
    assert not kept.save(population.trials[0]).exists()
    with pytest.raises(FileNotFoundError):
        make_last(kept.save(population.trials[0]), tmp_path)


def test_after_a_power_cut_what_did_not_last_is_none(tmp_path: Path) -> None:
    class Never(AtOnce):
        def __call__(self, deed: object) -> None:
            """The power failed."""

    population, kept = grown(tmp_path, AtOnce())
    kept._later = Never()
    save(kept, 1)
    kept.retain(Live({1}))
    again = Checkpoints(tmp_path, population)
    assert again.way(1)[0] == 0, "made from what had lasted"
    assert not lasts(kept.save(population.trials[1]))
    assert lasts(kept.save(population.trials[0]))
    assert (kept.save(population.trials[0]) / LASTS).is_file()


def test_a_mere_kill_costs_nothing(tmp_path: Path) -> None:
    population, kept = grown(tmp_path, AtOnce())
    (kept.save(population.trials[0]) / LASTS).unlink()
    assert Checkpoints(tmp_path, population).way(1)[0] is None
    (kept.save(population.trials[0]) / WORKERS).write_text(f'{{"boot": "{boot()}"}}')
    assert Checkpoints(tmp_path, population).way(1)[0] == 0, "the machine was not down since"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"boot": null}', "\udcff"])
def test_what_says_nothing_does_not_last(tmp_path: Path, text: str) -> None:
    (tmp_path / WORKERS).write_text(text, errors="surrogateescape")
    assert not lasts(tmp_path)
    assert not lasts(tmp_path / "nothing")


def test_checkpoint_then_journal_then_deletion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deeds: list[tuple[str, str]] = []
    append, commit, pending = SqliteStore.append, SqliteStore.commit, list[str]()
    steps: dict[int, str] = {}

    def appending(store: SqliteStore, record: Any) -> None:
        append(store, record)
        if isinstance(record, Trial):
            steps[record.id] = f"{record.member}/{record.step}"
        elif isinstance(record, Finished):
            pending.append(steps[record.trial])

    def committing(store: SqliteStore) -> None:
        commit(store)
        deeds.extend(("journal", name) for name in pending)
        pending.clear()

    def name(folder: Path) -> str:
        return f"{folder.parent.name}/{folder.name}"

    remove = rooms.remove

    def making(folder: Path, root: Path) -> None:
        make_last(folder, root)
        deeds.append(("last", name(folder)))

    def removing(folder: Path) -> None:
        deeds.append(("remove", name(folder)))
        remove(folder)

    monkeypatch.setattr(SqliteStore, "append", appending)
    monkeypatch.setattr(SqliteStore, "commit", committing)
    monkeypatch.setattr(rooms, "make_last", making)
    monkeypatch.setattr(rooms, "remove", removing)
    shoal.run(experiment(tmp_path, steps=4), verbose=False)
    ended = [where for what, where in deeds if what == "journal"]
    assert len(ended) == 16
    for where in ended:
        assert deeds.index(("last", where)) < deeds.index(("journal", where))
    removed = [where for n, (what, where) in enumerate(deeds)
               if what == "remove" and ("journal", where) in deeds[:n]]  # fmt: skip
    assert len(removed) >= 8, "it deletes what nobody needs"


def test_a_checkpoint_that_cannot_be_written_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, root: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rooms, "make_last", full)
    result = shoal.run(experiment(tmp_path), verbose=False)
    assert result.state == "failed"
    error = result.trials()[0].error
    assert error is not None
    assert "bad files: its checkpoint could not be written to the disk" in error
    assert "No space left" in error
