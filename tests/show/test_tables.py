"""Values and tables as people read them."""

from typing import Any

import pytest

from shoal.show import tables
from shoal.views import Row


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([], []),
        ([None, 0.0], ["", "0.000"]),
        ([0.97224, 0.5], ["0.9722", "0.5000"]),
        ([312.5, -1.0], ["312.5", "-1.0"]),
        ([45231.0], ["45231"]),
        ([0.0831234], ["0.08312"]),
        ([1e-7, 2e-9], ["1.000e-07", "2.000e-09"]),
        ([1e12, None], ["1.000e+12", ""]),
    ],
)
def test_metrics(values: list[float | None], shown: list[str]) -> None:
    assert tables.metrics(values) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0123456, "0.01235"),
        (1e-6, "1e-06"),
        (64, "64"),
        (True, "true"),
        (None, "null"),
        ("relu", "relu"),
        ([1, 2], "[1, 2]"),
        ({"_name": "flat"}, "flat"),
        ({"_name": "deep", "layers": 3, "rate": 0.25}, "deep (layers 3, rate 0.25)"),
    ],
)
def test_a_hyperparameter(value: Any, shown: str) -> None:
    assert tables.value(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0123, "12 ms"), (1.24, "1.2 s"), (42.4, "42 s"), (125, "0:02:05"), (7322, "2:02:02")],
)
def test_a_duration(seconds: float, shown: str) -> None:
    assert tables.duration(seconds) == shown


def row(id: int, member: int, step: int, parent: int | None, lr: float) -> Row:
    return Row(
        id, member, step, {"lr": lr}, parent, "finished", 0.5, {}, None, 1, 0.0, 1.0, None
    )  # fmt: skip


LINE = [
    row(0, 1, 0, None, 0.1),
    row(1, 1, 1, 0, 0.1),
    row(2, 2, 2, 1, 0.2),
    row(3, 2, 3, 2, 0.2),
    row(4, 1, 4, 3, 0.2),
]


def test_a_schedule_is_cut_where_something_changes() -> None:
    spans = [(s.first, s.last, s.copied, s.member) for s in tables.spans(LINE)]
    assert spans == [(0, 1, None, 1), (2, 3, 1, 2), (4, 4, 2, 1)]
    assert tables.path(LINE) == "member 1 (steps 0-1) → member 2 (steps 2-3) → member 1 (step 4)"
    assert tables.spans([]) == []


def latest(member: int, step: int) -> Row:
    return Row(0, member, step, {}, None, "finished", 0.5, {}, None, 1, 0.0, 1.0, None)


def test_who_is_behind_is_named() -> None:
    assert tables.lags([latest(m, 4) for m in range(3)]) == "none"
    assert tables.lags([latest(0, 4), latest(1, 1), latest(2, 3)]) == "member 1 by 3, member 2 by 1"
    many = tables.lags([latest(m, m) for m in range(20)])
    assert many.startswith("member 0 by 19, member 1 by 18")
    assert many.endswith(", member 11 by 8, 7 more")
