"""The measurements of the gradient-masking checks. This module does not need torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from forefend.evaluation.statistics import wilson

WHITE_BOX = ("FGSM", "PGD-20", "PGD-20 margin", "PGD long", "APGD")  # names of the white-box trials
REFERENCES = ("fast", "AutoAttack")  # names of the attack that runs last
_WITH_DEFENSE = re.compile(r"\[(eot (?:[2-9]|\d\d+) )?(?:white_box|through_bpda)(?: in (?:fp32|bf16))?\]")
_GRADIENT_FREE = ("Square", "Noise", "HopSkipJump", "Boundary")


@dataclass(frozen=True)
class RecordedAccuracy:
    """The robust accuracy that records of earlier evaluations state.

    Args:
        trials: identities of the recorded attacks.
        attacked: dataset indices of the images they attacked.
        robust: dataset indices of the attacked images that every attack left correctly classified.
        unidentified: number of recorded verdicts on a network of equal tensors that do not count: an older version
            wrote them, without what the network answered.
    """

    trials: Sequence[str]
    attacked: frozenset[int] = frozenset()
    robust: frozenset[int] = frozenset()
    unidentified: int = 0


@dataclass(frozen=True)
class Evidence:
    """All measurements of one model.

    Args:
        images: dataset indices of the images.
        classes: number of classes.
        norm: norm of the threat model, such as `Linf`.
        misclassified: dataset indices of the images that each trial broke, by name of the trial. They include images
            misclassified without an attack, which are also listed under `none`.
        curve: the same for PGD at each radius.
        recorded: the recorded accuracy; None if there is none.
        facts: results of the diagnostics: `has_gradient`, `random`, `logits`, `optimizes`, `repeats` (equal seeds give
            equal outputs), `mixes` (images of a batch change each other's outputs), `black_box`, and the number of
            images `probed`, of which `zero` have a zero gradient.
        landscape: for each distance, the shares of images whose margin rises along the gradient and along a random
            direction.
        warnings: warnings that AutoAttack gave.
        clean: the accuracy on clean images.
        faults: signs that the model does not work on clean images, a sentence each.
    """

    images: frozenset[int]
    classes: int
    norm: str
    misclassified: Mapping[str, frozenset[int]]
    curve: Mapping[float, frozenset[int]]
    recorded: RecordedAccuracy | None
    facts: Mapping[str, float]
    landscape: Mapping[float, tuple[float, float]] = field(default_factory=dict)
    warnings: Sequence[str] = field(default_factory=tuple)
    clean: float = 1.0
    faults: Sequence[str] = ()

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.images)

    def accuracy(self, *names: str) -> float:
        """Return the share of images that none of these trials broke."""
        return 1 - len(self.broken(*names)) / self.n

    def broken(self, *names: str) -> frozenset[int]:
        """Return the images that any of these trials broke."""
        return frozenset().union(*(self.misclassified.get(name, ()) for name in names))

    def broken_by_white_box(self) -> frozenset[int]:
        """Return the images that a white-box trial broke, or that need no attack."""
        return self.broken("none", *WHITE_BOX)

    def missed_by_white_box(self, name: str) -> int:
        """Return the number of images that this trial broke and no white-box trial did."""
        return len(self.broken(name) - self.broken_by_white_box())


def largest_count(n: int, share: float) -> int:
    """Return the largest count of n whose 95 % interval does not begin above `share`."""
    return max(count for count in range(n + 1) if wilson(count, n)[0] <= share)


def sees_defense(trial: str) -> bool:
    """Whether a recorded attack follows gradients through the defense, or through BPDA."""
    return bool(_WITH_DEFENSE.search(trial)) and not trial.startswith(_GRADIENT_FREE)


def averages(trial: str) -> bool:
    """Whether a recorded attack averages random outputs."""
    found = _WITH_DEFENSE.search(trial)
    return bool(found and (found[1] or trial.startswith("AutoAttack-rand")))
