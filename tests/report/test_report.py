"""What a report says; tests/browser/test_report.py opens it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from shoal.report import COPIES, chosen, report
from shoal.show.story import sentences
from tests.made import experiment
from tests.report.test_markup import Read


def test_the_result_in_three_sentences(tmp_path: Path) -> None:
    result = experiment(tmp_path, failing=0.1)
    assert result.best is not None
    assert result.uncopied is not None
    ran, found, went = sentences(result)
    failed = result.progress.failed
    assert ran.startswith(
        f"made is done: 8 members at step 12, {96 - failed} of 96 trials finished"
    )
    assert ran.endswith(f"{failed} trials failed: exit code 1.")
    row = result.best.lineage[-1]
    assert f"{result.best.metric:.4f}, of member {row.member} at step {row.step}" in found
    steps = f"after {result.uncopied.step + 1} steps; the winner had {len(result.best.lineage)}"
    assert f"The best that copied nobody has {result.uncopied.metric:.4f}, {steps}" in found
    first, last = result.best.lineage[0].hparams, row.hparams
    assert f"from {first['lr']:.4g} to {last['lr']:.4g}" in went
    members = 1 + sum(
        a.member != b.member
        for a, b in zip(result.best.lineage, result.best.lineage[1:], strict=False)
    )
    assert f"went through {members} members" in went


def test_of_a_run_that_has_only_begun_it_says_that(tmp_path: Path) -> None:
    result = experiment(tmp_path, until=0)
    assert len(sentences(result)) == 1
    text = report(result)
    assert "no trial has begun yet" in text
    assert "Nobody has copied anybody yet." in text


def test_everything_is_in_it(tmp_path: Path) -> None:
    result = experiment(tmp_path, env={"API_KEY": "hush-hush"}, failing=0.1)
    text = report(result)
    assert "hush-hush" not in text
    assert "API_KEY" in text
    assert result.best is not None
    (schedule,) = re.findall(r'<pre id="schedule"[^>]*>(.*?)</pre>', text, re.DOTALL)
    assert json.loads(Read(schedule).text) == result.best.schedule
    for finding in result.findings:
        assert finding.text in Read(text).text
    rows = result.trials()
    copies = [row for row in rows if row.id in result.copies(rows) and row.metric is not None]
    assert len(re.findall(r"<td>\d+ → \d+</td><td>[^<]*</td><td>", text)) >= len(copies)


def test_the_winners_copies_come_first() -> None:
    trials = np.arange(5000)
    gain = np.random.default_rng(1).normal(size=5000)
    gain[7] = np.nan
    kept = chosen(trials, gain, np.array([3, 7, 9999]))
    assert len(kept) == COPIES
    assert {3, 7} <= set(kept)
    assert set(np.argsort(-np.nan_to_num(gain, nan=-9))[: COPIES - 2]) <= set(kept)


@pytest.mark.soak
def test_a_hundred_thousand_trials_are_a_few_megabytes(tmp_path: Path) -> None:
    assert len(report(experiment(tmp_path, population=100, steps=1000))) <= 8_000_000
