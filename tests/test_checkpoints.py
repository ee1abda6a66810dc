"""Checkpoints are kept by who can still need them."""

from pathlib import Path

import pytest

import shoal
from shoal.checkpoints import Checkpoints, Keep, saved
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
