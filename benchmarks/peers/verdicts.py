"""The peers' verdicts beside ours, read from the records: on how many images they differ, and whether by chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb
from pathlib import Path

from forefend.checks import InputError
from forefend.evaluation import records

SAME = 0.995  # bar without a random start: share of images with one verdict
SIGNIFICANT = 0.01  # bar with one: McNemar's p must be above it
OURS, PEERS = "ours", ("foolbox", "torchattacks", "art")
DISTRIBUTIONS = {  # their names in the package index
    "ours": "forefend",
    "foolbox": "foolbox",
    "torchattacks": "torchattacks",
    "art": "adversarial-robustness-toolbox",
}
AGAIN = "run benchmarks/peers/all.sh again"
Verdicts = Mapping[tuple[int, str], bool]  # (dataset index, digest of image and label) -> lost


@dataclass(frozen=True)
class Pair:
    """One peer beside ours on one classifier, by one attack.

    Args:
        comparison: name of the classifier's comparison.
        attack: identity of the attack, its start included.
        peer: whose verdicts stand beside ours.
        n: how many images were judged by both.
        lost: how many our attack broke.
        lost_too: how many the peer broke.
        ours_alone: broken by our attack and not by the peer's.
        theirs_alone: the other way round.
    """

    comparison: str
    attack: str
    peer: str
    n: int
    lost: int
    lost_too: int
    ours_alone: int
    theirs_alone: int

    @property
    def at_random(self) -> bool:
        """Whether the attack started at random."""
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
        """Whether this pair clears its bar."""
        return self.p > SIGNIFICANT if self.at_random else self.same >= SAME


def mcnemar(b: int, c: int) -> float:
    """McNemar's exact two-sided p: the chance that `b + c` disagreements fall at least as unevenly, each a fair coin.

    Args:
        b: images broken by the one alone.
        c: images broken by the other alone.

    Source: McNemar (1947), "Note on the sampling error of the difference between correlated proportions"; exact form.
    """
    n = b + c
    tail = sum(comb(n, k) for k in range(min(b, c) + 1))
    return min(1.0, 2 * tail / 2**n)


def pairs(root: Path) -> list[Pair]:
    """Every peer beside ours, on every comparison in `root`, by every attack.

    Raises:
        InputError: a peer's records are missing, or it judged other images or a different classifier.
    """
    return [
        pair(folder.name, attack, peer, verdicts, judged(folder, peer, attack))
        for folder in folders(root)
        for attack, verdicts in trials(folder, OURS).items()
        for peer in PEERS
    ]


def folders(root: Path) -> list[Path]:
    """The comparisons' folders."""
    return sorted(path for path in root.iterdir() if path.is_dir())


def judged(folder: Path, peer: str, attack: str) -> Verdicts:
    """A peer's verdicts under one attack."""
    found = trials(folder, peer)
    if attack not in found:
        raise InputError(f"{folder}/{peer}.jsonl holds no record of {attack}: {AGAIN}.")
    return found[attack]


def trials(folder: Path, peer: str) -> Mapping[str, Verdicts]:
    """A peer's verdicts by attack.

    Raises:
        InputError: a record is of another peer, or not every record is of one classifier.
    """
    found: dict[str, dict[tuple[int, str], bool]] = {}
    path = folder / f"{peer}.jsonl"
    models = {record.model for name in (OURS, peer) for record in records.read(folder / f"{name}.jsonl")}
    if len(models) > 1:
        raise InputError(f"{path} is not of the classifier that ours attacked: {AGAIN}.")
    for record in records.read(path):
        who, _, attack = record.trial.partition(": ")
        if who != peer:
            raise InputError(f"{path} holds a record of {who}: {AGAIN}.")
        images = zip(record.index, record.images, strict=True)
        found.setdefault(attack, {}).update(zip(images, record.lost, strict=True))
    return found


def pair(comparison: str, attack: str, peer: str, ours: Verdicts, theirs: Verdicts) -> Pair:
    """Count two attackers' verdicts on the same images."""
    if ours.keys() != theirs.keys():
        raise InputError(f"{peer} did not judge the images that ours did ({comparison}, {attack}): run both again.")
    return Pair(
        comparison,
        attack,
        peer,
        n=len(ours),
        lost=sum(ours.values()),
        lost_too=sum(theirs.values()),
        ours_alone=sum(ours[image] and not theirs[image] for image in ours),
        theirs_alone=sum(theirs[image] and not ours[image] for image in ours),
    )
