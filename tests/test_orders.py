"""What is left for whoever runs an experiment, whatever else is left there."""

import json
import os
from pathlib import Path

import pytest

from shoal.home import ExperimentError, Folder
from shoal.orders import Order, put, taken, waiting

US = (os.getpid(), os.uname().nodename)


def test_orders_are_taken_in_order_and_once(tmp_path: Path) -> None:
    folder, wanted = Folder(tmp_path), [Order("pause"), Order("go on", {"workers": 3}), Order(None)]
    files = [put(folder, order, US) for order in wanted]
    assert waiting(folder) == files
    seen = []
    for order, file in zip(taken(folder), files, strict=True):
        assert file.exists(), "it is gone once it was seen to, not before"
        seen.append(order)
    assert seen == wanted
    assert waiting(folder) == []
    assert list(taken(folder)) == []


def test_an_order_for_somebody_who_has_ended_is_dropped(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    put(folder, Order("stop"), (US[0], "elsewhere"))
    put(folder, Order("stop"), (US[0] + 1, US[1]))
    assert list(taken(folder)) == []
    assert waiting(folder) == []


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "null", "[]", "1", '{"wanted": "pause"}',
        json.dumps({"to": US, "wanted": "sing", "changes": {}}),
        json.dumps({"to": US, "wanted": ["pause"], "changes": {}}),
        json.dumps({"to": US, "wanted": "pause", "changes": 3}),
        "[" * 100_000,
    ],
    ids=range(10),
)  # fmt: skip
def test_whatever_is_no_order_is_dropped(tmp_path: Path, text: str) -> None:
    folder = Folder(tmp_path)
    put(folder, Order("pause"), US).with_name("0.json").write_text(text)
    (folder.path / "orders" / "1.json").mkdir()
    assert list(taken(folder)) == [Order("pause")]


def test_where_nothing_can_be_written_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "orders").write_text("a file")
    with pytest.raises(ExperimentError, match="cannot be told"):
        put(Folder(tmp_path), Order("pause"), US)
    assert list(taken(Folder(tmp_path))) == []
