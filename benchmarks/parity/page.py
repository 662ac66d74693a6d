"""Tables of the cost and the accuracy of fast training beside faithful training, from the records.

usage: PYTHONPATH=src:. python -m benchmarks.parity.page [--check]

Updates the tables of results/parity/README.md. With --check nothing is written; the exit status is 1 if they differ
from the records. The runs of a variant are paired with the faithful ones, seed by seed and image by image.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pages import accuracy, main_of
from benchmarks.parity.paired import Verdicts, paired
from benchmarks.parity.protocol import (
    ALONE,
    AUTOATTACKED,
    EIGHTHS,
    FAITHFUL,
    FAST,
    RESULTS,
    SEEDS,
    TASKS,
    VARIANTS,
    folder_of,
)
from forefend.evaluation import records
from forefend.evaluation.results import CLEAN
from forefend.runtime import files
from forefend.runtime.formatting import markdown_table

CHANCE = 0.1  # accuracy of a random guess among ten classes
ATTACKS = {"pgd-20": "PGD-20, the worse of two losses", "autoattack": "AutoAttack"}


@dataclass(frozen=True)
class Target:
    """What a variant should reach.

    Args:
        variant: its name.
        under: the folder of the records of the attack.
        margin: the accuracy that it may lose at most.
        share: the gradients that it may take at most, as a share of the faithful ones.
        text: the same in words.
    """

    variant: str
    under: str
    margin: float
    share: float
    text: str


EIGHTH_TEXT = "at most 2 points worse, at most 1/8 of the gradients"
TARGETS = (
    Target(FAST, "pgd-20", 0.01, 1.0, "at most 1 point worse"),
    *(Target(variant, under, 0.02, 1 / 8, EIGHTH_TEXT) for variant in EIGHTHS for under in ATTACKS),
)


def main() -> int:
    """Update or check the page, and return the exit status."""
    return main_of(__doc__, RESULTS, blocks)


def blocks(root: Path = RESULTS) -> dict[str, str]:
    """Return the tables of the page by name."""
    made = {}
    for task in TASKS:
        made[f"{task} runs"] = markdown_table(
            ["variant", "seed", "gradients", "CPU s", "clean", *ATTACKS.values()], runs(root, task)
        )
        made[f"{task} targets"] = markdown_table(
            ["variant", "under", "n", "difference", "seed by seed", "gradients", "CPU time", "target", "reached"],
            (row for target in TARGETS for row in reached(root, task, target)),
        )
    return made


def runs(root: Path, task: str) -> Iterator[list[str]]:
    """Yield a row for the classifier alone, and one for each run."""
    folder = folder_of(root, task, ALONE, SEEDS[0])
    if (folder / "pgd-20" / "summary.json").exists():
        yield ["*the classifier alone*", "", "", "", *accuracies(folder)]
    for variant in VARIANTS:
        for seed in SEEDS:
            folder = folder_of(root, task, variant, seed)
            if (folder / "cost.json").exists():
                cost = files.read_json(folder / "cost.json")
                spent = [f"{gradients(cost) / 1000:.0f}k", f"{cost['cpu_seconds']:.0f}"]
                yield [variant, str(seed), *spent, *accuracies(folder)]


def accuracies(folder: Path) -> list[str]:
    """Format the clean accuracy and that under each attack."""
    clean = formatted(verdicts(folder / "pgd-20", clean_only=True))
    return [clean, *(formatted(verdicts(folder / attack)) for attack in ATTACKS)]


def reached(root: Path, task: str, target: Target) -> Iterator[list[str]]:
    """Yield a row that tells whether a variant reaches its target; no row where a run is missing."""
    ours, theirs = ([folder_of(root, task, variant, s) for s in SEEDS] for variant in (target.variant, FAITHFUL))
    if not all((folder / target.under / "summary.json").exists() for folder in (*ours, *theirs)):
        return
    own, base = ([verdicts(folder / target.under) for folder in folders] for folders in (ours, theirs))
    found = paired(own, base)  # the accuracy of the variant minus the faithful one
    costs = [[files.read_json(folder / "cost.json") for folder in folders] for folders in (ours, theirs)]
    share = sum(map(gradients, costs[0])) / sum(map(gradients, costs[1]))
    seconds = sum(c["cpu_seconds"] for c in costs[0]) / sum(c["cpu_seconds"] for c in costs[1])
    lowest = min(sum(not wrong for wrong in run.values()) for run in base) / found.n
    # No seed may fail, and the faithful runs must have learned something.
    even = min(found.each) > -target.margin and lowest > 2 * CHANCE
    complete = found.n == {"pgd-20": TASKS[task].images, "autoattack": AUTOATTACKED}[target.under]
    holds = found.non_inferior(target.margin) and even and complete and share <= target.share
    yield [
        *(target.variant, ATTACKS[target.under], str(found.n)),
        f"{100 * found.difference:+.2f} [{100 * found.low:+.2f}, {100 * found.high:+.2f}]",
        ", ".join(f"{100 * each:+.1f}" for each in found.each),
        *(f"1/{1 / share:.2f}", f"1/{1 / seconds:.2f}"),
        target.text,
        "yes" if holds else "NO",
    ]


def verdicts(folder: Path, *, clean_only: bool = False) -> Verdicts:
    """Return which images are misclassified, clean or under any attack; none before the summary exists."""
    found: dict[int, bool] = {}
    if not (folder / "summary.json").exists():
        return found
    for record in records.read(folder / "records.jsonl"):
        for index, wrong in zip(record.index, record.misclassified, strict=True):
            found[index] = found.get(index, False) or (wrong and not (clean_only and record.trial != CLEAN))
    return found


def formatted(found: Verdicts) -> str:
    """Format accuracy with its interval and n; "" without verdicts."""
    return f"{accuracy(sum(found.values()), len(found))} n={len(found)}" if found else ""


def gradients(cost: dict[str, float]) -> float:
    """Return the number of gradients: one per image and attack step, and one per image and training step."""
    return cost["image_gradients"] + cost["weight_gradients"]


if __name__ == "__main__":
    sys.exit(main())
