"""Why a member did what it did, as lines of text and as plain values."""

from typing import Any, Literal

from shoal.config import Config
from shoal.controller import made
from shoal.core.population import ProtocolError
from shoal.core.records import Result
from shoal.explain import Decision, Place, explain
from shoal.home import ExperimentError
from shoal.result import Result as Experiment
from shoal.runners.outcome import Objective
from shoal.show import tables
from shoal.show.layout import Cell, facts, grid
from shoal.show.tables import named, plural, value
from shoal.stores.sqlite import unreadable

NEAR = 3  # places that are shown around those that matter


def decided(experiment: Experiment, member: int, step: int) -> Decision:
    """Why a member was replaced before a step, or was not: decided again from the journal.

    Raises:
        Undecided: there is no such decision.
        ExperimentError: the journal is damaged.
    """
    config = Config.restore(experiment.config)
    with experiment.folder.open() as store:
        try:
            return explain(lambda records: made(config, records), store.records(), member, step)
        except ProtocolError as error:
            raise ExperimentError(unreadable(store.path, error)) from error


def told(decision: Decision, experiment: Experiment) -> list[str]:
    """The answer for people."""
    trial = decision.trial
    lines = [named("decided", verdict(decision)), named("because", reason(decision))]
    if decision.donor is not None:
        lines.append(named("donor", whose(decision, decision.donor)))
    if decision.changes:
        lines.append(named("explored", ", ".join(changes(decision))))
    elif decision.what in {"copied", "was refilled"}:
        lines.append(named("explored", "nothing: its hyperparameters are those that it copied"))
    if not decision.again:
        other = "by a strategy or version of shoal that decides otherwise than this one"
        lines.append(named("recorded", other))
    heading = f"member {trial.member}, step {trial.step}: trial {trial.id}"
    table = ranks(decision, experiment)
    return [
        tables.heading(experiment),
        "",
        heading,
        *facts(lines),
        *(["", *table] if table else []),
    ]


def verdict(decision: Decision) -> str:
    """What the member was to do."""
    trial = decision.trial
    match decision.what:
        case "began":
            return "begin with fresh weights, and hyperparameters drawn from the space"
        case "went on":
            return f"go on with its own weights and hyperparameters, from trial {trial.parent}"
        case _:
            assert decision.donor is not None
            member = decision.donor.result.trial.member
            return f"go on with the weights of member {member}, from trial {trial.parent}"


def reason(decision: Decision) -> str:
    """Why it was."""
    size, bottom, own = len(decision.cohort), decision.bottom, decision.own
    if decision.what == "began":
        return "it is its first step" if decision.trial.step == 0 else "nothing of it has finished"
    if decision.control:
        return "it is of the control arm, which never copies"
    if decision.what == "was refilled":
        return "its latest trial had failed for good, so it has nothing of its own to go on from"
    rank = "it is not among those compared" if own is None else f"it is {nth(own.rank)} of {size}"
    rank += f" at step {decision.at}" if decision.at is not None else " by latest results"
    if bottom is None:
        return f"{rank}, and the strategy decided so"
    if bottom == 0:
        return f"{rank}, and of {plural(size, 'member')} nobody copies"
    copiers = "the last copies" if bottom == 1 else f"the last {bottom} copy"
    return f"{rank}, and {'' if decision.what == 'copied' else 'only '}{copiers}"


def whose(decision: Decision, donor: Place) -> str:
    """How the donor came to be it."""
    size, bottom = len(decision.donors), decision.bottom
    said = f"member {donor.result.trial.member}, {nth(donor.rank)} of {size}"
    if bottom is not None:
        many = max(bottom, 1)
        said += ", the only one to be copied" if many == 1 else f", drawn from the first {many}"
    if donor.start.trial.id != donor.result.trial.id:
        said += f"; what is copied is its latest, of step {donor.start.trial.step}"
    return said


def changes(decision: Decision) -> list[str]:
    """What exploring has changed."""
    return [
        f"{name} {'none' if before is None else value(before)} → "
        + ("none" if after is None else value(after))
        for name, (before, after) in decision.changes.items()
    ]


def ranks(decision: Decision, experiment: Experiment) -> list[str]:
    """Who was compared, the best first: all, or those around the ones that matter."""
    cohort, donor = decision.donors, decision.donor
    compared = {place.result.trial.id for place in decision.cohort}
    mine = None if decision.own is None else decision.own.result
    own = next((place for place in cohort if place.result is mine), None)
    matter = [1, len(cohort), *(place.rank for place in (own, donor) if place is not None)]
    told = tables.metrics([metric(place.result, experiment) for place in cohort])
    rows: list[list[str | Cell]] = []
    left_out = False
    for place, score in zip(cohort, told, strict=True):
        if all(abs(place.rank - rank) > NEAR for rank in matter):
            left_out = True
            continue
        if left_out:
            rows.append(["…", "", "", "", ""])
            left_out = False
        trial = place.result.trial
        role = "" if trial.id in compared else "control"
        role = "this one" if place is own else "donor" if place is donor else role
        rows.append([
            str(place.rank), str(trial.member), str(trial.step), score, Cell(role, "bold")
        ])  # fmt: skip
    header = ["rank", "member", "step", "metric", ""]
    return grid(header, rows, right=("rank", "member", "step", "metric"), indent=2) if rows else []


def plain(decision: Decision, experiment: Experiment) -> dict[str, Any]:
    """The answer for programs."""
    trial = decision.trial
    return {
        "member": trial.member,
        "step": trial.step,
        "trial": trial.id,
        "what": decision.what,
        "because": reason(decision),
        "parent": trial.parent,
        "donor": None if decision.donor is None else decision.donor.result.trial.member,
        "rank": None if decision.own is None else decision.own.rank,
        "bottom": decision.bottom,
        "compared_at_step": decision.at,
        "hparams": trial.hparams,
        "changes": {
            name: {"before": before, "after": after}
            for name, (before, after) in decision.changes.items()
        },
        "cohort": [
            {
                "rank": place.rank,
                "member": place.result.trial.member,
                "step": place.result.trial.step,
                "trial": place.result.trial.id,
                "metric": metric(place.result, experiment),
            }
            for place in decision.cohort
        ],
        "decided_so_today": decision.again,
    }


def metric(result: Result, experiment: Experiment) -> float:
    """The metric of `result`, as its trial reported it."""
    mode: Literal["max", "min"] = experiment.config["mode"]
    return Objective(experiment.config["metric"], mode).score(result.score)


def nth(rank: int) -> str:
    """A rank as people say it."""
    endings = {1: "st", 2: "nd", 3: "rd"}
    teen = rank % 100 in {11, 12, 13}
    return f"{rank}{'th' if teen else endings.get(rank % 10, 'th')}"
