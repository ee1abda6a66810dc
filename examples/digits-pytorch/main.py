"""One step of one member: load a checkpoint, train one epoch, save it, report.

Everything about the population is the controller's business. This script knows its parameters and
its two folders, and it runs alone as well: python3 main.py --lr 0.1
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nni
import torch
from nni.utils import merge_parameter
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--momentum", type=float, default=0.5)
    parser.add_argument("--weight_decay", type=float, default=1e-4)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--dropout", type=float, default=0.1)
    # Alone, each run goes on where the one before stopped.
    parser.add_argument("--load_checkpoint_dir", default="checkpoints/alone")
    parser.add_argument("--save_checkpoint_dir", default="checkpoints/alone")
    return merge_parameter(parser.parse_args(), nni.get_next_parameter())


def digits() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Images (N, 64) and labels (N,) of the training, validation and test sets."""
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    x = torch.as_tensor(images, dtype=torch.float32)[order] / 16.0
    y = torch.as_tensor(labels)[order]
    sizes = [897, 450, 450]
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


def network(dropout: float) -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 64), nn.Tanh(), nn.Dropout(dropout),
        nn.Linear(64, 64), nn.Tanh(), nn.Dropout(dropout),
        nn.Linear(64, 10),
    )  # fmt: skip


def accuracy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    model.eval()
    with torch.no_grad():
        return float((model(x).argmax(dim=1) == y).double().mean())


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)  # trials run side by side, one core each
    train, validation, test = digits()

    load_path = Path(args.load_checkpoint_dir) / "model.pth"
    # At step 0 the two folders are the same and empty, so it is the file that tells.
    saved = torch.load(load_path, weights_only=True) if load_path.is_file() else None
    step = 0 if saved is None else saved["step"] + 1
    torch.manual_seed(100_003 * step + nni.get_sequence_id())

    model = network(args.dropout)
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)
    if saved is not None:
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
    # AFTER load_state_dict, which brings back not only the momentum buffers but also the
    # hyperparameters they were saved under, in place of whatever the optimizer was made with. The
    # other way round every member would train for ever with the learning rate it was born with,
    # and nothing would look wrong.
    for group in optimizer.param_groups:
        group["lr"] = args.lr
        group["momentum"] = args.momentum
        group["weight_decay"] = args.weight_decay

    model.train()
    x, y = train
    total = 0.0
    for batch in torch.randperm(len(x)).split(args.batch_size):
        loss = functional.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(batch)

    save_path = Path(args.save_checkpoint_dir) / "model.pth"
    save_path.parent.mkdir(parents=True, exist_ok=True)
    state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    # A process killed while it saves must leave no half a file under the name that is loaded.
    unfinished = save_path.with_suffix(".tmp")
    torch.save(state, unfinished)
    unfinished.replace(save_path)

    nni.report_final_result(
        {
            "default": accuracy(model, *validation),
            "test": accuracy(model, *test),
            "loss": total / len(x),
        }
    )


if __name__ == "__main__":
    main()
