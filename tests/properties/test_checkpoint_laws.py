"""What is kept is what is needed, whatever came before it."""

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shoal.checkpoints import Checkpoints, Keep
from shoal.core.live import Live
from shoal.core.population import Population
from shoal.core.records import Trial

does = st.sampled_from(
    (
        "begin",
        "begin",
        "save",
        "save",
        "hold",
        "hold",
        "release",
        "release",
        "use",
        "unuse",
        "remade",
        "retain",
        "retain",
    )
)


class Tree:
    """Trials that went on from one another, of which somebody needs some."""

    def __init__(self, root: Path, keep: Keep) -> None:
        self.population, self.live = Population(1), Live()
        self.kept = Checkpoints(root, self.population, keep)
        self.held: list[int] = []
        self.used: list[int] = []

    def do(self, what: str, which: int) -> None:
        """One thing that happens to trial `which`, or to the one that it is near."""
        trials, kept = self.population.trials, self.kept
        id = which % max(1, len(trials))
        match what:
            case "begin":
                step = len(trials)
                parent = None if which % 4 == 0 or not trials else id
                self.population.apply(Trial(step, 0, step, {}, parent))
            case "save" if trials and not kept.has(id):
                kept.save(trials[id]).mkdir(parents=True)
                kept.published(id)
            case "hold" if trials:
                self.live.hold(id)
                self.held.append(id)
            case "release" if self.held:
                self.live.release(self.held.pop(which % len(self.held)))
            case "use" if trials and kept.has(id):
                kept.use(id)
                self.used.append(id)
            case "unuse" if self.used:
                kept.unuse(self.used.pop(which % len(self.used)))
            case "remade":
                kept.remade = which % 2 == 0
            case "retain":
                there = self.there()
                kept.retain(self.live)
                assert self.there() == there & (self.needed(there) | set(self.used))

    def there(self) -> set[int]:
        return {int(path.name) for path in self.kept.root.glob("0/*")}

    def needed(self, there: set[int]) -> set[int]:
        """The trials whose checkpoints are needed, by walking all that is live."""
        trials = self.population.trials
        if self.kept.keep == "all":
            return there
        needed: set[int] = set()
        for id in self.live:
            line = [trial.id for trial in self.population.lineage(trials[id])][::-1]
            near = next((one for one in line if one in there), line[-1])
            own = near if self.kept.remade else id
            needed |= set(line[line.index(own) :]) if self.kept.keep == "lineage" else {own}
        return needed


stories = st.sampled_from((8, 30, 80)).flatmap(
    lambda many: st.lists(st.tuples(does, st.integers(0, 99)), min_size=many, max_size=many)
)


@given(st.sampled_from(("live", "lineage", "lineage", "all")), stories)
def test_what_is_kept_is_what_is_needed(keep: Any, story: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as root:
        tree = Tree(Path(root), keep)
        for what, which in [*story, ("retain", 0)]:
            tree.do(what, which)
