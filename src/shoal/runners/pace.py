"""How fast training goes here, and what follows for how much is given ahead, moved and saved."""

from collections import deque
from statistics import median

BUSY_S = 0.05  # of training that a worker is given ahead, so that it waits for nobody
AHEAD = 16  # trials, at most
GATHER_S = 0.02  # in which what comes back is taken in together, if nobody is idle
LATELY = 9  # steps, or saves, by which the next one's time is judged
SHARE = 0.01  # of the time spent training that "auto" spends on saving


class Pace:
    """How long things take here, as far as is known: a step, a save."""

    def __init__(self) -> None:
        self._steps: deque[float] = deque(maxlen=LATELY)  # seconds that the last of them took
        self._saves: deque[float] = deque(maxlen=LATELY)
        self._step_s: float | None = None
        self._save_s: float | None = None
        self._trained_s = self._saving_s = 0.0
        self._probing = False

    def trained(self, seconds: float) -> None:
        """Take in how long a step took."""
        self._trained_s += seconds
        self._steps.append(seconds)
        self._step_s = median(self._steps)

    def saved(self, seconds: float) -> None:
        """Take in how long a save took."""
        self._saving_s += seconds
        self._saves.append(seconds)
        self._save_s = median(self._saves)
        self._probing = False

    @property
    def slow(self) -> bool:
        """Whether a step may take so long that somebody wants to know that it has begun."""
        return self._step_s is None or self._step_s > GATHER_S

    @property
    def depth(self) -> int:
        """How many trials a worker is given, so that it does not wait for us."""
        if self._step_s is None:
            return 1
        return 1 + min(AHEAD - 1, int(BUSY_S / max(self._step_s, 1e-6)))

    @property
    def worth_moving(self) -> bool:
        """Whether a member that moves is sooner done than one that waits for another's step."""
        if self._step_s is None:
            return False
        return self._save_s is None or self._step_s > 2 * self._save_s

    @property
    def can_afford(self) -> bool:
        """Whether another save leaves the time for saving below its share."""
        return self._saving_s + (self._save_s or 0.0) <= SHARE * self._trained_s

    def due(self, unsaved_s: float) -> bool:
        """Whether what would have to be trained again has come to cost more than saving it."""
        if self._save_s is None:  # the first one tells what a save costs
            first, self._probing = not self._probing, True
            return first
        return unsaved_s * SHARE >= self._save_s
