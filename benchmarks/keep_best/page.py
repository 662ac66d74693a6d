"""The table of robust accuracy against gradients, from the records.

usage: PYTHONPATH=src:. python -m benchmarks.keep_best.page [--check]

Updates the tables of results/keep-best/README.md. With --check nothing is written; the exit status is 1 if they differ
from the records.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.keep_best.protocol import AUTOATTACK, FAST, RESULTS, SEEDS, VARIANTS, folder_of
from benchmarks.pages import main_of
from benchmarks.parity.page import formatted, gradients, verdicts
from benchmarks.parity.paired import paired
from forefend.runtime import files
from forefend.runtime.formatting import markdown_table

BASE = "published"
ORDER = (BASE, "ema", "best", *(name for name in VARIANTS if name not in (BASE, "ema", "best")))
NOT_RUN = "not run"


def main() -> int:
    """Update or check the page, and return the exit status."""
    return main_of(__doc__, RESULTS, blocks)


def blocks(root: Path = RESULTS) -> dict[str, str]:
    """Return the tables of the page by name."""
    head = ["variant", "training", "seed", "gradients", "CPU s", "epoch", "clean", "robust", "AutoAttack"]
    return {
        "runs": markdown_table(head, (run(root, name, seed) for name in ORDER for seed in SEEDS)),
        "differences": markdown_table(
            ["variant", "seeds", "difference from *published*", "seed by seed", "gradients"],
            (row for name in ORDER[1:] for row in difference(root, name)),
        ),
    }


def run(root: Path, name: str, seed: int) -> list[str]:
    """Return the row of a run, which may not have been run."""
    folder = folder_of(root, name, seed)
    cost = folder_of(root, VARIANTS[name].last_of or name, seed) / "cost.json"
    told = [name, VARIANTS[name].text, str(seed)]
    if not (folder / FAST / "summary.json").exists():
        return [*told, *[NOT_RUN] * 6]
    spent = files.read_json(cost)
    robust, clean = verdicts(folder / FAST), verdicts(folder / FAST, clean_only=True)
    return [
        *told,
        f"{gradients(spent) / 1000:.0f}k",
        f"{spent['cpu_seconds']:.0f}",
        epoch(folder),
        formatted(clean),
        formatted(robust),
        formatted(verdicts(folder / AUTOATTACK)) if (folder / AUTOATTACK / "summary.json").exists() else "",
    ]


def epoch(folder: Path) -> str:
    """Return which epoch was kept, of how many; "last" without a choice."""
    if not (folder / "kept.json").exists():
        return "last"
    epochs = files.read_json(folder / "config.json")["config"]["settings"]["epochs"]
    return f"{files.read_json(folder / 'kept.json')['kept']['epoch']} of {epochs}"


def difference(root: Path, name: str) -> Iterator[list[str]]:
    """Yield the difference from the published recipe, over the seeds that both were run with; none without any."""
    both = [(folder_of(root, name, seed), folder_of(root, BASE, seed), seed) for seed in SEEDS]
    both = [pair for pair in both if all((folder / FAST / "summary.json").exists() for folder in pair[:2])]
    if not both:
        return
    found = paired(*([verdicts(folder / FAST) for folder in folders] for folders in list(zip(*both))[:2]))  # noqa: B905
    costs = [
        sum(gradients(files.read_json(folder_of(root, VARIANTS[v].last_of or v, s) / "cost.json")) for *_, s in both)
        for v in (name, BASE)
    ]
    yield [
        name,
        ", ".join(str(seed) for *_, seed in both),
        f"{100 * found.difference:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]",
        ", ".join(f"{100 * each:+.1f}" for each in found.each),
        f"1/{costs[1] / costs[0]:.2f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
