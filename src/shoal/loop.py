"""The whole of PBT, top to bottom: ask, record, act; observe, learn, record; again."""

from collections.abc import Callable, Iterator

from shoal.checkpoints import Checkpoints
from shoal.core.records import Failed, Finished, Trial
from shoal.core.tuner import Tuner
from shoal.runners.base import Runner
from shoal.stores.base import Store


def run(
    tuner: Tuner,
    runner: Runner,
    store: Store,
    checkpoints: Checkpoints,
    watch: Callable[[Tuner], str | None],
) -> str | None:
    """Drive `tuner` until it is done, stuck, or has been stopped; why it was stopped, if it was.

    `tuner` must have been built from `store`'s journal. Nothing is acted on before it is durable,
    and what goes together is made durable together: a crash at any line loses training in flight,
    never a decision. `watch` looks on, and says why no further trial may begin, if none may; those
    that run are waited for.
    """
    decided = tuner.recover()  # what a controller that died left behind
    while True:
        stopped = watch(tuner)
        if stopped is None:
            decided += asked(tuner, runner.free - len(decided))  # decide: exploit and explore
        for trial in decided:
            store.append(trial)  # record
        store.commit()
        checkpoints.retain(tuner.live)  # forget what nobody can need; there is room again
        for trial in decided:
            runner.submit(trial)  # act
        decided = []
        if not tuner.population.running:
            return stopped
        for event in runner.wait():  # observe
            if isinstance(event, Finished | Failed):
                if not tuner.awaits(event):  # said twice, or by an attempt that was given up
                    continue
                tuner.tell(event)  # learn
            store.append(event)  # record


def asked(tuner: Tuner, free: int) -> Iterator[Trial]:
    """What the tuner wants to have run now, as far as there is room."""
    while free > 0 and (trial := tuner.ask()) is not None:
        yield trial
        free -= 1
