"""Compare the verdicts of the baselines with ours, and update the tables in `results/peers/README.md`.

usage: PYTHONPATH=src:. python -m benchmarks.peers.compare [--check]

Only records are read. With --check nothing is written; the exit status is 1 if a target is missed, a record is missing
or the tables differ from the records. Targets: without a random start the same verdict on at least 99.5 % of images;
with one no difference that McNemar's exact test finds at p ≤ 0.01.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.pages import accuracy, renew
from benchmarks.peers.verdicts import DISTRIBUTIONS, OTHERS, OURS, SIGNIFICANT, Pair, folders, pairs
from forefend.runtime import files
from forefend.runtime.formatting import markdown_table

ROOT = Path("results/peers")


def main() -> int:
    """Compare, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--root", type=Path, default=ROOT)
    given = parser.parse_args()
    current = renew(given.root / "README.md", blocks(given.root), check=given.check)
    missed = [pair for pair in pairs(given.root) if not pair.passes]
    for pair in missed:
        print(f"missed: {pair} same={pair.same:.4f} p={pair.p:.3g}", file=sys.stderr)
    return int(given.check and bool(missed or not current))


def blocks(root: Path) -> dict[str, str]:
    """Return the tables of the page by name."""
    found = pairs(root)
    return {
        "from x": verdict_table(p for p in found if not p.at_random),
        "at random": verdict_table(p for p in found if p.at_random),
        "cost": cost_table(root),
    }


def verdict_table(found: Iterable[Pair]) -> str:
    """Return a table with a row for each pair."""
    heading = [
        "classifier",
        "attack",
        "ours",
        "baseline",
        "baseline's",
        "same verdict",
        "broken by ours / baseline only",
        "p",
        "",
    ]
    rows = [
        [
            *(p.comparison, p.attack.partition(", loss")[0] + ")", accuracy(p.broken, p.n), p.baseline),
            *(accuracy(p.broken_by_baseline, p.n), f"{100 * p.same:.1f}", f"{p.ours_alone} / {p.theirs_alone}"),
            *(f"{p.p:.2f}" if p.p >= SIGNIFICANT else f"{p.p:.1g}", "" if p.passes else "**missed**"),
        ]
        for p in found
    ]
    return markdown_table(heading, rows)


def cost_table(root: Path) -> str:
    """Return a table of the cost of each baseline, and how often it left its threat model."""
    heading = ["classifier", "library", "version", "torch", "CPU s", "wall s", "images outside", "furthest"]
    return markdown_table(heading, (cost_row(folder, name) for folder in folders(root) for name in (OURS, *OTHERS)))


def cost_row(folder: Path, name: str) -> list[str]:
    """Return the cost of one library on one classifier."""
    found = files.read_json(folder / f"{name}.json")
    trials = list(found["trials"].values())
    cpu, wall = (" / ".join(f"{trial[key]:.0f}" for trial in trials) for key in ("cpu_seconds", "wall_seconds"))
    outside, furthest = sum(trial["outside"] for trial in trials), max(trial["furthest"] for trial in trials)
    versions = (found["versions"][package] for package in (DISTRIBUTIONS[name], "torch"))
    return [folder.name, name, *versions, cpu, wall, str(outside), f"{furthest:.1g}"]


if __name__ == "__main__":
    sys.exit(main())
