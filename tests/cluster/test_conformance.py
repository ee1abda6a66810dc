"""Runners on a cluster do what the loop expects of one, whatever they run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import shoal
from tests.runners import conformance
from tests.runners.conformance import Lab, made
from tests.toys import Acting, acting

KINDS: dict[str, Any] = {"script": None, "function": acting, "trainable": Acting}


PARAMS = ["script", pytest.param("function", marks=pytest.mark.soak), "trainable"]


@pytest.fixture(params=PARAMS)
def lab(request: pytest.FixtureRequest, tmp_path: Path, spread: shoal.Ray) -> Iterator[Lab]:
    lab = made(tmp_path, KINDS[request.param], execution=spread)
    yield lab
    lab.runner.close()


def test_each_trial_is_reported_once(lab: Lab) -> None:
    conformance.each_trial_is_reported_once(lab, dies=True)


def test_a_wait_has_an_end(lab: Lab) -> None:
    conformance.a_wait_has_an_end(lab)


def test_a_wake_ends_a_wait(lab: Lab) -> None:
    conformance.a_wake_ends_a_wait(lab)


def test_there_is_room_again(lab: Lab) -> None:
    conformance.there_is_room_again(lab)


def test_what_is_withdrawn_is_lost(lab: Lab) -> None:
    conformance.what_is_withdrawn_is_lost(lab)


@pytest.mark.parametrize("kind", PARAMS)
def test_nothing_comes_after_the_end(kind: str, tmp_path: Path, spread: shoal.Ray) -> None:
    conformance.nothing_comes_after_the_end(made(tmp_path, KINDS[kind], execution=spread))
