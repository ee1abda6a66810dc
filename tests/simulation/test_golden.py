"""Journals of runs in which something went wrong, as they were written when this was made.

What was decided is read as it stands, and from every record on it would be decided again.
A failing example of the simulation prints the story to be put here.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shoal.core.records import Failed, Finished, Record, Trial
from tests.simulation.crew import Workers
from tests.simulation.slots import Slots
from tests.simulation.world import Simulation

STORIES = sorted(Path(__file__).with_name("golden").glob("*.json"))
KINDS = {kind.__name__: kind for kind in (Trial, Finished, Failed)}
WORLDS = {world.__name__: world for world in (Workers, Slots)}
stories = pytest.mark.parametrize("file", STORIES, ids=lambda file: file.stem)


def told(file: Path, folder: Path) -> tuple[Simulation, list[Record]]:
    """(the run that `file` tells of, its journal)."""
    story: dict[str, Any] = json.loads(file.read_text())
    journal = [KINDS[kind](**record) for kind, record in story["journal"]]
    return WORLDS[story["world"]](folder, **story["how"]), journal


def decisions(records: list[Record]) -> list[Trial]:
    return [r for r in records if isinstance(r, Trial) and r.attempt == 1]


@stories
def test_a_story_told_again_has_the_same_end(file: Path, tmp_path: Path) -> None:
    run, journal = told(file, tmp_path)
    if run.synchronous:  # else it depends on who is first
        assert decisions(run.run().records) == decisions(journal)


@stories
def test_its_journal_is_read_as_it_was_written(file: Path, tmp_path: Path) -> None:
    run, journal = told(file, tmp_path)
    for here, record in enumerate(journal):
        tuner = run.tuner(journal[:here])
        if isinstance(record, Trial) and record.attempt == 1:
            assert tuner.ask() == record, "what was decided is decided again"
        elif isinstance(record, Trial):
            asked = tuner.ask()
            again = tuner.recover() if asked != record else [asked]
            assert record in [replace(trial, attempt=record.attempt) for trial in again]
    tuner = run.tuner(journal)
    assert tuner.done or tuner.stuck


def test_there_are_stories() -> None:
    assert len(STORIES) >= 7
