"""What is lost again and again rests before it is started again, and nobody else does."""

import itertools
from collections.abc import Sequence

from shoal.core.records import LOST, Failed, Finished, Report, Seen, Trial
from shoal.runners.paced import LONGEST_S, PacedRunner

TRIAL, OTHER = Trial(7, 0, 3, {}, 2), Trial(8, 1, 3, {}, 5)


class Machine:
    """Loses trial 7 each time, and ends all others well; a wait takes a tenth of a second."""

    waiting_for = None
    holds = False

    def __init__(self) -> None:
        self.now = 0.0
        self.begun: list[tuple[float, int]] = []
        self.running: list[Trial] = []
        self.loses = True

    @property
    def free(self) -> int:
        return 2 - len(self.running)

    def submit(self, trial: Trial) -> None:
        self.begun.append((round(self.now, 1), trial.id))
        self.running.append(trial)

    def wait(self) -> Sequence[Report | Seen]:
        self.now += 0.1
        ended, self.running = self.running, []
        return [
            Failed(trial.id, LOST, "its process is gone", trial.attempt)
            if trial.id == 7 and self.loses
            else Finished(trial.id, 1.0)
            for trial in ended
        ]

    def wake(self) -> None: ...
    def resize(self, slots: int) -> None: ...
    def withdraw(self) -> None: ...
    def settle(self, until: float) -> None: ...
    def close(self) -> None: ...


def paced() -> tuple[Machine, PacedRunner]:
    machine = Machine()
    return machine, PacedRunner(machine, lambda: machine.now)


def lose(runner: PacedRunner, times: int) -> None:
    """Submit trial 7 until it was lost so often."""
    for _ in range(times):
        runner.submit(TRIAL)
        while not runner.wait():
            pass


def test_it_is_tried_as_often_as_it_takes_each_time_later() -> None:
    machine, runner = paced()
    lose(runner, 12)
    starts = [at for at, _ in machine.begun]
    rests = [round(b - a - 0.1, 1) for a, b in itertools.pairwise(starts)]
    assert rests[0] == 0, "once may be chance"
    for rest, least in zip(rests[1:], (1, 2, 4, 8, 16, 32, 60, 60, 60, 60), strict=True):
        assert least <= rest + 0.01 <= least + 0.3
    assert max(rests) <= LONGEST_S + 0.2


def test_others_do_not_wait_for_it() -> None:
    machine, runner = paced()
    lose(runner, 4)
    runner.submit(TRIAL)
    assert runner.free == 1, "it has its slot"
    runner.submit(OTHER)
    assert machine.begun[-1][1] == OTHER.id
    assert runner.waiting_for == "4 s before trial 7 is started again: it was lost 4 times"
    (report,) = runner.wait()
    assert report == Finished(OTHER.id, 1.0)


def test_who_has_ended_is_forgiven() -> None:
    machine, runner = paced()
    lose(runner, 5)
    machine.loses = False
    runner.submit(TRIAL)
    while not runner.wait():
        pass
    machine.loses = True
    at = machine.now
    lose(runner, 2)
    assert machine.now - at < 1


def test_what_rests_is_withdrawn_like_all_that_has_not_begun() -> None:
    _, runner = paced()
    lose(runner, 4)
    runner.submit(TRIAL)
    runner.withdraw()
    (report,) = runner.wait()
    assert isinstance(report, Failed)
    assert (report.trial, report.kind) == (TRIAL.id, LOST)
    assert runner.free == 2
    runner.close()
