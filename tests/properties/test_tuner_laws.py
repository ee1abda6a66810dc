"""What holds of every run, whatever fails, however many slots, wherever it is cut."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shoal.core.exploit import Truncation
from shoal.core.explore import Explore, Perturb, Shift
from shoal.core.records import Failed, Finished, Record, Trial
from shoal.core.space import Branch, Choice, Float, Int, Normal, Space
from shoal.core.tuner import Tuner
from tests.play import Luck, Play, decisions

SGD = Branch("sgd", Space({"m": Float(0, 1, step=0.1)}))
SPACE = Space(
    {
        "lr": Float(1e-4, 1, log=True),
        "n": Int(1, 9),
        "opt": Choice(
            [Branch("sgd", Space({"m": Float(0, 1, step=0.1)})), Branch("adam", Space({}))]
        ),
        "w": Normal(0, 1),
    }
)


@dataclass(frozen=True)
class Setting:
    """Everything that a run is made from but its slots and the order of events."""

    population: int
    control: int
    steps: int | None
    trials: int | None
    fraction: float
    explore: Explore
    synchronous: bool
    seed: int
    retries: int
    luck: Luck

    def tuner(self, journal: Sequence[Record] = ()) -> Tuner:
        return self.tuner_after(journal)

    def tuner_after(self, journal: Iterable[Record]) -> Tuner:
        return Tuner(
            SPACE,
            population=self.population,
            control=self.control,
            steps=self.steps,
            trials=self.trials,
            exploit=Truncation(self.fraction),
            explore=self.explore,
            synchronous=self.synchronous,
            seed=self.seed,
            retries=self.retries,
            journal=journal,
        )


def settings(synchronous: bool | None = None, failing: float = 0.4) -> st.SearchStrategy[Setting]:
    limits = st.sampled_from(((4, None), (3, 9), (None, 17), (6, 1000)))
    luck = st.builds(
        Luck,
        seed=st.integers(0, 999),
        failing=st.sampled_from((0.0, failing / 4, failing)),
        times=st.integers(1, 4),
        levels=st.sampled_from((1, 3, 1000)),
    )
    return st.builds(
        lambda limit, population, control, **fields: Setting(
            population, min(control, population), *limit, **fields
        ),
        limits,
        st.integers(1, 6),
        st.sampled_from((0, 0, 1, 2, 6)),
        fraction=st.sampled_from((0.0, 0.2, 0.5, 1.0)),
        explore=st.sampled_from((Shift(), Shift(0.5, 1), Perturb())),
        synchronous=st.booleans() if synchronous is None else st.just(synchronous),
        seed=st.integers(0, 999),
        retries=st.integers(0, 2),
        luck=luck,
    )


orders = st.one_of(st.none(), st.integers(0, 2**32).map(Random))
slots = st.sampled_from((1, 2, 3, 8))


def state(tuner: Tuner) -> dict[str, Any]:
    """Everything that can be asked of a tuner."""
    population = tuner.population
    members = range(population.size)
    return {
        "trials": list(population.trials),
        "running": dict(population.running),
        "failures": dict(population.failures),
        "best": population.best,
        "latest": list(population.latest),
        "donors": list(population.latest.donors),
        "last": [population.last(m) for m in members],
        "newest": [population.newest(m) for m in members],
        "live": set(tuner.live),
        "done": tuner.done,
        "stuck": tuner.stuck,
    }


@given(settings(), slots, orders)
def test_replaying_any_prefix_gives_the_same_state_and_decisions(
    setting: Setting, slots: int, order: Random | None
) -> None:
    journal: list[Record] = []

    def replayed(tuner: Tuner, record: Record) -> None:
        if isinstance(record, Trial) and record.attempt == 1:
            assert setting.tuner(journal).ask() == record  # what was decided is decided again
        journal.append(record)
        assert state(setting.tuner(journal)) == state(tuner)

    Play(setting.tuner(), setting.luck, slots, order, replayed).run(limit=40)


@given(settings(synchronous=True), slots, orders, st.integers(0, 60))
def test_a_cut_anywhere_and_a_recovery_change_nothing(
    setting: Setting, slots: int, order: Random | None, cut: int
) -> None:
    whole = Play(setting.tuner(), setting.luck, slots, order).run()
    first = Play(setting.tuner(), setting.luck, slots, order).run(limit=cut)
    resumed = setting.tuner(first.journal)
    if resumed.stuck is None:
        lost = list(first.tuner.population.running)
        assert [trial.id for trial in resumed.recover()] == sorted(lost)
    Play(resumed, setting.luck, slots, order).run()
    assert decisions(resumed) == decisions(whole.tuner)
    assert winner(resumed) == winner(whole.tuner)
    assert (resumed.done, resumed.stuck) == (whole.tuner.done, whole.tuner.stuck)


def winner(tuner: Tuner) -> tuple[int, float] | None:
    best = tuner.population.best
    return None if best is None else (best.trial.id, best.score)


@given(settings(synchronous=True), slots, orders)
def test_slots_and_order_decide_nothing(setting: Setting, slots: int, order: Random | None) -> None:
    one = Play(setting.tuner(), setting.luck).run()
    other = Play(setting.tuner(), setting.luck, slots, order).run()
    assert one.tuner.population.trials == other.tuner.population.trials
    assert one.tuner.population.best == other.tuner.population.best
    assert (one.tuner.done, one.tuner.stuck) == (other.tuner.done, other.tuner.stuck)


@given(settings(), slots, orders)
def test_only_who_copies_explores(setting: Setting, slots: int, order: Random | None) -> None:
    ended: list[int] = []  # trials that finished
    down: set[int] = set()  # members whose latest trial failed for good

    def look(tuner: Tuner, record: Record) -> None:
        trials = tuner.population.trials
        if isinstance(record, Finished):
            ended.append(record.trial)
            down.discard(trials[record.trial].member)
        elif isinstance(record, Failed):
            if tuner.population.failures[record.trial] > setting.retries:
                down.add(trials[record.trial].member)
        elif record.attempt == 1:
            assert SPACE.contains(record.hparams)
            if tuner.population.controls(record.member):
                newest = [t for t in trials if t.member == record.member and t.id in ended][-1:]
                assert record.parent == (newest[0].id if newest else None)
                assert all(t.hparams == record.hparams for t in newest)
                return
            assert (record.parent is None) == (record.step == 0)
            if record.parent is None:
                return
            assert record.parent in ended
            parent = trials[record.parent]
            if record.member not in down and parent.member == record.member:
                assert record.hparams == parent.hparams
                assert parent.step == record.step - 1
            elif setting.synchronous:
                assert parent.member != record.member
                assert parent.step == record.step - 1

    Play(setting.tuner(), setting.luck, slots, order, look).run(limit=80)


@given(settings(), slots, orders)
def test_a_trial_is_tried_as_often_as_agreed(
    setting: Setting, slots: int, order: Random | None
) -> None:
    play = Play(setting.tuner(), setting.luck, slots, order).run()
    failed = [r.trial for r in play.journal if isinstance(r, Failed)]
    for trial in play.tuner.population.trials:
        times = failed.count(trial.id)
        finished = any(isinstance(r, Finished) and r.trial == trial.id for r in play.journal)
        assert trial.attempt == times + (1 if finished else 0)
        assert times <= setting.retries + 1
        assert finished == (times <= setting.retries)


@given(settings(), slots, orders)
def test_a_run_ends_done_or_stuck_within_its_limits(
    setting: Setting, slots: int, order: Random | None
) -> None:
    tuner = Play(setting.tuner(), setting.luck, slots, order).run().tuner
    assert tuner.done or tuner.stuck is not None
    assert tuner.ask() is None
    trials = tuner.population.trials
    if setting.trials is not None:
        assert len(trials) <= setting.trials
    if setting.steps is not None:
        assert max(trial.step for trial in trials) < setting.steps
    if tuner.done:
        steps = [tuner.population.next_step(m) for m in range(setting.population)]
        full = setting.steps is not None and min(steps) == setting.steps
        assert full or len(trials) == setting.trials


@given(settings(), slots, orders)
def test_an_idle_member_waits_for_its_generation_or_for_nobody(
    setting: Setting, slots: int, order: Random | None
) -> None:
    tuner = setting.tuner()
    play = Play(tuner, setting.luck, slots, order)
    for _ in range(60):
        population = tuner.population
        idle = setting.population - len({t.member for t in population.running.values()})
        before = state(tuner)
        trial = setting.tuner(play.journal).ask()
        if trial is None and idle > 0 and not tuner.done and tuner.stuck is None:
            steps = {population.next_step(m) for m in range(setting.population)}
            spent = setting.trials is not None and len(population.trials) >= setting.trials
            at_end = setting.steps is not None and all(
                population.next_step(m) == setting.steps
                for m in range(setting.population)
                if m not in {t.member for t in population.running.values()}
            )
            # asynchronous: only where everybody has failed and the last are still trying
            assert spent or at_end or setting.synchronous or everybody_is_down(tuner)
            assert population.running
            assert len(steps) <= 2 or not setting.synchronous
        assert state(tuner) == before
        if not play.step():
            break


def everybody_is_down(tuner: Tuner) -> bool:
    population = tuner.population
    lasts = (population.newest(m) for m in range(population.size))
    running = {t.member for t in population.running.values()}
    return all(
        result is None or population.next_step(result.trial.member) > result.trial.step + 1
        for result in lasts
        if result is None or result.trial.member not in running
    )


@given(settings(failing=0.6), slots, orders)
def test_a_checkpoint_is_live_from_its_making_to_its_last_use(
    setting: Setting, slots: int, order: Random | None
) -> None:
    kept: set[int] = set()  # the trials whose checkpoints are on the disk

    def retain(tuner: Tuner, record: Record) -> None:
        if isinstance(record, Trial):
            if record.parent is not None:
                assert record.parent in kept
            return
        if isinstance(record, Finished):
            kept.add(record.trial)
        kept.intersection_update(tuner.live)
        best = tuner.population.best
        assert best is None or best.trial.id in kept

    Play(setting.tuner(), setting.luck, slots, order, retain).run(limit=100)


def needed(tuner: Tuner) -> set[int]:
    """What `Tuner.live` is, by walking the whole population."""
    population = tuner.population
    members = range(population.size)
    newest = {result.trial.id for m in members if (result := population.newest(m)) is not None}
    lasts = [last for m in members if (last := population.last(m)) is not None]
    begun = [last for last in lasts if last.id not in newest]
    ids = newest | {last.parent for last in begun if last.parent is not None}
    ids |= population.running.keys()
    if tuner.synchronous:
        slowest = min(map(population.next_step, members))
        ids |= {r.trial.id for step in (slowest - 1, slowest) for r in population.at(step).donors}
    return ids | ({population.best.trial.id} if population.best is not None else set())


@given(settings(failing=0.6), slots, orders)
def test_what_is_live_is_kept_up_and_nothing_more(
    setting: Setting, slots: int, order: Random | None
) -> None:
    tuner = setting.tuner()
    followed, changes = set(tuner.live), tuner.live.follow()

    def look(tuner: Tuner, record: Record) -> None:
        followed.difference_update(changes)
        followed.update(changes & set(tuner.live))
        changes.clear()
        assert followed == set(tuner.live) == needed(tuner)

    Play(tuner, setting.luck, slots, order, look).run(limit=100)


@given(settings(failing=0.9), slots, orders, st.integers(1, 60))
def test_what_a_recovery_starts_from_is_live(
    setting: Setting, slots: int, order: Random | None, cut: int
) -> None:
    kept: set[int] = set()

    def retain(tuner: Tuner, record: Record) -> None:
        if isinstance(record, Finished):
            kept.add(record.trial)
        kept.intersection_update(tuner.live)

    play = Play(setting.tuner(), setting.luck, slots, order, retain).run(limit=cut)
    for trial in setting.tuner(play.journal).recover():
        assert trial.parent is None or trial.parent in kept


def test_the_parent_of_a_trial_that_failed_for_good_is_live_until_its_member_is_refilled() -> None:
    """Asynchronous: a member is down while its donor moves on, and then everybody is down."""
    tuner = Tuner(
        SPACE, population=2, steps=9, exploit=Truncation(0.5), synchronous=False, retries=0
    )
    kept: set[int] = set()

    def tell(report: Finished | Failed) -> None:
        tuner.tell(report)
        if isinstance(report, Finished):
            kept.add(report.trial)
        kept.intersection_update(tuner.live)

    assert [tuner.ask() is not None for _ in range(2)] == [True, True]  # 0 and 1, step 0
    tell(Finished(1, 0.5))
    assert tuner.ask() is not None  # 2: member 1, from 1
    tell(Finished(0, 0.1))
    three = tuner.ask()  # 3: member 0 copies member 1 as it stands, 1
    assert three is not None
    assert three.parent == 1
    tell(Finished(2, 0.9))
    assert tuner.ask() is not None  # 4: member 1, from 2
    tell(Failed(3, "crash", ""))
    tell(Failed(4, "crash", ""))
    assert tuner.stuck is not None
    assert {trial.parent for trial in tuner.recover()} <= kept
