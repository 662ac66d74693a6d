"""Compare the peers' verdicts with ours, from the records alone, and renew the tables in `results/peers/README.md`.

usage: PYTHONPATH=src:. python -m benchmarks.peers.compare [--check]

With --check nothing is written; the exit status is 1 if a bar is missed, a record is missing or the tables are not the
records' own. Bars: without a random start the same verdict on at least 99.5 % of images; with one no difference that
McNemar's exact test finds at p ≤ 0.01.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.pages import accuracy, filled
from forefend.runtime import files
from forefend.runtime.formatting import markdown_table

from .verdicts import DISTRIBUTIONS, OURS, PEERS, SIGNIFICANT, Pair, folders, pairs

ROOT = Path("results/peers")


def main() -> int:
    """Read the command line, compare, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--root", type=Path, default=ROOT)
    given = parser.parse_args()
    page = given.root / "README.md"
    old = page.read_text(encoding="utf-8")
    new = renewed(old, given.root)
    missed = [pair for pair in pairs(given.root) if not pair.passes]
    for pair in missed:
        print(f"missed: {pair} same={pair.same:.4f} p={pair.p:.3g}", file=sys.stderr)
    if not given.check:
        files.write(page, new.encode())
        return 0
    if new != old:
        print(f"The tables of {page} are not those of its records: run this without --check.", file=sys.stderr)
    return int(bool(missed) or new != old)


def renewed(document: str, root: Path) -> str:
    """The document with what stands between each `<!-- NAME -->` and `<!-- end -->` made anew from the records."""
    found = pairs(root)
    return filled(
        document,
        {
            "from x": verdict_table(p for p in found if not p.at_random),
            "at random": verdict_table(p for p in found if p.at_random),
            "cost": cost_table(root),
        },
    )


def verdict_table(found: Iterable[Pair]) -> str:
    """A row for each pair."""
    heading = ["classifier", "attack", "ours", "peer", "peer's", "same verdict", "lost to ours / theirs alone", "p", ""]
    rows = [
        [
            *(p.comparison, p.attack.partition(", loss")[0] + ")", accuracy(p.lost, p.n), p.peer),
            *(accuracy(p.lost_too, p.n), f"{100 * p.same:.1f}", f"{p.ours_alone} / {p.theirs_alone}"),
            *(f"{p.p:.2f}" if p.p >= SIGNIFICANT else f"{p.p:.1g}", "" if p.passes else "**missed**"),
        ]
        for p in found
    ]
    return markdown_table(heading, rows)


def cost_table(root: Path) -> str:
    """What each attacker cost, from x and at random, and how often it left its threat model."""
    heading = ["classifier", "attacker", "version", "torch", "CPU s", "wall s", "images outside", "furthest"]
    return markdown_table(heading, (cost_row(folder, peer) for folder in folders(root) for peer in (OURS, *PEERS)))


def cost_row(folder: Path, peer: str) -> list[str]:
    """What one attacker cost on one classifier."""
    told = files.read_json(folder / f"{peer}.json")
    tolls = list(told["trials"].values())
    cpu, wall = (" / ".join(f"{toll[key]:.0f}" for toll in tolls) for key in ("cpu_seconds", "wall_seconds"))
    outside, furthest = sum(toll["outside"] for toll in tolls), max(toll["furthest"] for toll in tolls)
    versions = (told["versions"][name] for name in (DISTRIBUTIONS[peer], "torch"))
    return [folder.name, peer, *versions, cpu, wall, str(outside), f"{furthest:.1g}"]


if __name__ == "__main__":
    sys.exit(main())
