"""Checkpoints are kept by who can still need them, and a folder is one experiment's."""

import fcntl
import os
from pathlib import Path

import pytest

import shoal
from shoal import checkpoints
from shoal.checkpoints import (
    OWNER,
    CheckpointError,
    Checkpoints,
    Keep,
    claim,
    owner_of,
    release,
    saved,
)
from shoal.core.live import Live
from shoal.core.population import Population
from shoal.core.records import Finished, Trial
from tests.lab import TOY, experiment


def grown(root: Path, keep: Keep) -> tuple[Population, Checkpoints]:
    """Two members, three steps; at step 2 member 1 goes on from member 0."""
    population = Population(2)
    kept = Checkpoints(root, population, keep)
    for id, (member, step, parent) in enumerate(
        [(0, 0, None), (1, 0, None), (0, 1, 0), (1, 1, 1), (0, 2, 2), (1, 2, 2)]
    ):
        trial = Trial(id, member, step, {}, parent)
        population.apply(trial)
        kept.prepare(trial)
        kept.save(trial).mkdir()
        (kept.save(trial) / "model").write_text(str(id))
        population.apply(Finished(id, float(id)))
    return population, kept


def there(root: Path) -> set[str]:
    return {f"{path.parent.name}/{path.name}" for path in root.glob("*/*") if path.is_dir()}


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        ("live", {"0/2", "1/2"}),
        ("lineage", {"0/2", "1/2", "0/1", "0/0"}),
        ("all", {"0/0", "1/0", "0/1", "1/1", "0/2", "1/2"}),
    ],
)
def test_what_is_kept(tmp_path: Path, keep: Keep, left: set[str]) -> None:
    _, kept = grown(tmp_path, keep)
    kept.retain(Live({4, 5}))
    assert there(tmp_path) == left


def test_a_resumed_run_forgets_what_its_forerunner_left(tmp_path: Path) -> None:
    population, _ = grown(tmp_path, "live")
    Checkpoints(tmp_path, population, "live").retain(Live({4, 5}))
    assert there(tmp_path) == {"0/2", "1/2"}


def test_a_running_trial_keeps_its_own_folder(tmp_path: Path) -> None:
    population, kept = grown(tmp_path, "live")
    trial = Trial(6, 0, 3, {}, 4)
    population.apply(trial)
    kept.prepare(trial)
    kept.save(trial).mkdir()
    kept.retain(Live({4, 6}))
    assert there(tmp_path) == {"0/2", "0/3"}


def test_a_trial_that_is_prepared_finds_nothing(tmp_path: Path) -> None:
    population, kept = grown(tmp_path, "live")
    kept.prepare(population.trials[3])
    assert not kept.save(population.trials[3]).exists()


def test_lost_is_what_was_saved_and_is_gone(tmp_path: Path) -> None:
    population, kept = grown(tmp_path, "live")
    assert not kept.lost(population.trials[4])
    (tmp_path / "0" / "1" / "model").unlink()
    assert kept.lost(population.trials[4])
    population.unsaved.add(2)  # it had never saved anything
    assert not kept.lost(population.trials[4])
    assert not kept.lost(population.trials[0])


HOME = Path("/experiments")


def new(root: Path, experiment: str = "mine", *, there: bool = True) -> None:
    claim(root, experiment, HOME, lambda home, _: there and home == HOME, new=True)


def again(root: Path, experiment: str = "mine") -> None:
    claim(root, experiment, HOME, lambda *_: True, new=False)


def test_a_folder_is_one_experiments(tmp_path: Path) -> None:
    new(tmp_path / "c")
    new(tmp_path / "c")
    assert owner_of(tmp_path / "c") == "mine"
    (tmp_path / "c" / "0" / "0").mkdir(parents=True)
    again(tmp_path / "c")
    with pytest.raises(CheckpointError, match=r"those of experiment mine.*shoal resume mine"):
        new(tmp_path / "c", "other")


def test_a_folder_with_no_checkpoints_yet_is_taken_too(tmp_path: Path) -> None:
    new(tmp_path)
    with pytest.raises(CheckpointError, match="is the checkpoint folder of experiment mine"):
        new(tmp_path, "other")
    new(tmp_path, "other", there=False)
    assert owner_of(tmp_path) == "other", "but not by an experiment that is gone"


def test_who_goes_on_finds_its_folder_or_none(tmp_path: Path) -> None:
    new(tmp_path, "other")
    with pytest.raises(CheckpointError, match="by now the checkpoint folder of experiment other"):
        again(tmp_path)
    (tmp_path / OWNER).unlink()
    (tmp_path / "0" / "0").mkdir(parents=True)
    again(tmp_path)
    assert owner_of(tmp_path) == "mine"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"experiment": 1}', "[" * 100_000, "\xff"])
def test_a_file_that_says_nothing_is_nobodys(tmp_path: Path, text: str) -> None:
    (tmp_path / OWNER).write_text(text, encoding="latin-1")
    assert owner_of(tmp_path) is None
    again(tmp_path)
    assert owner_of(tmp_path) == "mine"


def test_what_is_no_file_in_its_place_is_waited_for_by_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / OWNER)
    assert owner_of(tmp_path) is None
    with pytest.raises(CheckpointError, match="is no file: remove it"):
        again(tmp_path)
    release(tmp_path, "mine", 8)


def test_whoever_holds_a_folders_file_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "CLAIM_S", 0.1)
    with (tmp_path / OWNER).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(CheckpointError, match=r"another process has held .* for 0.1 s"):
            new(tmp_path)
    new(tmp_path)


def test_other_files_in_the_folder_are_no_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    (tmp_path / "data").mkdir()
    (tmp_path / "7").mkdir()  # empty: nothing to load
    new(tmp_path)
    (tmp_path / "0" / "0").mkdir(parents=True)
    (tmp_path / "2026" / "photos").mkdir(parents=True)
    release(tmp_path, "other", 8)
    assert (tmp_path / "0").exists()
    release(tmp_path, "mine", 8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2026", "7", "data", "train.py"]


def test_a_folder_of_nothing_else_goes_with_its_checkpoints(tmp_path: Path) -> None:
    new(tmp_path / "c")
    (tmp_path / "c" / "0" / "0").mkdir(parents=True)
    release(tmp_path / "c", "mine", 8)
    assert not (tmp_path / "c").exists()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot hold checkpoints"):
        new(tmp_path / "file" / "c")


@pytest.mark.parametrize(("keep", "least", "most"), [("live", 4, 5), ("all", 16, 16)])
def test_what_a_real_run_leaves(tmp_path: Path, keep: Keep, least: int, most: int) -> None:
    result = shoal.run(experiment(tmp_path, steps=4, keep=keep))
    assert least <= len(there(result.checkpoints)) <= most
    assert result.best is not None
    assert result.best.checkpoint is not None
    assert saved(result.best.checkpoint)


def test_a_real_run_keeps_the_lineage_of_the_best(tmp_path: Path) -> None:
    result = shoal.run(experiment(tmp_path, steps=6, keep="lineage"))
    assert result.best is not None
    assert [row.checkpoint is not None for row in result.best.lineage] == [True] * 6


@pytest.mark.parametrize("workers", [1, 3])
def test_the_disk_never_holds_more_than_two_generations_and_the_best(
    tmp_path: Path, workers: int
) -> None:
    # while it runs: each trial counts what it sees
    script = TOY + (
        "root = os.path.dirname(os.path.dirname(p['save_checkpoint_dir']))\n"
        "members = [os.path.join(root, m) for m in os.listdir(root) if m.isdigit()]\n"
        "seen = sum(len(os.listdir(m)) for m in members)\n"
        "nni.report_intermediate_result(seen)\n"
    )
    result = shoal.run(
        experiment(tmp_path, script, workers=workers, steps=4, checkpoints=tmp_path / "c")
    )
    counts = [row["intermediate"][-1] for row in result.export()]
    assert max(counts) <= 2 * 4 + 1
