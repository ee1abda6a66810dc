"""Every picture, on journals that can be worked out by hand, and on large ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shoal
from shoal import plots
from shoal.core.records import Failed, Finished, Record, Saved, Seen, Started, Trial
from shoal.history import NOBODY, History
from shoal.plots import style
from shoal.plots.diversity import founders, spread, unlike
from shoal.plots.exploits import exploited
from shoal.plots.lineage import copies
from shoal.plots.population import band, best_half, best_so_far, reach
from shoal.plots.schedule import changes
from shoal.plots.segments import chosen, gains
from shoal.plots.timeline import passed
from tests.made import experiment
from tests.plots.story import history_of, plain, trace

A, B = {"lr": 0.1, "kind": "a"}, {"lr": 0.01, "kind": "b"}

# member 1 copies member 0 before step 1, and member 0 copies member 1 before step 2
STORY: list[Record | Seen] = [
    Trial(0, 0, 0, A, None), Trial(1, 1, 0, B, None),  # decided at 100, 101
    Started(0), Started(1),  # 102, 103
    Finished(0, 5.0), Finished(1, 1.0),  # 104, 105
    Trial(2, 0, 1, A, 0), Trial(3, 1, 1, B, 0),  # 106, 107
    Started(2), Started(3),  # 108, 109
    Finished(2, 6.0), Finished(3, 7.0),  # 110, 111
    Trial(4, 0, 2, B, 3), Trial(5, 1, 2, B, 3),  # 112, 113
    Started(4), Started(5),  # 114, 115
    Finished(4, 6.5), Failed(5, "crash", "exit code 1"),  # 116, 117
]  # fmt: skip


@pytest.fixture
def story(tmp_path: Path) -> History:
    return history_of(tmp_path, STORY)


def test_population(story: History) -> None:
    figure = plots.population(story)
    members = trace(figure, "members")
    # each copy is a gap; the failed trial is no point
    assert plain(members.x) == [0, 1, None, 2, None, 0, None, 1]
    assert plain(members.y) == [5, 6, None, 6.5, None, 1, None, 7]
    assert plain(members.customdata) == [0, 0, None, 0, None, 1, None, 1]
    assert plain(trace(figure, "median").y) == [3, 6.5, 6.5]
    assert plain(trace(figure, "best so far").y) == [5, 7, 7]
    winner = trace(figure, "the winner's ancestry")
    assert (plain(winner.x), plain(winner.y)) == ([0, 1], [5, 7])
    assert plain(winner.customdata) == [0, 1]
    steps, low, _, high = band(story)
    assert steps.tolist() == [0, 1, 2]
    assert low[0] == pytest.approx(1.4)
    assert high[0] == pytest.approx(4.6)
    assert figure.layout.yaxis.title.text == "accuracy"


def test_an_axis_is_not_ruled_by_what_is_far_from_all_others() -> None:
    assert reach(np.linspace(0, 1, 20)) is None
    low, high = reach(np.array([*np.linspace(0, 1, 20), -1e6])) or (0, 0)
    assert low == pytest.approx(-0.04)
    assert high == pytest.approx(1.04)
    assert reach(np.ones(5)) is None
    assert best_half(np.array([1.0, 2.0, 4.0]), higher=True) == pytest.approx([1.92, 4.08])
    assert best_half(np.array([1.0, 2.0, 4.0]), higher=False) == pytest.approx([0.96, 2.04])


def test_what_changed_most_comes_first_in_a_grid(tmp_path: Path) -> None:
    space = {f"h{n}": {"float": [0.0, 1.0]} for n in range(11)} | {"kind": {"choice": ["a", "b"]}}
    history = History.of(experiment(tmp_path, population=8, steps=12, space=space))
    figure = plots.schedule(history)
    names = [title.text for title in figure.layout.annotations]
    line = history.lineage(history.best)
    often = [changes(history.values[name][line]) for name in names]
    assert sorted(names) == sorted(space)
    assert often == sorted(often, reverse=True)
    assert often[0] > 0
    assert len({axis.domain for axis in figure.select_xaxes()}) == 3, "columns"


def test_of_a_crowd_the_winners_ancestry_stands_out(tmp_path: Path) -> None:
    history = History.of(experiment(tmp_path, population=21, steps=9))
    figure = plots.lineage(history)
    faint, strong = (part for part in figure.data if part.type == "heatmap")
    assert faint.opacity < 0.3 < strong.opacity
    line = history.lineage(history.best)
    there = np.asarray(strong.z) != NOBODY
    assert sorted(zip(*np.nonzero(there), strict=True)) == sorted(
        zip(history.member[line], history.step[line], strict=True)
    )
    labels = [label.text for label in figure.layout.annotations]
    assert labels == ["it began here", f"the best: {history.metric[history.best]:.4g}"]


def test_the_best_may_be_the_lowest(tmp_path: Path) -> None:
    history = history_of(tmp_path, STORY, higher=False)  # metrics are -5, -1, ...
    assert best_so_far(history).tolist() == [-5, -7, -7]
    assert history.best == 3
    assert exploited(history).gain.tolist() == [6.0, 0.5]


def test_schedule(story: History) -> None:
    figure = plots.schedule(story)
    lr, kind = trace(figure, "winner", 0), trace(figure, "winner", 1)
    assert (plain(lr.x), plain(lr.y), lr.line.shape) == (
        [0, 1], [pytest.approx(0.1), pytest.approx(0.01)], "hv",
    )  # fmt: skip
    assert plain(kind.y) == [0, 1]
    assert figure.layout.yaxis.type == "log"
    assert figure.layout.yaxis2.ticktext == ("a", "b")
    assert plain(trace(figure, "others", 1).y) == [0, 1, 0, 1, 1, 1]


def test_lineage(story: History) -> None:
    figure = plots.lineage(story)
    cells = figure.data[0]
    assert np.asarray(cells.customdata).tolist() == [[0, 0, 0], [1, 0, 0]]  # founders
    assert np.asarray(cells.z).tolist() == [[0, 0, 0], [1, 0, 0]]  # member 0's come first
    arrows = trace(figure, "copies")
    assert (plain(arrows.x), plain(arrows.y)) == ([0, 1, None, 1, 2], [0, 1, None, 1, 0])
    heads = trace(figure, "copied")
    assert np.asarray(heads.customdata).tolist() == [[0, 0], [1, 1]]
    assert [angle % 360 for angle in plain(heads.marker.angle)] == [
        0,
        180,
    ]  # to member 1: up; to member 0: down
    winner = trace(figure, "the winner's ancestry")
    assert (plain(winner.x), plain(winner.y)) == ([0, 1], [0, 1])


def test_of_many_copies_the_winners_are_all_drawn(tmp_path: Path) -> None:
    history = History.of(experiment(tmp_path, population=60, steps=60))
    found = copies(history)
    assert len(found.trial) > len(found.shown) >= 300
    own = set(history.lineage(history.best)) & set(found.trial)
    assert own
    assert own <= set(found.trial[found.shown])
    title = plots.lineage(history).layout.title.text
    assert f"({len(found.trial) - len(found.shown):,} copies more than are drawn)" in title


def test_survival(story: History) -> None:
    figure = plots.survival(story)
    assert plain(trace(figure, "member 0").y) == [1, 2, 2]
    assert plain(trace(figure, "member 1").y) == [1, 0, 0]


def test_survival_of_many_adds_up(tmp_path: Path) -> None:
    history = History.of(experiment(tmp_path, population=20, steps=10))
    layers = [np.asarray(layer.y) for layer in plots.survival(history).data]
    assert len(layers) == 8
    assert np.sum(layers, axis=0).tolist() == [20] * 10


def test_exploits(story: History) -> None:
    found = exploited(story)
    assert found.trial.tolist() == [3, 4]
    assert found.donor.tolist() == [0, 3]
    assert found.before.tolist() == [1.0, 6.0]
    assert found.copied.tolist() == [5.0, 7.0]
    assert found.after.tolist() == [7.0, 6.5]
    assert found.gain.tolist() == [6.0, 0.5]
    assert found.further.tolist() == [2.0, -0.5]
    figure = plots.exploits(story)
    better = trace(figure, "better")
    assert (plain(better.x), plain(better.y)) == ([1, 2], [7, 6.5])
    assert np.asarray(better.customdata).tolist() == [[1, 0, 1, 5], [0, 1, 6, 7]]
    assert plain(trace(figure, "better than before").y) == [1, 1]
    assert plain(trace(figure, "better than the donor").y) == [1, 0]


def test_diversity(story: History) -> None:
    lr, kind = story.domains
    # 0.1 and 0.01 are one power of ten apart, half of that from their mean; the range is four
    assert spread(story, lr) == pytest.approx([0.125, 0.125, 0.0])
    assert spread(story, kind) == pytest.approx([0.5, 0.5, 0.0])
    alive, effective = founders(story)
    assert (alive.tolist(), effective.tolist()) == ([2, 1, 1], [2, 1, 1])
    figure = plots.diversity(story)
    assert plain(trace(figure, "lr").y) == [pytest.approx(0.125), pytest.approx(0.125), 0]
    assert plain(trace(figure, "founders").y) == [2, 1, 1]


def test_two_of_three_alike() -> None:
    grid = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    assert unlike(grid, 2) == pytest.approx([4 / 9, 0])


def test_parallel(story: History) -> None:
    assert plain(gains(story)) == [None, None, 1, 2, -0.5, None]
    figure = plots.parallel(story)
    assert list(figure.layout.xaxis.ticktext) == ["step", "lr", "kind", "accuracy", "gain"]
    drawn = [part for part in figure.data if part.meta == "parallel" and len(part.x)]
    (low,), (middle,), (high,) = (lines(part) for part in drawn if part.name != "failed")
    (failed,) = lines(trace(figure, "failed"))
    crossed = [point for point in failed if point[1] is not None]
    assert crossed == [(0, 1.0, 2), (1, 0, 0.01), (2, 1, 1)], "it has no metric, and no gain"
    assert low == [(0, 1.0, 2), (1, 0, 0.01), (2, 1, 1), (3, 0.5, 6.5), (4, 0, -0.5)]
    assert middle[3:] == [(3, 0, 6), (4, pytest.approx(0.6), 1)]
    assert high[3:] == [(3, 1, 7), (4, 1, 2)]
    said = {(text.x, text.text) for text in figure.layout.annotations}
    assert {(0, "1"), (0, "2"), (1, "1e-2"), (1, "1e-1"), (2, "a"), (2, "b")} <= said


def lines(part: Any) -> list[list[tuple[float, float, Any]]]:
    """The lines of a part: (axis, height, value) where each crosses an axis."""
    found: list[list[tuple[float, float, Any]]] = [[]]
    for x, y, value in zip(plain(part.x), plain(part.y), part.customdata[:, 3], strict=True):
        if x is None:
            found.append([])
        else:
            found[-1].append((x, y, pytest.approx(float(value))))
    return [line for line in found if line]


def test_of_many_steps_the_best_are_drawn() -> None:
    gained = np.random.default_rng(0).normal(size=10_000)
    kept = chosen(gained)
    assert len(kept) <= 1000
    assert set(np.argsort(-gained)[:250]) <= set(kept)


def test_timeline(story: History) -> None:
    figure = plots.timeline(story)
    trained, waited, failed = (trace(figure, name) for name in ("training", "waiting", "failed"))
    assert seconds(trained.x) == [
        102, 104, None, 103, 105, None, 108, 110, None, 109, 111, None, 114, 116,
    ]  # fmt: skip
    assert plain(trained.y)[::3] == [0, 1, 0, 1, 0]
    assert seconds(waited.x) == [104, 108, None, 105, 109, None, 110, 114, None, 111, 115]
    assert seconds(failed.x) == [115, 117]
    assert not len(trace(figure, "saving").x)


def test_the_timeline_shows_saving(tmp_path: Path) -> None:
    history = history_of(tmp_path, [*STORY, Saved(4, 0.5), Saved(2, 0.25)])  # at 118, 119
    saving = trace(plots.timeline(history), "saving")
    assert seconds(saving.x) == [118.75, 119, None, 117.5, 118]
    assert plain(saving.y) == [0, 0, None, 0, 0]


def seconds(dates: Any) -> list[float | None]:
    moments = np.asarray(dates).astype("datetime64[ms]")
    return [None if np.isnat(m) else float(m.astype(np.int64)) / 1000 for m in moments]


def test_the_timeline_of_many(tmp_path: Path) -> None:
    history = History.of(experiment(tmp_path, population=40, steps=100))
    share = np.asarray(plots.timeline(history).data[0].z)
    assert share.shape == (40, 400)
    whole = history.ended.max() - history.started.min()
    trained = (history.ended - history.started).sum() / (40 * whole)
    assert share.mean() == pytest.approx(trained, rel=1e-3)


def test_time_passed() -> None:
    assert passed(np.array([1.0, 3.0]), np.array([0.0, 1, 2, 4])).tolist() == [0, 0, 1, 4]


@pytest.mark.parametrize("name", plots.PICTURES)
@pytest.mark.parametrize("records", [STORY[:0], STORY[:2], STORY[:5], STORY[:7]])
def test_every_picture_of_every_beginning(
    tmp_path: Path, name: str, records: list[Record | Seen]
) -> None:
    figure = plots.PICTURES[name](history_of(tmp_path, records))
    assert figure.data or figure.layout.annotations  # something, or why there is nothing
    json.loads(figure.to_json())


@pytest.mark.parametrize("name", plots.PICTURES)
def test_every_picture_of_every_space(tmp_path: Path, name: str) -> None:
    space = {
        "<b>": {"choice": ["<script>", "b"]},
        "optimizer": {"choice": [{"_name": "sgd", "lr": {"float": [0, 1]}}, {"_name": "adam"}]},
        "noise": {"normal": [0.0, 1.0]},
        "width": {"int": [1, 64], "log": True},
        "depth": {"fixed": 3},
    }
    result = experiment(tmp_path, space=space, failing=0.2, synchronous=False)
    figure = plots.PICTURES[name](result)
    assert "<b>" not in figure.to_json().replace("\\u003c", "<").replace("\\u003e", ">")
    assert "<script>" not in figure.to_json().replace("\\u003c", "<").replace("\\u003e", ">")


@pytest.mark.soak
def test_a_hundred_thousand_trials_are_a_megabyte_in_all_that_is_seen_first(tmp_path: Path) -> None:
    history = History.of(experiment(tmp_path, population=100, steps=1000))
    sizes = {name: len(draw(history).to_json()) for name, draw in plots.PICTURES.items()}
    assert sizes["population"] + sizes["schedule"] < 1_000_000
    assert sum(sizes.values()) < 2_500_000


def test_an_experiment_will_do(tmp_path: Path) -> None:
    result = experiment(tmp_path)
    assert plots.population(result) == plots.population(History.of(result))
    assert isinstance(result, shoal.Result)


@given(
    st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), max_size=300).map(np.array),
    st.integers(4, 50),
)
def test_thinned_lines_keep_their_ends_and_peaks(y: Any, most: int) -> None:
    kept = style.thinned(y, most)
    assert len(kept) <= max(most, 4)
    assert sorted(set(kept)) == kept.tolist()
    if len(y):
        assert {0, len(y) - 1} <= set(kept)
    if np.isfinite(y).any():
        assert np.nanmax(y[kept]) == np.nanmax(y)
        assert np.nanmin(y[kept]) == np.nanmin(y)


@given(st.lists(st.integers(-(2**40), 2**40), min_size=1).map(np.array))
def test_numbers_take_less_room_and_stay_the_same(values: Any) -> None:
    assert values.astype(style.smallest(values)).tolist() == values.tolist()
