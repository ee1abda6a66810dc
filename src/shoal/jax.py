"""JAX in a trainable: pytrees that are saved without pickle, and optax's hyperparameters.

from shoal.jax import applied, apply, load, save

def step(self, state, hparams):
    params, opt_state = state
    opt_state = apply(opt_state, hparams)
    ...

def applied(self, state):
    return applied(state[1])

def save(self, state, path):
    save(path, state)

def load(self, path):
    return load(path, like=self.init({"learning_rate": 0.1}, 0))
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["applied", "apply", "load", "save"]

Tree = TypeVar("Tree")
FILE = "state.npz"


def apply(opt_state: Any, hparams: Mapping[str, Any]) -> Any:
    """`opt_state` with those of `hparams` in force that it has.

    It has those that `optax.inject_hyperparams` was given, anywhere in it.
    """

    def put(node: Any) -> Any:
        if not _injected(node):
            return node
        new = {
            name: jnp.asarray(hparams[name], dtype=jnp.asarray(old).dtype)
            if name in hparams
            else old
            for name, old in node.hyperparams.items()
        }
        return node._replace(hyperparams=new)

    return jax.tree_util.tree_map(put, opt_state, is_leaf=_injected)


def applied(opt_state: Any) -> dict[str, float]:
    """The hyperparameters in `opt_state` that are in force: those of `optax.inject_hyperparams`."""
    nodes = jax.tree_util.tree_leaves(opt_state, is_leaf=_injected)
    return {
        name: float(value)
        for node in nodes
        if _injected(node)
        for name, value in node.hyperparams.items()
    }


def save(path: Path, tree: Any) -> None:
    """Write the leaves of `tree`, arrays and numbers, to the folder `path`, which is there."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    arrays: dict[str, Any] = {}
    about = []
    for number, (where, leaf) in enumerate(leaves):
        key = jnp.issubdtype(getattr(leaf, "dtype", np.dtype(float)), jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(leaf) if key else leaf)
        at, shape = jax.tree_util.keystr(where), list(array.shape)
        about.append({"at": at, "dtype": array.dtype.name, "shape": shape, "key": key})
        if array.dtype.kind not in "biufc":  # bfloat16 and its like, which numpy cannot write
            array = np.frombuffer(array.tobytes(), np.uint8)
        arrays[f"leaf{number}"] = array
    beside = path / f".{FILE}.partial"
    with beside.open("wb") as file:
        np.savez(file, about=np.array(json.dumps(about)), **arrays)
    beside.replace(path / FILE)


def load(path: Path, like: Tree) -> Tree:
    """The tree that was saved to the folder `path`.

    Args:
        path: the folder.
        like: a tree of the same structure, such as a fresh state; its leaves' values do not matter.

    Raises:
        FileNotFoundError: nothing was saved there.
        ValueError: a leaf is missing, is one too many, or has another shape; it is named.
    """
    leaves = jax.tree_util.tree_leaves_with_path(like)
    with np.load(path / FILE, allow_pickle=False) as file:
        about = json.loads(str(file["about"]))
        here = [jax.tree_util.keystr(where) for where, _ in leaves]
        there = [one["at"] for one in about]
        if here != there:
            odd = next((p for p in (*there, *here) if (p in here) != (p in there)), "their order")
            raise ValueError(f"{path / FILE} and `like` differ in {odd or 'the tree itself'}")
        found = []
        for number, (one, (_, old)) in enumerate(zip(about, leaves, strict=True)):
            array = file[f"leaf{number}"]
            if array.dtype.name != one["dtype"]:
                array = np.frombuffer(array.tobytes(), jnp.dtype(one["dtype"]))
                array = array.reshape(one["shape"])
            leaf = _as(array, old, key=one["key"])
            if np.shape(leaf) != np.shape(old):
                shapes = f"{np.shape(leaf)} in the file, {np.shape(old)} in `like`"
                raise ValueError(f"{path / FILE}: {one['at']} has another shape: {shapes}")
            found.append(leaf)
    tree: Tree = jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(like), found)
    return tree


def _as(array: Any, old: Any, *, key: bool) -> Any:
    """`array` as the same kind of leaf as `old` is."""
    if key:
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(old))
    if isinstance(old, bool | int | float | complex):
        return type(old)(array.item())
    return array if isinstance(old, np.ndarray) else jnp.asarray(array)


def _injected(node: Any) -> bool:
    return hasattr(node, "hyperparams") and hasattr(node, "_replace")
