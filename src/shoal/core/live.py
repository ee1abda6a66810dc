"""Whose checkpoints can still be needed: counted by who needs them, never walked."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator


class Live(Collection[int]):
    """The trials that somebody holds, each as often as it is held.

    What comes and goes can be followed, so that whoever does has work for what happened, and not
    for how many there are.
    """

    def __init__(self, trials: Iterable[int] = ()) -> None:
        self._holds = Counter(trials)
        self._followers: list[set[int]] = []

    def __contains__(self, trial: object) -> bool:
        return trial in self._holds

    def __iter__(self) -> Iterator[int]:
        return iter(self._holds)

    def __len__(self) -> int:
        return len(self._holds)

    def hold(self, trial: int) -> None:
        """Let `trial` be needed once more."""
        if trial not in self._holds:
            self._changed(trial)
        self._holds[trial] += 1

    def release(self, trial: int) -> None:
        """Let `trial`, which is held, be needed once less."""
        if self._holds[trial] > 1:
            self._holds[trial] -= 1
        else:
            del self._holds[trial]
            self._changed(trial)

    def follow(self) -> set[int]:
        """A set to which each trial will be added that becomes needed or needless.

        Whoever asked for it takes them out.
        """
        follower: set[int] = set()
        self._followers.append(follower)
        return follower

    def _changed(self, trial: int) -> None:
        for follower in self._followers:
            follower.add(trial)
