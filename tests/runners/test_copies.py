"""Copies of states are whole."""

import json
from pathlib import Path
from typing import Any

import pytest

from shoal.runners.worker.copies import Copier, NotCopiedError, is_torch


class Plain:
    """A trainable whose states are what JSON has."""

    loads = 0

    def save(self, state: Any, path: Path) -> None:
        (path / "state.json").write_text(json.dumps(vars(state)))

    def load(self, path: Path) -> Any:
        self.loads += 1
        return State(**json.loads((path / "state.json").read_text()))


class State:
    def __init__(self, **values: Any) -> None:
        vars(self).update(values)


class Forgetful(State):
    """One of which a deep copy has not everything."""

    def __deepcopy__(self, memo: Any) -> "Forgetful":
        return Forgetful(x=vars(self)["x"])


def test_what_a_deep_copy_has_whole_is_copied_so() -> None:
    work, said = Plain(), list[str]()
    copier, state = Copier(work, said.append), State(x=[1])
    for _ in range(3):
        copied = copier(state)
        assert vars(copied) == {"x": [1]}
        assert vars(copied)["x"] is not vars(state)["x"]
    assert (work.loads, said) == (0, [])


def test_what_a_deep_copy_loses_is_saved_and_loaded() -> None:
    work, said = Plain(), list[str]()
    copier = Copier(work, said.append)
    for _ in range(3):
        assert vars(copier(Forgetful(x=1, y=2))) == {"x": 1, "y": 2}
    assert work.loads == 3
    assert said == ["a deep copy of it is not saved as it is itself"]


def test_a_trainable_says_itself_how_to_copy() -> None:
    class Own(Plain):
        def copy(self, state: Any) -> Any:
            return State(copied=True)

    assert vars(Copier(Own(), pytest.fail)(State(x=1))) == {"copied": True}


def test_what_cannot_be_copied_at_all_says_both_reasons() -> None:
    class Broken(Plain):
        def load(self, path: Path) -> Any:
            raise RuntimeError("no")

        def save(self, state: Any, path: Path) -> None:
            """There is nothing to be saved."""

    with pytest.raises(NotCopiedError, match=r"deepcopy fails: .*generator.*; .*RuntimeError: no"):
        Copier(Broken(), list[str]().append)(State(x=(c for c in "")))


def test_a_state_with_an_optimizer_is_saved_and_loaded() -> None:
    torch = pytest.importorskip("torch")

    class Net:
        def init(self) -> Any:
            model = torch.nn.Linear(2, 1)
            optimizer = torch.optim.LBFGS(model.parameters())
            optimizer.register_step_post_hook(lambda *_: None)
            return {"parts": [model, optimizer]}

        def save(self, state: Any, path: Path) -> None:
            torch.save([part.state_dict() for part in state["parts"]], path / "x.pt")

        def load(self, path: Path) -> Any:
            state = self.init()
            for part, saved in zip(state["parts"], torch.load(path / "x.pt"), strict=True):
                part.load_state_dict(saved)
            return state

    work = Net()
    state = work.init()
    copied = Copier(work, pytest.fail)(state)
    assert len(copied["parts"][1]._optimizer_step_post_hooks) == 1
    assert copied["parts"][1]._params, "LBFGS knows what it trains"
    assert torch.equal(copied["parts"][0].weight, state["parts"][0].weight)


@pytest.mark.parametrize("inside", ["", "list", "object"])
def test_a_module_is_found_wherever_it_is(inside: str) -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Linear(1, 1)
    state = {"": net, "list": [{"a": (1, net)}], "object": State(inner=State(net=net))}[inside]
    assert is_torch(state)
    assert not is_torch({"weights": torch.ones(3), "n": 1, "kind": dict})
