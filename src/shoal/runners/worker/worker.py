"""What a worker does: it trains members, one step after the other, and holds their states.

It is told, in messages that JSON carries:

    {"train": job}                          see `Job`
    {"save": trial, "to": folder}           the state that this trial ended in
    {"drop": [trials]}                      states that nobody needs any more

and tells, for each attempt `key` of a trial:

    {"loading": key}
    {"remaking": key, "trial": id}          before a step that was done already, and its state lost
    {"begun": key}
    {"reported": key, "value": value}       what a function reports on its way
    {"done": key, "value": value, "seconds": of the step itself, "spent": of all there was to do}
    {"failed": key, "kind": kind, "reason": text}
    {"saved": trial, "seconds": seconds}    or, with "error": text, not
    {"uncopied": why}                       from now on, states are saved and loaded to copy them

A folder with a checkpoint is there with all that it holds, or not at all.
"""

import shutil
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from json import dumps, loads  # as they are now: what is trained may put others in their place
from pathlib import Path
from typing import Any, TypeAlias

from shoal.checkpoints import WORKERS, lengths
from shoal.core.records import LOST, NOT_APPLIED, NOT_COPIED
from shoal.durable import boot, make_last
from shoal.runners.worker import randomness
from shoal.runners.worker.copies import Copier, NotCopiedError
from shoal.runners.worker.randomness import Randomness
from shoal.trainable import Trial, is_trainable
from shoal.trial import to_json

Tell: TypeAlias = Callable[[Mapping[str, Any]], None]
LINE, LONGEST = 1000, 20_000  # characters of a reason: of its first line, and of what is below
NOTHING = object()  # the state of a member that has none yet
OURS = WORKERS  # in a checkpoint: whose it is, and where the random generators stood


@dataclass(frozen=True, slots=True)
class Job:
    """A trial to be run.

    Attributes:
        key: names this attempt.
        steps: what is to be trained: the trial last; before it those of its ancestors whose states
            are lost. Each has `id, member, step, attempt, hparams, seed` and `fresh`, whether its
            random generators begin anew.
        state: the trial in whose state to begin; None for a fresh one.
        copy: whether the state in which the last step begins will be needed again.
        load: the folder to load it from; None where it is held, or to begin with nothing.
        save: the folder in which a function leaves its checkpoint; of a trainable, where its state
            is saved to, which then is not held.
        tell: whether to say when the last step begins: where it may take a while to get there.
    """

    key: str
    steps: list[dict[str, Any]]
    state: int | None = None
    copy: bool = False
    load: str | None = None
    save: str | None = None
    tell: bool = True


@dataclass(slots=True)
class Held:
    """A member's state after a trial."""

    state: Any
    hparams: Mapping[str, Any] | None  # under which it was trained last
    randomness: Randomness = field(default_factory=dict)  # out of date while it is in force


class Worker:
    """Trains `work`, a trainable or a function, as it is told.

    Attributes:
        holds_states: whether it is a trainable.
    """

    def __init__(self, work: Any, tell: Tell) -> None:
        self._work, self._tell = work, tell
        self.holds_states = is_trainable(work)
        self._copy = Copier(work, lambda why: tell({"uncopied": why}))
        self._held: dict[int, Held] = {}  # by trial
        self._drawing: Held | None = None  # whose random generators are in force

    def do(self, message: Mapping[str, Any]) -> None:
        """Do what it is told."""
        match message:
            case {"train": job}:
                self._train(Job(**job))
            case {"save": trial, "to": folder}:
                self._save(trial, Path(folder))
            case {"drop": trials}:
                for trial in trials:
                    self._let_go(self._held.pop(trial, None))

    def _train(self, job: Job) -> None:
        began = time.monotonic()
        try:
            with randomness.LATE.watched():
                value, seconds = self._step(job) if self.holds_states else self._call(job)
        except BaseException as error:  # noqa: BLE001 (a failed trial is data)
            kind = KINDS.get(type(error), "crash")
            reason = explained(error) if kind == "crash" else cut(str(error), LINE)
            self._tell({"failed": job.key, "kind": kind, "reason": reason})
        else:
            spent = time.monotonic() - began
            self._tell({"done": job.key, "value": value, "seconds": seconds, "spent": spent})

    # ------------------------------------------------------------------ a function

    def _call(self, job: Job) -> tuple[Any, float]:
        (told,) = job.steps
        save = Path(job.save or "")
        save.mkdir(parents=True, exist_ok=True)
        randomness.seed(told["seed"])
        trial = Trial(
            hparams=dict(told["hparams"]),
            load=None if job.load is None else Path(job.load),
            save=save,
            seed=told["seed"],
            member=told["member"],
            step=told["step"],
            id=told["id"],
            attempt=told["attempt"],
            tell=lambda value: self._tell({"reported": job.key, "value": plain(value)}),
        )
        if job.tell:
            self._tell({"begun": job.key})
        began = time.monotonic()
        value = self._work(trial)
        seconds = time.monotonic() - began
        make_last(save, save.parent.parent)  # the journal will say that it is there
        return plain(value), seconds

    # ------------------------------------------------------------------ a trainable

    def _step(self, job: Job) -> tuple[Any, float]:
        *lost, told = job.steps
        held = self._start(job, needed=job.copy and not lost)
        try:
            for step in lost:
                self._tell({"remaking": job.key, "trial": step["id"]})
                self._one(held, step)
            if lost and job.copy:
                self._held[lost[-1]["id"]] = held
                held = self._copied(held)
            if job.tell:
                self._tell({"begun": job.key})
            began = time.monotonic()
            value = plain(self._one(held, told))
            seconds = time.monotonic() - began
        except BaseException:
            self._let_go(held)
            raise
        self._held[told["id"]] = held
        if job.save is not None:
            self._write(told["id"], Path(job.save))
            self._let_go(self._held.pop(told["id"]))
        return value, seconds

    def _start(self, job: Job, *, needed: bool) -> Held:
        """The state to go on from, which is the caller's own; if it is `needed`, one stays."""
        if job.state is None:
            return Held(NOTHING, None)
        if job.load is not None:
            self._tell({"loading": job.key})
            held = self._loaded(Path(job.load))
            if needed:
                self._held[job.state] = self._copied(held)
            return held
        if job.state not in self._held:
            raise LostStateError(f"the state of trial {job.state} is not here")
        if needed:
            return self._copied(self._held[job.state])
        return self._held.pop(job.state)

    def _one(self, held: Held, told: Mapping[str, Any]) -> Any:
        """What comes of one step, after which `held` is another state."""
        hparams = told["hparams"]
        self._draw_as(held, told["seed"], anew=told["fresh"])
        if held.state is NOTHING:
            held.state = self._work.init(dict(hparams), told["seed"])
        answer = self._work.step(held.state, dict(hparams))
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise TypeError(f"step is to return (state, score), and returned {answer!r:.200}")
        held.state, value = answer
        if held.hparams != hparams:
            self._read_back(held.state, hparams)
        held.hparams = hparams
        return value

    def _read_back(self, state: Any, asked: Mapping[str, Any]) -> None:
        applied = getattr(self._work, "applied", None)
        if applied is None:
            return
        found = applied(state)
        for name in asked:
            if name in found and not same(found[name], asked[name]):
                raise NotAppliedError(
                    f"{name} is not in force: asked for {asked[name]!r}, and found {found[name]!r}"
                )

    def _draw_as(self, held: Held, number: int, *, anew: bool) -> None:
        """Put the random generators of `held` in force, or seed new ones with `number` for it."""
        if self._drawing is not held or anew:
            self._put_down()
            if anew:
                randomness.seed(number)
            else:
                randomness.restore(held.randomness, number)
        self._drawing = held

    def _put_down(self) -> None:
        """Note where the generators that are in force stand, for whom they belong to."""
        if self._drawing is not None:
            self._drawing.randomness = randomness.capture()
        self._drawing = None

    def _let_go(self, held: Held | None) -> None:
        if self._drawing is held:
            self._drawing = None

    def _copied(self, held: Held) -> Held:
        self._put_down()  # what follows is the user's, and may draw
        return Held(self._copy(held.state), held.hparams, held.randomness)

    # ------------------------------------------------------------------ checkpoints

    def _save(self, trial: int, folder: Path) -> None:
        began = time.monotonic()
        try:
            self._write(trial, folder)
        except BaseException as error:  # noqa: BLE001 (the user's code, which may exit)
            self._tell({"saved": trial, "error": explained(error)})
        else:
            self._tell({"saved": trial, "seconds": time.monotonic() - began})

    def _write(self, trial: int, folder: Path) -> None:
        """Make `folder`, with the state after `trial` and all that belongs to it, or not at all."""
        partial, held = folder.with_name(f".{folder.name}.partial"), self._held[trial]
        self._put_down()  # saving may draw
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            self._work.save(held.state, partial)
            refuse_empty(partial)
            ours = {
                "trial": trial, "boot": boot(), "files": lengths(partial),
                "hparams": held.hparams, "randomness": held.randomness,
            }  # fmt: skip
            (partial / OURS).write_text(dumps(ours) + "\n", encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def _loaded(self, folder: Path) -> Held:
        self._put_down()  # loading often makes a fresh state first, and draws for it
        state = self._work.load(folder)
        try:
            ours = loads((folder / OURS).read_text(encoding="utf-8"))
        except FileNotFoundError:
            ours = {}
        return Held(state, ours.get("hparams"), ours.get("randomness", {}))


class NotAppliedError(Exception):
    """Hyperparameters that were asked for are not those that are in force."""


class LostStateError(Exception):
    """A state was to be gone on from that is not held here."""


HERE = str(Path(__file__).parent)
KINDS: Mapping[type, str] = {
    NotAppliedError: NOT_APPLIED, NotCopiedError: NOT_COPIED, LostStateError: LOST,
}  # fmt: skip


def refuse_empty(folder: Path) -> None:
    """See that something was saved.

    Raises:
        ValueError: nothing was.
    """
    if not any(folder.iterdir()):
        raise ValueError(f"save wrote nothing to the folder that it was given, {folder}")


def plain(value: object) -> Any:
    """`value` as JSON has it: scalars of any library as numbers."""
    return loads(to_json(value))


def same(found: object, asked: object) -> bool:
    """Whether two values are the same, as far as single precision can tell."""
    if isinstance(asked, float) and isinstance(found, int | float):
        return abs(found - asked) <= 1e-6 * max(abs(asked), abs(found))
    return found == asked


def last_line(error: BaseException) -> str:
    """`error` in a line."""
    return traceback.format_exception_only(error)[-1].strip()


def explained(error: BaseException) -> str:
    """`error` in a line, and below it where it came from, without what is ours."""
    last = last_line(error)
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(HERE):
        frames = frames.tb_next
    where = "".join(traceback.format_exception(type(error), error, frames or error.__traceback__))
    return f"{cut(last, LINE)}\n{cut(where.rstrip(), LONGEST)}"


def cut(text: str, longest: int) -> str:
    """`text`, without its middle where it is longer than so many characters."""
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]} ... ({len(text) - 2 * half:,} characters) ... {text[-half:]}"
