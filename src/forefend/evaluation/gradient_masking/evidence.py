"""Evidence: what the gate's attacks and probes found, and what one check makes of it. No torch here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from forefend.evaluation.statistics import wilson

WHITE = ("FGSM", "PGD-20", "PGD-20 margin", "PGD long", "APGD")  # the gate's own white-box trials
_SEES = re.compile(r"\[(eot (?:[2-9]|\d\d+) )?(?:white_box|through_bpda)(?: in (?:fp32|bf16))?\]")
_GRADIENTLESS = ("Square", "Noise")  # attacks on record that ask what is deployed, and follow no gradient


@dataclass(frozen=True)
class CheckResult:
    """What one check found.

    Args:
        check: its name.
        measured: what was measured, in words and numbers.
        bound: what it must be.
        passed: whether it is.
        advice: what to do where it is not.
    """

    check: str
    measured: str
    bound: str
    passed: bool
    advice: str


@dataclass(frozen=True)
class Number:
    """The number in question, as records hold it.

    Args:
        trials: identities of the attacks that it comes from.
        judged: dataset indices of the images that they were run on.
        standing: those of them that none broke.
    """

    trials: Sequence[str]
    judged: frozenset[int] = frozenset()
    standing: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Evidence:
    """All that the checks look at.

    Args:
        images: dataset indices of the images.
        classes: how many classes.
        norm: of the threat model, such as `Linf`.
        lost: dataset indices of the images that each trial broke, by its name; misclassified ones are among them, and
            stand alone under `none`.
        curve: the same for PGD at each radius.
        number: the number in question; None where there is none on record.
        facts: what the probes found: whether `flows`, `random`, `logits`, `optimizes`; how many of the images that were
            `probed` have a `zero` gradient.
        landscape: shares of images whose margin rises along the gradient and along a random direction, by distance.
        flagged: what AutoAttack's own checks say.
    """

    images: frozenset[int]
    classes: int
    norm: str
    lost: Mapping[str, frozenset[int]]
    curve: Mapping[float, frozenset[int]]
    number: Number | None
    facts: Mapping[str, float]
    landscape: Mapping[float, tuple[float, float]] = field(default_factory=dict)
    flagged: Sequence[str] = field(default_factory=tuple)

    @property
    def n(self) -> int:
        """How many images."""
        return len(self.images)

    def accuracy(self, *names: str) -> float:
        """Share of images that none of these trials broke."""
        return 1 - len(self.broken(*names)) / self.n

    def broken(self, *names: str) -> frozenset[int]:
        """The images that any of these trials broke."""
        return frozenset().union(*(self.lost[name] for name in names if name in self.lost))

    def white(self) -> frozenset[int]:
        """The images that any white-box trial broke, or that need no attack."""
        return self.broken("none", *WHITE)

    def missed(self, name: str) -> int:
        """How many images this trial broke and no white-box one did."""
        return len(self.lost[name] - self.white())


def most(n: int, share: float) -> int:
    """The largest count among n images whose 95 % interval reaches down to a share."""
    return max(count for count in range(n + 1) if wilson(count, n)[0] <= share)


def sees_defense(trial: str) -> bool:
    """Whether an attack on record follows gradients of what is deployed."""
    return bool(_SEES.search(trial)) and not trial.startswith(_GRADIENTLESS)


def averages(trial: str) -> bool:
    """Whether an attack on record averages what is deployed: through EOT, or by AutoAttack's own way to it."""
    found = _SEES.search(trial)
    return bool(found and (found[1] or trial.startswith("AutoAttack-rand")))
