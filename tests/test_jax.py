"""The helpers for JAX: alone, and in a trainable in warm workers."""

from pathlib import Path
from typing import Any

import pytest

import shoal

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

import numpy as np  # noqa: E402
from jax import numpy as jnp  # noqa: E402

from shoal.jax import applied, apply, load, save  # noqa: E402


def state(seed: int = 0) -> tuple[Any, Any, Any]:
    params = {"w": jnp.full((3, 2), float(seed)), "b": jnp.ones(2, jnp.bfloat16) * seed}
    optimizer = optax.chain(
        optax.clip(1.0), optax.inject_hyperparams(optax.sgd)(learning_rate=0.1, momentum=0.9)
    )
    return params, optimizer.init(params), jax.random.key(seed)


def plain(leaf: Any) -> Any:
    """A leaf as numpy has it."""
    key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if key else leaf)


def test_what_is_applied_is_in_force() -> None:
    opt_state = apply(state()[1], {"learning_rate": 0.25, "other": 1.0})
    assert applied(opt_state) == {"learning_rate": 0.25, "momentum": pytest.approx(0.9)}
    assert applied(state()[1])["learning_rate"] == pytest.approx(0.1)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    tree = (*state(3), {"epoch": 4, "rate": 0.5, "host": np.arange(3)})
    like = (*state(0), {"epoch": 0, "rate": 0.0, "host": np.zeros(3, int)})
    save(tmp_path, tree)
    found = load(tmp_path, like=like)
    assert jax.tree_util.tree_structure(found) == jax.tree_util.tree_structure(tree)
    for a, b in zip(jax.tree_util.tree_leaves(found), jax.tree_util.tree_leaves(tree), strict=True):
        assert type(a) is type(b)
        assert np.array_equal(plain(a), plain(b))
        assert plain(a).dtype == plain(b).dtype


def test_another_tree_is_refused_with_the_leaf_named(tmp_path: Path) -> None:
    save(tmp_path, {"w": jnp.ones(3), "b": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"\['w'\] has another shape: \(3,\) in the file, \(4,\)"):
        load(tmp_path, like={"w": jnp.ones(4), "b": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"differ in \['b'\]"):
        load(tmp_path, like={"w": jnp.ones(3)})
    with pytest.raises(ValueError, match=r"differ in \['c'\]"):
        load(tmp_path, like={"w": jnp.ones(3), "b": jnp.ones(2), "c": 0})


class Line:
    """A line through points, under optax."""

    def __init__(self) -> None:
        self.optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)

    def init(self, hparams: Any, seed: int) -> Any:
        key = jax.random.key(seed % 2**32)
        params = jax.random.normal(key, (2,))
        return params, self.optimizer.init(params), key

    def step(self, state: Any, hparams: Any) -> Any:
        params, opt_state, key = state
        opt_state = apply(opt_state, hparams)
        key, sub = jax.random.split(key)
        xs = jax.random.normal(sub, (8,))
        loss, grads = jax.value_and_grad(
            lambda p: jnp.mean((p[0] * xs + p[1] - (2 * xs + 1)) ** 2)
        )(params)
        updates, opt_state = self.optimizer.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state, key), -loss

    def applied(self, state: Any) -> Any:
        return applied(state[1])

    def save(self, state: Any, path: Path) -> None:
        save(path, state)

    def load(self, path: Path) -> Any:
        return load(path, like=self.init({}, 0))


def test_a_line_is_the_same_however_many_fit_it(tmp_path: Path) -> None:
    space = {"learning_rate": shoal.Float(1e-3, 0.5, log=True)}
    words: Any = {"space": space, "population": 4, "steps": 4, "seed": 1, "verbose": False}
    one = shoal.run(Line, inline=True, home=tmp_path, **words)
    two = shoal.run(Line, workers=2, home=tmp_path, checkpoint_every=1, **words)
    assert (one.state, two.state) == ("done", "done"), (one.reason, two.reason)
    assert one.export() == two.export()
