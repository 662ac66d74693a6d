"""Verdicts of the baselines beside ours, from the records: how many differ, and whether by chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb
from pathlib import Path

from forefend.checks import InputError
from forefend.evaluation import records

SAME = 0.995  # target without a random start: share of images with the same verdict
SIGNIFICANT = 0.01  # target with one: McNemar's p must be larger
OURS, OTHERS = "ours", ("foolbox", "torchattacks", "art")
DISTRIBUTIONS = {  # names on the package index
    "ours": "forefend",
    "foolbox": "foolbox",
    "torchattacks": "torchattacks",
    "art": "adversarial-robustness-toolbox",
}
AGAIN = "run benchmarks/peers/all.sh again"
Verdicts = Mapping[tuple[int, str], bool]  # (dataset index, digest of image and label) -> misclassified


@dataclass(frozen=True)
class Pair:
    """One baseline beside ours on one classifier, by one attack.

    Args:
        comparison: name of the comparison.
        attack: identity of the attack, with its start.
        baseline: the other library.
        n: number of images.
        broken: how many our attack breaks.
        broken_by_baseline: how many the baseline breaks.
        ours_alone: how many only our attack breaks.
        theirs_alone: how many only the baseline breaks.
    """

    comparison: str
    attack: str
    baseline: str
    n: int
    broken: int
    broken_by_baseline: int
    ours_alone: int
    theirs_alone: int

    @property
    def at_random(self) -> bool:
        """Whether the attack has a random start."""
        return "start=random_start" in self.attack

    @property
    def same(self) -> float:
        """Share of images with the same verdict, in [0, 1]."""
        return 1 - (self.ours_alone + self.theirs_alone) / self.n

    @property
    def p(self) -> float:
        """McNemar's exact p."""
        return mcnemar(self.ours_alone, self.theirs_alone)

    @property
    def passes(self) -> bool:
        """Whether this pair reaches its target."""
        return self.p > SIGNIFICANT if self.at_random else self.same >= SAME


def mcnemar(b: int, c: int) -> float:
    """Return McNemar's exact two-sided p, the probability of at least as uneven a split of `b + c` fair coins.

    Args:
        b: number of images that only the first breaks.
        c: number of images that only the second breaks.

    Source: McNemar (1947), "Note on the sampling error of the difference between correlated proportions"; exact form.
    """
    n = b + c
    tail = sum(comb(n, k) for k in range(min(b, c) + 1))
    return min(1.0, 2 * tail / 2**n)


def pairs(root: Path) -> list[Pair]:
    """Return every baseline beside ours, for every comparison in `root` and every attack.

    Raises:
        InputError: records are missing, or are of other images or of another classifier.
    """
    return [
        pair(folder.name, attack, baseline, verdicts, _of_attack(folder, baseline, attack))
        for folder in folders(root)
        for attack, verdicts in trials(folder, OURS).items()
        for baseline in OTHERS
    ]


def folders(root: Path) -> list[Path]:
    """Return the folders of the comparisons."""
    return sorted(path for path in root.iterdir() if path.is_dir())


def _of_attack(folder: Path, baseline: str, attack: str) -> Verdicts:
    found = trials(folder, baseline)
    if attack not in found:
        raise InputError(f"{folder}/{baseline}.jsonl holds no record of {attack}: {AGAIN}.")
    return found[attack]


def trials(folder: Path, baseline: str) -> Mapping[str, Verdicts]:
    """Return the verdicts of a baseline by attack.

    Raises:
        InputError: a record is of another baseline, or the records are of several classifiers.
    """
    found: dict[str, dict[tuple[int, str], bool]] = {}
    path = folder / f"{baseline}.jsonl"
    models = {record.model for name in (OURS, baseline) for record in records.read(folder / f"{name}.jsonl")}
    if len(models) > 1:
        raise InputError(f"{path} is of another classifier than the records of ours: {AGAIN}.")
    for record in records.read(path):
        name, _, attack = record.trial.partition(": ")
        if name != baseline:
            raise InputError(f"{path} holds a record of {name}: {AGAIN}.")
        images = zip(record.index, record.images, strict=True)
        found.setdefault(attack, {}).update(zip(images, record.misclassified, strict=True))
    return found


def pair(comparison: str, attack: str, baseline: str, ours: Verdicts, theirs: Verdicts) -> Pair:
    """Count the verdicts of ours and of a baseline on the same images."""
    if ours.keys() != theirs.keys():
        raise InputError(f"{baseline} attacked other images than ours ({comparison}, {attack}): run both again.")
    return Pair(
        comparison,
        attack,
        baseline,
        n=len(ours),
        broken=sum(ours.values()),
        broken_by_baseline=sum(theirs.values()),
        ours_alone=sum(ours[image] and not theirs[image] for image in ours),
        theirs_alone=sum(theirs[image] and not ours[image] for image in ours),
    )
