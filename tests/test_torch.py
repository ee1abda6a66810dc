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


SCHEDULERS: dict[str, Any] = {
    "StepLR": lambda s, o, _lr: s.StepLR(o, 2, gamma=0.5),
    "MultiStepLR": lambda s, o, _lr: s.MultiStepLR(o, [2, 5], gamma=0.5),
    "ConstantLR": lambda s, o, _lr: s.ConstantLR(o, 0.5, 5),
    "ExponentialLR": lambda s, o, _lr: s.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda s, o, _lr: s.PolynomialLR(o, 10, 2.0),
    "LinearLR": lambda s, o, _lr: s.LinearLR(o, 0.1, 1.0, 5),
    "CosineAnnealingLR": lambda s, o, _lr: s.CosineAnnealingLR(o, 10),
    "CosineAnnealingLR with eta_min": lambda s, o, _lr: s.CosineAnnealingLR(o, 10, eta_min=0.01),
    "CosineAnnealingLR beyond T_max": lambda s, o, _lr: s.CosineAnnealingLR(o, 2, eta_min=0.01),
    "CosineAnnealingWarmRestarts": lambda s, o, _lr: s.CosineAnnealingWarmRestarts(o, 4),
    "WarmRestarts with eta_min": lambda s, o, _lr: s.CosineAnnealingWarmRestarts(
        o, 4, eta_min=0.01
    ),
    "LambdaLR": lambda s, o, _lr: s.LambdaLR(o, lambda n: 0.9**n),
    "LambdaLR from 0": lambda s, o, _lr: s.LambdaLR(o, lambda n: max(0, n - 4) / 10),
    "MultiplicativeLR": lambda s, o, _lr: s.MultiplicativeLR(o, lambda _: 0.9),
    "OneCycleLR": lambda s, o, _lr: s.OneCycleLR(o, [_lr, _lr / 2], 20),
    "OneCycleLR in three": lambda s, o, _lr: s.OneCycleLR(o, [_lr, _lr / 2], 20, three_phase=True),
    "CyclicLR": lambda s, o, _lr: s.CyclicLR(
        o, 0.001, [_lr, _lr / 2], step_size_up=4, cycle_momentum=False
    ),
    "SequentialLR": lambda s, o, _lr: s.SequentialLR(
        o, [s.LinearLR(o, 0.1, 1.0, 5), s.CosineAnnealingLR(o, 10)], [5]
    ),
    "ChainedScheduler": lambda s, o, _lr: s.ChainedScheduler(
        [s.ConstantLR(o, 0.5, 4), s.ExponentialLR(o, 0.9)]
    ),
    "ReduceLROnPlateau": lambda s, o, _lr: s.ReduceLROnPlateau(o, patience=1, factor=0.5),
    "ReduceLROnPlateau with min_lr": lambda s, o, _lr: s.ReduceLROnPlateau(
        o, patience=4, factor=0.5, min_lr=0.01
    ),
}


def scheduled(kind: str, lr: float) -> tuple[Any, Any, Any]:
    """(weights, optimizer of two groups, scheduler)."""
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(3)) for _ in range(2)]
    groups = [{"params": [weights[0]]}, {"params": [weights[1]], "lr": lr / 2}]
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.5)
    return weights, optimizer, SCHEDULERS[kind](torch.optim.lr_scheduler, optimizer, lr)


def train(weights: Any, optimizer: Any, scheduler: Any) -> None:
    optimizer.zero_grad()
    sum((weight**2).sum() for weight in weights).backward()
    optimizer.step()
    plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
    scheduler.step(1.0) if plateau else scheduler.step()


@pytest.mark.parametrize("at", [0, 3, 7])
@pytest.mark.parametrize("kind", SCHEDULERS)
def test_a_schedule_changed_on_the_way_is_as_if_made_so(kind: str, at: int) -> None:
    """Ten steps more of training, against a run that had the value from the start."""
    changed, straight = scheduled(kind, 0.1), scheduled(kind, 0.04)
    for step in range(at + 10):
        if step == 0:
            apply(changed[1], {"lr": 0.1}, changed[2])  # as each step does
        if step == at:
            assert apply(changed[1], {"lr": 0.04}, changed[2]) == {"lr"}
            with torch.no_grad():  # the weights were trained under another until now
                for one, other in zip(changed[0], straight[0], strict=True):
                    one.copy_(other)
                    if "momentum_buffer" in straight[1].state[other]:
                        buffer = straight[1].state[other]["momentum_buffer"]
                        changed[1].state[one]["momentum_buffer"].copy_(buffer)
        if step >= at:
            assert applied(changed[1], changed[2])["lr"] == pytest.approx(0.04)
            for mine, its in zip(changed[1].param_groups, straight[1].param_groups, strict=True):
                assert mine["lr"] == pytest.approx(its["lr"], rel=1e-5, abs=1e-12)
        for run in (changed, straight):
            train(*run)
    for one, other in zip(changed[0], straight[0], strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", [k for k in SCHEDULERS if "from 0" not in k])
def test_what_is_not_in_force_is_not_read_back(kind: str) -> None:
    """The optimizer's own learning rate was set, and the schedule knows nothing of it."""
    _, optimizer, scheduler = run = scheduled(kind, 0.1)
    apply(optimizer, {"lr": 0.1}, scheduler)
    for _ in range(3):
        train(*run)
    assert applied(optimizer, scheduler)["lr"] == pytest.approx(0.1)
    for group in optimizer.param_groups:
        group["lr"] *= 3
    assert applied(optimizer, scheduler)["lr"] == pytest.approx(0.3, rel=0.2)


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_a_schedule_is_saved_and_loaded_with_what_it_was_changed_to(
    kind: str, tmp_path: Path
) -> None:
    one, other = scheduled(kind, 0.1), scheduled(kind, 0.1)
    apply(one[1], {"lr": 0.04}, one[2])
    train(*one)
    if "ambda" not in kind:  # a function is not saved
        save(tmp_path, optimizer=one[1], scheduler=one[2])
        load(tmp_path, optimizer=other[1], scheduler=other[2])
        assert applied(other[1], other[2])["lr"] == pytest.approx(0.04)


def test_a_scheduler_that_cannot_be_changed_is_refused_by_name() -> None:
    schedulers = torch.optim.lr_scheduler
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(3))], lr=0.1, momentum=0.9)
    swa = torch.optim.swa_utils.SWALR(optimizer, swa_lr=0.05)
    with pytest.raises(ValueError, match=r"a SWALR sets the learning rate.*use a LambdaLR"):
        apply(optimizer, {"lr": 0.2}, swa)
    floor = schedulers.SequentialLR(
        optimizer,
        [schedulers.LinearLR(optimizer), schedulers.CosineAnnealingLR(optimizer, 9, 0.01)],
        [3],
    )
    with pytest.raises(ValueError, match="eta_min above 0 inside of another scheduler"):
        apply(optimizer, {"lr": 0.2}, floor)
    cycle = schedulers.OneCycleLR(optimizer, 0.1, 20)
    with pytest.raises(ValueError, match="momentum is set by the scheduler"):
        apply(optimizer, {"momentum": 0.2}, cycle)


def test_a_group_without_weight_decay_stays_without_past_a_zero() -> None:
    optimizer = two_groups(torch.optim.SGD, lr=0.1, weight_decay=1e-2)
    for value in (0.0, 0.1):
        apply(optimizer, {"weight_decay": value})
        assert [group["weight_decay"] for group in optimizer.param_groups] == [value, 0.0]
    never = two_groups(torch.optim.SGD, lr=0.1)
    apply(never, {"weight_decay": 0.0})
    with pytest.raises(ValueError, match="which of 2 groups are to stay without it"):
        apply(never, {"weight_decay": 0.1})


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
