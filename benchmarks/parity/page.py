"""What fast training costs and reaches beside faithful training, from the records alone.

usage: PYTHONPATH=src:. python -m benchmarks.parity.page [--check]

Renews the tables of results/parity/README.md; with --check nothing is written, and the exit status is 1 if they are not
the records' own. A way's runs are paired with the faithful ones seed by seed and image by image.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pages import accuracy, renew
from benchmarks.parity.paired import Lost, paired
from forefend.evaluation import records
from forefend.evaluation.results import CLEAN
from forefend.runtime import files
from forefend.runtime.formatting import markdown_table

from .protocol import ALONE, AUTOATTACKED, EIGHTHS, FAITHFUL, FAST, RESULTS, SEEDS, TASKS, WAYS, place

CHANCE = 0.1  # accuracy of who guesses among ten classes
ATTACKS = {"pgd-20": "PGD-20, the worse of two losses", "autoattack": "AutoAttack"}


@dataclass(frozen=True)
class Promise:
    """What a way was to reach.

    Args:
        way: which.
        under: the attack that decides, the folder of its records.
        margin: by how much accuracy may at most be lower.
        share: of the faithful way's gradient evaluations that it may take.
        said: the same in words.
    """

    way: str
    under: str
    margin: float
    share: float
    said: str


LESS = "not worse by 2 points, at most 1/8 of the gradients"
PROMISES = (
    Promise(FAST, "pgd-20", 0.01, 1.0, "not worse by 1 point"),
    *(Promise(way, under, 0.02, 1 / 8, LESS) for way in EIGHTHS for under in ATTACKS),
)


def main() -> int:
    """Read the command line, renew or check, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    held = renew(RESULTS / "README.md", blocks(), check=given.check)
    return int(given.check and not held)


def blocks(root: Path = RESULTS) -> dict[str, str]:
    """The page's tables by name."""
    made = {}
    for task in TASKS:
        made[f"{task} runs"] = markdown_table(
            ["way", "seed", "gradients", "CPU s", "clean", *ATTACKS.values()], runs(root, task)
        )
        made[f"{task} promises"] = markdown_table(
            ["way", "under", "n", "difference", "seed by seed", "gradients", "CPU time", "promise", "kept"],
            (row for promise in PROMISES for row in kept(root, task, promise)),
        )
    return made


def runs(root: Path, task: str) -> Iterator[list[str]]:
    """A row for each run, after one for the classifier alone."""
    folder = place(root, task, ALONE, SEEDS[0])
    if (folder / "pgd-20" / "summary.json").exists():
        yield ["*the classifier alone*", "", "", "", *judged(folder)]
    for way in WAYS:
        for seed in SEEDS:
            folder = place(root, task, way, seed)
            if (folder / "cost.json").exists():
                cost = files.read_json(folder / "cost.json")
                told = [way, str(seed), f"{gradients(cost) / 1000:.0f}k", f"{cost['cpu_seconds']:.0f}"]
                yield told + judged(folder)


def judged(folder: Path) -> list[str]:
    """Accuracy on clean images and under each attack."""
    clean = figure(verdicts(folder / "pgd-20", clean_alone=True))
    return [clean, *(figure(verdicts(folder / attack)) for attack in ATTACKS)]


def kept(root: Path, task: str, promise: Promise) -> Iterator[list[str]]:
    """Whether a way reaches the faithful one, at which cost; nothing where a run is missing."""
    ours, theirs = ([place(root, task, way, seed) for seed in SEEDS] for way in (promise.way, FAITHFUL))
    if not all((folder / promise.under / "summary.json").exists() for folder in (*ours, *theirs)):
        return
    lost, base = ([verdicts(folder / promise.under) for folder in folders] for folders in (ours, theirs))
    found = paired(lost, base)  # the way's accuracy less the faithful one's
    costs = [[files.read_json(folder / "cost.json") for folder in folders] for folders in (ours, theirs)]
    share = sum(map(gradients, costs[0])) / sum(map(gradients, costs[1]))
    seconds = sum(c["cpu_seconds"] for c in costs[0]) / sum(c["cpu_seconds"] for c in costs[1])
    floor = min(sum(not gone for gone in run.values()) for run in base) / found.n
    # Seeds that fail must not hide behind others, nor two ways that both learnt nothing behind each other.
    even = min(found.each) > -promise.margin and floor > 2 * CHANCE
    whole = found.n == {"pgd-20": TASKS[task].images, "autoattack": AUTOATTACKED}[promise.under]
    holds = found.non_inferior(promise.margin) and even and whole and share <= promise.share
    yield [
        *(promise.way, ATTACKS[promise.under], str(found.n)),
        f"{100 * found.difference:+.2f} [{100 * found.low:+.2f}, {100 * found.high:+.2f}]",
        ", ".join(f"{100 * each:+.1f}" for each in found.each),
        *(f"1/{1 / share:.2f}", f"1/{1 / seconds:.2f}"),
        promise.said,
        "yes" if holds else "NO",
    ]


def verdicts(folder: Path, *, clean_alone: bool = False) -> Lost:
    """Which images are misclassified, clean or under any of the folder's attacks; none before all are judged."""
    lost: dict[int, bool] = {}
    if not (folder / "summary.json").exists():  # still being judged
        return lost
    for record in records.read(records.part(folder, 0)):
        for index, gone in zip(record.index, record.lost, strict=True):
            lost[index] = lost.get(index, False) or (gone and not (clean_alone and record.trial != CLEAN))
    return lost


def figure(lost: Lost) -> str:
    """Accuracy with its interval and n; nothing where nothing was judged."""
    return f"{accuracy(sum(lost.values()), len(lost))} n={len(lost)}" if lost else ""


def gradients(cost: dict[str, float]) -> float:
    """Gradient evaluations: of images, for the attacks, and of weights, an image each."""
    return cost["image_gradients"] + cost["weight_gradients"]


if __name__ == "__main__":
    sys.exit(main())
