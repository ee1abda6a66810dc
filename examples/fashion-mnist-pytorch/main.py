"""One step of one member: load a checkpoint, train a quarter of an epoch, save it, report.

It runs alone as well, where `nni` can be imported: python3 main.py --lr 0.1
"""

from __future__ import annotations

import argparse
import gzip
import math
import sys
from pathlib import Path

import nni
import torch
from nni.utils import merge_parameter
from torch import nn
from torch.nn import functional

DATA_DIR = "/usr/share/datasets/fashion-mnist"
VALIDATION = 1 / 12  # of the 60,000 training images: 5,000 that choose, and are not trained on
PARTS = 4  # steps that make one epoch


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", type=Path, default=Path(DATA_DIR))
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--weight_decay", type=float, default=1e-4)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--dropout", type=float, default=0.2)
    # Alone, each run goes on where the one before stopped.
    parser.add_argument("--load_checkpoint_dir", default="checkpoints/alone")
    parser.add_argument("--save_checkpoint_dir", default="checkpoints/alone")
    return merge_parameter(parser.parse_args(), nni.get_next_parameter())


def read_idx(path: Path) -> torch.Tensor:
    """The bytes of a gzipped IDX file in its own shape, images (N, 28, 28) or labels (N,)."""
    with gzip.open(path) as file:
        content = bytearray(file.read())  # torch wants memory it could write to
    if content[:3] != b"\0\0\x08" or len(content) < 4:  # 8: unsigned bytes, the only kind here
        raise ValueError(f"{path} is not an IDX file of unsigned bytes")
    data = 4 + 4 * content[3]
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, data, 4)]
    if len(content) - data != math.prod(shape):
        raise ValueError(f"{path} is cut short: its header says {shape}")
    return torch.frombuffer(content, dtype=torch.uint8, offset=data).view(shape)


def read_set(folder: Path, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 28, 28) of bytes and labels (N,) of ``train`` or ``t10k``."""
    images = read_idx(folder / f"{name}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{name}-labels-idx1-ubyte.gz")
    return images, labels.long()


def network(dropout: float) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.ReLU(),  # batch, 16, 14, 14
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),  # batch, 32, 7, 7
        nn.Flatten(), nn.Dropout(dropout),
        nn.Linear(32 * 7 * 7, 64), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(64, 10),
    )  # fmt: skip


def prepared(images: torch.Tensor) -> torch.Tensor:
    """What the network takes: one channel, about zero mean and unit variance."""
    return (images.unsqueeze(1).float() / 255.0 - 0.286) / 0.353


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    model.eval()
    right = 0
    with torch.no_grad():
        for x, y in zip(images.split(1000), labels.split(1000), strict=True):
            right += int((model(prepared(x)).argmax(dim=1) == y).sum())
    return right / len(labels)


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)  # trials run side by side, one core each
    try:
        images, labels = read_set(args.data_dir, "train")
        test = read_set(args.data_dir, "t10k")
    except FileNotFoundError as error:
        sys.exit(
            f"{error.filename} is missing. Install the data (Debian, Ubuntu: apt-get install "
            "dataset-fashion-mnist), or name the folder of the four .gz files: --data-dir FOLDER"
        )

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
    # AFTER load_state_dict, which brings back the hyperparameters that were saved along with the
    # momentum buffers: the other way round the new ones would never take effect.
    for group in optimizer.param_groups:
        group["lr"] = args.lr
        group["momentum"] = args.momentum
        group["weight_decay"] = args.weight_decay

    held_out = int(len(images) * VALIDATION)
    validation = images[:held_out], labels[:held_out]
    # One order for each epoch, the same for everybody; each step takes its part of it, so that a
    # member and whoever copies it have seen every image once after PARTS steps.
    epoch, part = divmod(step, PARTS)
    order = torch.randperm(
        len(images) - held_out, generator=torch.Generator().manual_seed(epoch)
    ).add(held_out)
    mine = order.tensor_split(PARTS)[part]

    model.train()
    total = 0.0
    for batch in mine[torch.randperm(len(mine))].split(args.batch_size):
        loss = functional.cross_entropy(model(prepared(images[batch])), labels[batch])
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
            "loss": total / len(mine),
        }
    )


if __name__ == "__main__":
    main()
