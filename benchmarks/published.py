"""Published robust classifiers, measured by our suite `standard`, beside the published accuracy.

usage: PYTHONPATH=src:. python -m benchmarks.published [--check]

Reads results/published/CLASSIFIER/summary.json, which `forefend evaluate --suite standard` wrote, and updates the table
in results/published/README.md. With --check nothing is written; the exit status is 1 if a published accuracy lies
outside our 99 % interval or the table differs from the records.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pages import renew
from forefend.evaluation import results
from forefend.evaluation.results import CLEAN, Result
from forefend.evaluation.statistics import wilson
from forefend.runtime.formatting import markdown_table, percent

ROOT = Path("results/published")
Z99 = 2.5758293035489004  # the 99.5 % quantile of the normal distribution


@dataclass(frozen=True)
class Published:
    """Published accuracies of a checkpoint.

    Args:
        clean: clean accuracy in %.
        autoattack: accuracy under AutoAttack in %, on 10,000 images, from the table of its authors.
        claimed: accuracy in % under the attack of the checkpoint's authors.
        by: that attack.
    """

    clean: float
    autoattack: float
    claimed: float
    by: str


PUBLISHED = {
    "trades-mnist-smallcnn-robust": Published(99.48, 92.81, 96.07, "PGD-40"),
    "fastat-mnist-fgsm-robust": Published(98.50, 82.93, 88.77, "its authors' PGD"),
}


def main() -> int:
    """Compare, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--root", type=Path, default=ROOT)
    given = parser.parse_args()
    current = renew(given.root / "README.md", blocks(given.root), check=given.check)
    return int(given.check and not (current and all(inside(given.root, name) for name in PUBLISHED)))


def blocks(root: Path) -> dict[str, str]:
    """Return the table of the page by its name."""
    heading = ["classifier", "attack", "published", "ours, 99 % interval", "n", "inside"]
    rows = (row for name in PUBLISHED for row in rows_of(root, name))
    return {"published": markdown_table(heading, rows)}


def rows_of(root: Path, name: str) -> list[list[str]]:
    """Return the rows of one classifier: clean, AutoAttack, Square, and PGD beside the attack of its authors."""
    claim = PUBLISHED[name]
    rows = []
    for title, figure, attack in (("none", claim.clean, CLEAN), ("AutoAttack", claim.autoattack, "AutoAttack")):
        result = result_of(root, name, attack)
        low, high = interval(result)
        within = "yes" if low <= figure / 100 <= high else "NO"
        rows.append([name, title, f"{figure:.2f}", formatted(result), str(result.n), within])
    square, pgd = (result_of(root, name, attack) for attack in ("Square", "transfer from the classifier"))
    rows.append([name, "Square, 1,000 queries", "–", formatted(square), str(square.n), ""])
    rows.append([name, f"ours PGD-20, theirs {claim.by}", f"{claim.claimed:.2f}", formatted(pgd), str(pgd.n), ""])
    return rows


def formatted(result: Result) -> str:
    """Format accuracy in % with its interval."""
    return percent(result.accuracy, *interval(result))


def inside(root: Path, name: str) -> bool:
    """Return whether our 99 % interval contains the published accuracy under AutoAttack."""
    low, high = interval(result_of(root, name, "AutoAttack"))
    return low <= PUBLISHED[name].autoattack / 100 <= high


def interval(result: Result) -> tuple[float, float]:
    """Return Wilson's interval at 99 %."""
    return wilson(round(result.accuracy * result.n), result.n, Z99)


def result_of(root: Path, name: str, attack: str) -> Result:
    """Return one result of the evaluation of a classifier."""
    return next(result for result in results.load(root / name) if result.attack == attack)


if __name__ == "__main__":
    sys.exit(main())
