"""Published robust classifiers, measured by our `standard`: does a 99 % interval of ours hold the published figure?

usage: PYTHONPATH=src:. python -m benchmarks.published [--check]

Reads results/published/CLASSIFIER/summary.json, which `forefend evaluate --suite standard` left there, and renews the
table in results/published/README.md. With --check nothing is written; the exit status is 1 if an interval misses its
figure or the table is not the records' own.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pages import filled
from forefend.evaluation import results
from forefend.evaluation.results import CLEAN, Result
from forefend.evaluation.statistics import wilson
from forefend.runtime import files
from forefend.runtime.formatting import markdown_table

ROOT = Path("results/published")
Z99 = 2.5758293035489004  # the normal quantile that leaves 0.5 % above it


@dataclass(frozen=True)
class Published:
    """What others say of a checkpoint.

    Args:
        clean: accuracy in %.
        autoattack: in %, on 10,000 images, from AutoAttack's own table.
        claimed: what its authors' attack left, in %.
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
    """Read the command line, compare, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--root", type=Path, default=ROOT)
    given = parser.parse_args()
    page = given.root / "README.md"
    old = page.read_text(encoding="utf-8")
    new = renewed(old, given.root)
    if given.check:
        return int(new != old or not all(holds(given.root, name) for name in PUBLISHED))
    files.write(page, new.encode())
    return 0


def renewed(document: str, root: Path) -> str:
    """The page with its table made anew from the records."""
    heading = ["classifier", "attack", "published", "ours, 99 % interval", "n", "inside"]
    rows = (row for name in PUBLISHED for row in rows_of(root, name))
    return filled(document, {"published": markdown_table(heading, rows)})


def rows_of(root: Path, name: str) -> list[list[str]]:
    """Clean accuracy and AutoAttack of one classifier beside the published; what else ours found, and theirs."""
    said = PUBLISHED[name]
    rows = []
    for title, figure, attack in (("none", said.clean, CLEAN), ("AutoAttack", said.autoattack, "AutoAttack")):
        cell = cell_of(root, name, attack)
        low, high = interval(cell)
        inside = "yes" if low <= figure / 100 <= high else "NO"
        rows.append([name, title, f"{figure:.2f}", written(cell), str(cell.n), inside])
    square, pgd = (cell_of(root, name, attack) for attack in ("Square", "transfer from the classifier"))
    rows.append([name, "Square, 1,000 queries", "–", written(square), str(square.n), ""])
    rows.append([name, f"ours PGD-20, theirs {said.by}", f"{said.claimed:.2f}", written(pgd), str(pgd.n), ""])
    return rows


def written(cell: Result) -> str:
    """Accuracy in %, with its interval."""
    low, high = interval(cell)
    return f"{100 * cell.accuracy:.1f} [{100 * low:.1f}–{100 * high:.1f}]"


def holds(root: Path, name: str) -> bool:
    """Whether our 99 % interval holds the published AutoAttack figure."""
    low, high = interval(cell_of(root, name, "AutoAttack"))
    return low <= PUBLISHED[name].autoattack / 100 <= high


def interval(cell: Result) -> tuple[float, float]:
    """Wilson's interval at 99 %."""
    return wilson(round(cell.accuracy * cell.n), cell.n, Z99)


def cell_of(root: Path, name: str, attack: str) -> Result:
    """One cell of a classifier's evaluation."""
    return next(cell for cell in results.load(root / name) if cell.attack == attack)


if __name__ == "__main__":
    sys.exit(main())
