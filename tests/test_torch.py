"""The helpers for PyTorch: alone, and in a trainable in warm workers."""

from pathlib import Path
from typing import Any

import pytest

import shoal

torch = pytest.importorskip("torch")

from shoal.torch import applied, apply, load, save  # noqa: E402


def two_groups(kind: Any, **fields: Any) -> Any:
    a, b = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    return kind([{"params": [a]}, {"params": [b], "weight_decay": 0.0, "lr": 0.05}], **fields)


def test_what_is_applied_is_in_force() -> None:
    optimizer = two_groups(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-2)
    hparams = {"lr": 0.2, "momentum": 0.5, "weight_decay": 1e-3, "dropout": 0.1}
    assert apply(optimizer, hparams) == {"lr", "momentum", "weight_decay"}
    assert {k: applied(optimizer)[k] for k in ("lr", "momentum", "weight_decay")} == {
        "lr": 0.2, "momentum": 0.5, "weight_decay": 1e-3,
    }  # fmt: skip
    first, second = optimizer.param_groups
    assert (second["lr"], second["weight_decay"], second["momentum"]) == (0.1, 0.0, 0.5)
    assert first["weight_decay"] == 1e-3


def test_the_betas_of_adam_have_names() -> None:
    optimizer = two_groups(torch.optim.Adam, lr=0.1)
    assert apply(optimizer, {"beta1": 0.8, "beta2": 0.99, "eps": 1e-6}) == {"beta1", "beta2", "eps"}
    assert all(group["betas"] == (0.8, 0.99) for group in optimizer.param_groups)
    assert applied(optimizer)["beta1"] == 0.8


def test_a_learning_rate_in_a_tensor_stays_in_it() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([parameter], lr=torch.tensor(0.1))
    lr = optimizer.param_groups[0]["lr"]
    apply(optimizer, {"lr": 0.3})
    assert optimizer.param_groups[0]["lr"] is lr
    assert applied(optimizer)["lr"] == pytest.approx(0.3)


@pytest.mark.parametrize("kind", ["step", "cosine", "lambda"])
def test_a_scheduler_works_from_the_new_learning_rate(kind: str) -> None:
    """Changed on the way, it is as if it had been so from the start."""

    def made(lr: float) -> tuple[Any, Any]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(3))], lr=lr)
        schedulers = torch.optim.lr_scheduler
        scheduler: Any = {
            "step": lambda: schedulers.StepLR(optimizer, 2, gamma=0.5),
            "cosine": lambda: schedulers.CosineAnnealingLR(optimizer, 10),
            "lambda": lambda: schedulers.LambdaLR(optimizer, lambda n: 0.9**n),
        }[kind]()
        return optimizer, scheduler

    changed, straight = made(0.1), made(0.4)
    for step in range(9):
        if step == 3:
            assert apply(changed[0], {"lr": 0.4}, changed[1]) == {"lr"}
            assert applied(changed[0], changed[1])["lr"] == 0.4
        for optimizer, scheduler in (changed, straight):
            optimizer.step()
            scheduler.step()
        if step >= 3:
            assert applied(changed[0])["lr"] == pytest.approx(applied(straight[0])["lr"])


def parts() -> tuple[Any, Any, Any]:
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    model(torch.ones(3)).backward()
    optimizer.step()
    scheduler.step()
    return model, optimizer, scheduler


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    model, optimizer, scheduler = parts()
    save(
        tmp_path, model=model, optimizer=optimizer, scheduler=scheduler, epoch=7, mean=torch.ones(2)
    )
    again = parts()
    rest = load(tmp_path, model=again[0], optimizer=again[1], scheduler=again[2])
    assert rest["epoch"] == 7
    assert torch.equal(rest["mean"], torch.ones(2))
    assert torch.equal(model.weight, again[0].weight)
    state, there = (o.state_dict()["state"][0]["exp_avg"] for o in (optimizer, again[1]))
    assert torch.equal(state, there)
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
    with pytest.raises(ValueError, match="has no other; it has model, optimizer"):
        load(tmp_path, other=model)


def test_what_is_not_safe_is_neither_saved_nor_loaded(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="data holds a PosixPath, which cannot be loaded safely"):
        save(tmp_path, data={"root": [tmp_path]})
    assert not list(tmp_path.iterdir())
    torch.save({"root": tmp_path}, tmp_path / "state.pt")
    with pytest.raises(ValueError, match="holds what cannot be loaded safely"):
        load(tmp_path)


class Net:
    """A small net with dropout, which draws from torch's global generator."""

    def init(self, hparams: Any, seed: int) -> Any:
        torch.set_num_threads(1)
        model = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1)
        )
        return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(self, state: Any, hparams: Any) -> Any:
        model, optimizer = state
        apply(optimizer, hparams)
        for _ in range(3):
            xs = torch.randn(16, 4)
            optimizer.zero_grad()
            loss = ((model(xs) - xs.sum(1, keepdim=True)) ** 2).mean()
            loss.backward()
            optimizer.step()
        return state, -loss

    def applied(self, state: Any) -> Any:
        return applied(state[1])

    def save(self, state: Any, path: Path) -> None:
        save(path, model=state[0], optimizer=state[1])

    def load(self, path: Path) -> Any:
        state = self.init({}, 0)
        load(path, model=state[0], optimizer=state[1])
        return state


def test_a_net_is_the_same_however_many_train_it(tmp_path: Path) -> None:
    space = {"lr": shoal.Float(1e-3, 0.1, log=True), "momentum": shoal.Float(0.0, 0.9)}
    words: Any = {"space": space, "population": 6, "steps": 6, "seed": 1, "verbose": False}
    ways: list[Any] = [{"workers": 2}, {"inline": True}, {"inline": True, "hold": False}]
    results = [shoal.run(Net, home=tmp_path, **words, **way) for way in ways]
    assert {result.state for result in results} == {"done"}
    first, *others = [result.export() for result in results]
    assert all(other == first for other in others)


def test_a_net_goes_on_from_its_checkpoints_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    """What torch's generator had drawn is part of a checkpoint."""
    words: Any = {
        "space": {"lr": shoal.Float(1e-3, 0.1, log=True)}, "population": 4, "workers": 2,
        "home": tmp_path, "verbose": False, "seed": 2,
    }  # fmt: skip
    whole = shoal.run(Net, steps=8, inline=True, **words)
    half = shoal.run(Net, steps=4, **words)  # in workers: the other two are not
    more = shoal.resume(Net, half.id, steps=8, home=tmp_path, verbose=False, inline=True)
    assert more.export() == whole.export()
