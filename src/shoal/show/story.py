"""What an experiment has come to, in three sentences."""

from itertools import pairwise

from shoal.result import Result
from shoal.show.tables import duration, metrics, named_metric, plural, value
from shoal.views import Row

NAMED = 4  # hyperparameters whose changes are told one by one


def sentences(result: Result) -> list[str]:
    """What was run, what came out, and how the winner came by it."""
    return [ran(result), *([] if result.best_so_far is None else [found(result), went(result)])]


def ran(result: Result) -> str:
    """What was run, and how it ended."""
    config, progress = result.config, result.progress
    size = plural(config["population"], "member")
    of = "" if progress.total is None else f" of {progress.total:,}"
    state = {
        "running": "is running", "done": "is done", "stopped": "was stopped",
        "paused": "is paused",
        "failed": "has failed", "killed": "was killed",
    }[result.state]  # fmt: skip
    why = f" ({result.reason})" if result.reason and result.state != "running" else ""
    return (
        f"{result.name} {state}{why}: {size} at step {progress.step}, {progress.finished:,}{of} "
        f"trials finished in {duration(result.seconds)}"
        + (
            f", {plural(progress.failed, 'trial')} failed: {result.failures}."
            if progress.failed
            else "."
        )
    )


def found(result: Result) -> str:
    """What the best is, and what it is to be seen beside."""
    best, alone, arms = result.best_so_far, result.uncopied, result.control
    assert best is not None
    row = best.lineage[-1]
    pair = (None, None) if arms is None else (arms.best.metric, arms.gain)
    never = None if alone is None else alone.metric
    top, without, control, gained = metrics([best.metric, never, *pair])
    text = f"The best {named_metric(result)} is {top}, of member {row.member} at step {row.step}"
    if arms is not None:
        return (
            f"{text}. After {plural(arms.steps, 'step')} each, the best of "
            f"{plural(arms.members, 'member')} that never copy has {control}; the best of "
            f"{arms.others} others gained {gained} over it."
        )
    if alone is None:
        return f"{text}."
    if alone.id == row.id:
        return f"{text}; it copied nobody on its way."
    return (
        f"{text}. The best that copied nobody has {without}, after "
        f"{plural(alone.step + 1, 'step')}; the winner had {len(best.lineage)}."
    )


def went(result: Result) -> str:
    """How the winner came by it: whose weights, and what its hyperparameters did."""
    assert result.best_so_far is not None
    line = result.best_so_far.lineage
    members = 1 + sum(a.member != b.member for a, b in pairwise(line))
    where = "stayed with one member" if members == 1 else f"went through {members} members"
    moves = [move for name in result.config["space"] if (move := moved(name, line))]
    if len(moves) > NAMED + 1:
        moves = [*moves[:NAMED], f"and {len(moves) - NAMED} others changed"]
    how = f"; {', '.join(moves)}" if moves else ", under the same hyperparameters all the time"
    return f"Its weights {where}{how}."


def moved(name: str, line: list[Row]) -> str:
    """What became of a hyperparameter along a lineage; nothing, if it stayed the same."""
    values = [row.hparams.get(name) for row in line]
    changes = sum(a != b for a, b in pairwise(values))
    if not changes:
        return ""
    often = "once" if changes == 1 else f"{changes} times"
    return f"{name} changed {often}, from {value(values[0])} to {value(values[-1])}"
