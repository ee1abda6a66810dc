"""What is said of a run is borne out by one."""

from pathlib import Path

import pytest

from shoal.show import tables
from shoal.show.story import sentences
from shoal.web.followed import Followed
from tests.made import experiment


def text(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_gain_is_over_the_control_arm_after_as_many_steps(tmp_path: Path, mode: str) -> None:
    result = experiment(tmp_path, population=8, control=3, steps=9, max_trials=60, mode=mode)
    rows, arms = result.trials(), result.control
    assert arms is not None
    assert (arms.members, arms.others, arms.steps) == (3, 5, 7), "60 trials are 7 whole steps"
    best, sign = (max, 1) if mode == "max" else (min, -1)
    control, other = (
        best(r.metric for r in rows if r.step < 7 and (r.member >= 5) == is_control and r.metric)
        for is_control in (True, False)
    )
    assert (arms.best.metric, arms.other.metric) == (control, other)
    assert arms.gain == sign * (other - control)
    copies = result.copies(rows)
    assert copies
    assert all(rows[id].member < 5 for id in copies), "a control copies nobody"
    assert result.status()["control"] == arms.json()
    followed = Followed.of(result.folder)
    followed.refresh()
    assert followed.now().control == arms
    shown = text(tables.winner(result))
    assert "the best of 3 members that never copy" in shown
    assert "the best of 5 that may copy over it, after 7 steps each" in shown
    assert "3 members that never copy" in text(tables.status(result))
    assert "After 7 steps each, the best of 3 members that never copy has" in text(
        sentences(result)
    )


def test_without_a_control_arm_no_gain_is_told(tmp_path: Path) -> None:
    result = experiment(tmp_path, population=8, steps=9)
    alone, best = result.uncopied, result.best
    assert result.control is None
    assert alone is not None
    assert best is not None
    assert alone.step + 1 < len(best.lineage), "it was replaced before the end"
    said = text([*tables.winner(result), *sentences(result), *tables.status(result)])
    assert f"after {alone.step + 1} steps (the best: {len(best.lineage)})" in said
    for claim in ("gain", "random search", "would have"):
        assert claim not in said


def test_before_all_have_ended_a_step_arms_are_not_compared(tmp_path: Path) -> None:
    result = experiment(tmp_path, population=8, control=2, steps=9, max_trials=7)
    assert result.control is None
