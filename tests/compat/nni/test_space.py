"""NNI's search spaces: each type becomes the domain with its values; mistakes come all at once."""

import json
from math import exp, log
from pathlib import Path
from random import Random
from typing import Any

import pytest

from shoal.compat.nni.space import parse
from shoal.config import ConfigError
from shoal.core.space import Branch, Choice, Domain, Fixed, Float, Int, Normal, Space

SAMPLES = Path(__file__).parent / "samples"


def one(kind: str, *value: Any) -> Domain:
    return parse({"x": {"_type": kind, "_value": list(value)}})["x"]


def told(raw: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(raw)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("choice", [16, 0.5, "a", True, None, [1, 2]], Choice([16, 0.5, "a", True, None, [1, 2]])),
        ("randint", [1, 4], Int(1, 3)),  # the upper bound is not drawn
        ("randint", [3, 4], Int(3, 3)),
        ("uniform", [0, 1], Float(0, 1)),
        ("quniform", [0, 1, 0.1], Float(0, 1, step=0.1)),
        ("loguniform", [1e-6, 0.1], Float(1e-6, 0.1, log=True)),
        ("qloguniform", [1, 100, 5], Float(1, 100, log=True, step=5)),
        ("normal", [0, 1], Normal(0, 1)),
        ("qnormal", [0, 1, 0.5], Normal(0, 1, step=0.5)),
        ("lognormal", [0, 1], Normal(0, 1, log=True)),
        ("qlognormal", [0, 1, 2], Normal(0, 1, log=True, step=2)),
        # one value only, which NNI draws without complaint
        ("uniform", [2, 2], Fixed(2.0)),
        ("quniform", [2, 2, 0.3], Fixed(2.0)),
        ("loguniform", [0.1, 0.1], Fixed(0.1)),
    ],
)
def test_each_type_is_a_domain(kind: str, value: list[Any], expected: Domain) -> None:
    assert repr(one(kind, *value)) == repr(expected)


def nni_draw(kind: str, value: list[float], rng: Random) -> float:
    """A value by the formulas of NNI's `parameter_expressions.py`, in our own words."""
    low, high, q = (*value, 1.0)[:3]
    if "normal" in kind:
        x = rng.gauss(low, high)
        x = exp(x) if "log" in kind else x
        return round(x / q) * q if kind.startswith("q") else x
    x = exp(rng.uniform(log(low), log(high))) if "log" in kind else rng.uniform(low, high)
    return min(max(round(x / q) * q, low), high) if kind.startswith("q") else x


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("uniform", [-1, 3]),
        ("quniform", [0.5, 3.2, 0.7]),
        ("loguniform", [1e-3, 10]),
        ("qloguniform", [1, 50, 4]),
        ("normal", [2, 3]),
        ("qnormal", [2, 3, 0.5]),
        ("lognormal", [0.5, 0.7]),
        ("qlognormal", [0.5, 0.7, 0.5]),
    ],
)
def test_the_same_generator_draws_what_nni_would(kind: str, value: list[float]) -> None:
    domain = one(kind, *value)
    for seed in range(200):
        ours, theirs = domain.sample(Random(seed)), nni_draw(kind, value, Random(seed))
        assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-12)


def test_nested_choices_are_branches() -> None:
    raw = {
        "layer": {
            "_type": "choice",
            "_value": [
                {"_name": "none"},
                {
                    "_name": "conv",
                    "size": {"_type": "randint", "_value": [1, 4]},
                    "act": {
                        "_type": "choice",
                        "_value": [{"_name": "relu"}, {"_name": "elu", "alpha": 0.5}],
                    },
                },
                "plain",
            ],
        }
    }
    act = Choice([Branch("relu", Space({})), Branch("elu", Space({"alpha": Fixed(0.5)}))])
    conv = Branch("conv", Space({"size": Int(1, 3), "act": act}))
    expected = Space({"layer": Choice([Branch("none", Space({})), conv, "plain"])})
    assert repr(parse(raw)) == repr(expected)


def test_what_is_no_mapping_is_a_constant() -> None:
    assert parse({"a": 3, "b": [1, 2], "c": None}) == Space(
        {"a": Fixed(3), "b": Fixed([1, 2]), "c": Fixed(None)}
    )


def test_the_sample_of_nni_users() -> None:
    raw = json.loads((SAMPLES / "search_space.json").read_text())
    assert parse(raw) == Space(
        {
            "alpha": Float(1e-6, 0.1, log=True),
            "eta0": Float(1e-4, 1.0, log=True),
            "batch": Choice([16, 32, 64, 128]),
            "average": Choice([True, False]),
            "epochs": Int(1, 3),
        }
    )


def test_every_mistake_is_told_with_its_key_path() -> None:
    raw = {
        "a": {"_type": "unifrom", "_value": [0, 1]},
        "b": {"_type": "uniform", "_value": [1, 0]},
        "c": {"_type": "quniform", "_value": [0, 1]},
        "d": {"_type": "loguniform", "_value": [0, 1]},
        "e": {"_type": "randint", "_value": [1.5, 4]},
        "f": {"_type": "randint", "_value": [4, 4]},
        "g": {"_type": "normal", "_value": [0, 0]},
        "h": {"_type": "choice", "_value": []},
        "i": {"_type": "choice", "_value": [{"m": 1}]},
        "j": {"_type": "choice", "_value": [1, {"_name": "n", "k": {"_type": "x", "_value": 1}}]},
        "k": {"_type": "uniform"},
        "l": {"_value": [0, 1]},
        "m": {"_type": "uniform", "_value": "0, 1"},
        "n": {"_type": "uniform", "_value": [0, "1"]},
        "o": {"_type": "qnormal", "_value": [0, 1, 0]},
        "p": {"_type": "quniform", "_value": [2, 2, -1]},
        "q": {"_type": ["uniform"], "_value": [2, 2]},
        7: {"_type": "uniform", "_value": [0, 1]},
        "fine": {"_type": "uniform", "_value": [0, 1]},
    }
    types = "choice, randint, uniform, quniform, loguniform, qloguniform, normal, qnormal, "
    types += "lognormal, qlognormal"
    assert told(raw) == [
        "a._type: unknown type 'unifrom'; did you mean 'uniform'?",
        "b._value: low must be below high, got low=1, high=0",
        "c._value: expected [low, high, q] for quniform, got [0, 1]",
        "d._value: a logarithmic range must be above 0, got low=0",
        "e._value: low must be a whole number, got 1.5",
        "f._value: low must be below high, which is not drawn, got [4, 4]",
        "g._value: sd must be above 0, got sd=0",
        "h._value: a choice needs a list of at least one option, got []",
        'i._value[0]: expected an option that is a mapping to have a _name, got {"m": 1}',
        f"j._value[1].k._type: unknown type 'x'; expected one of {types}",
        "k: expected _type and _value, but _value is missing",
        "l: expected _type and _value, but _type is missing",
        "m._value: expected a list, got '0, 1'",
        "n._value: expected numbers, got '1'",
        "o._value: step must be above 0, got step=0",
        "p._value: step must be above 0, got step=-1",
        "q._type: unknown type \"['uniform']\"; did you mean 'uniform'?",
        "expected a name, got 7; put it in quotes if it is one",
    ]


@pytest.mark.parametrize("raw", [None, [], 3, "lr"])
def test_a_space_is_a_mapping(raw: object) -> None:
    assert told(raw)[0].startswith("expected a mapping of names, got ")
