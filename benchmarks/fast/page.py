"""Tables of the suite fast beside AutoAttack and the other suites, from the records.

usage: PYTHONPATH=src:. python -m benchmarks.fast.page [--check]

Updates the tables of results/fast/README.md. With --check nothing is written; the exit status is 1 if they differ from
the records. A case is shown once AutoAttack and `fast` have finished on it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fast.cases import CASES
from benchmarks.fast.counting import Passes
from benchmarks.fast.measure import FACTORS
from benchmarks.fast.optimality import cumulative, optimality
from benchmarks.pages import accuracy, main_of
from forefend.evaluation import records
from forefend.evaluation.results import CLEAN
from forefend.runtime import files
from forefend.runtime.formatting import markdown_table
from forefend.threat_models.lp import Linf

ROOT, PUBLISHED = Path("results/fast"), Path("results/published")
REFERENCE, OURS = "autoattack", "fast"
# AutoAttack on these was recorded before; its cost was counted on fewer images.
RECORDED = {"trades-mnist": "trades-mnist-smallcnn-robust", "fastat-mnist": "fastat-mnist-fgsm-robust"}
CURVES = ("quick", OURS, "robustifier", "rtfe", REFERENCE)  # suites at several radii
WORSE, SHARE, TIMES = 0.003, 0.1, 5.0  # targets: accuracy above AutoAttack's, share of its passes, and times faster
Verdicts = dict[int, bool]


@dataclass(frozen=True)
class Measured:
    """What a suite found on a case, and what it took.

    Args:
        broken: whether each image is misclassified, by dataset index.
        passes: the cost; None where it was not counted.
        images: number of images that the cost is of.
    """

    broken: Verdicts
    passes: Passes | None
    images: int

    def per_image(self, name: str) -> float | None:
        """Return a part of the cost for an image."""
        return getattr(self.passes, name) / self.images if self.passes else None


def main() -> int:
    """Update or check the page, and return the exit status."""
    return main_of(__doc__, ROOT, blocks)


def blocks(root: Path) -> dict[str, str]:
    """Return the tables of the page by name."""
    found = {
        name: (reference, ours)
        for name in CASES
        if (reference := autoattack(root, name)) and (ours := of(root / name / OURS))
    }
    heading = [
        "case",
        "threat model",
        "attack",
        "robust",
        "gradients",
        "forward passes",
        "CPU ms",
        "counted on",
        "breaks alone",
    ]
    return {
        "optimality": markdown_table(
            ["case", "suite", "optimality", *(f"at {factor:g} ε" for factor in FACTORS), "gradients", "forward passes"],
            (row for name in CASES for row in curve_rows(root / name / "curve", name)),
        ),
        "verdicts": markdown_table(heading, (row for name, pair in found.items() for row in rows(name, *pair))),
        "targets": markdown_table(
            ["case", "robust, difference", "gradients", "forward passes", "faster", ""],
            (target_row(name, *pair) for name, pair in found.items()),
        ),
        "misses": markdown_table(
            ["case", "only AutoAttack", "only fast"], (named(name, *pair) for name, pair in found.items())
        ),
    }


def autoattack(root: Path, name: str) -> Measured | None:
    """Return what AutoAttack found: recorded here, or with the published classifiers and its cost here."""
    here = of(root / name / REFERENCE)
    if name not in RECORDED:
        return here
    broken = verdicts(PUBLISHED / RECORDED[name], "AutoAttack-")
    return Measured(broken, here.passes if here else None, here.images if here else len(broken))


def of(folder: Path) -> Measured | None:
    """Return what was found in a folder, or None if it has no finished evaluation."""
    if not (folder / "summary.json").exists():
        return None
    spent = [line for _, line in files.read_records(folder / "cost.jsonl", Passes)]
    total = Passes(*(sum(getattr(line, name) for line in spent) for name in Passes.__annotations__))
    broken = verdicts(folder, "")
    return Measured(broken, total, len(broken))


def verdicts(folder: Path, attack: str) -> Verdicts:
    """Return whether each image is misclassified clean or by attacks whose identity begins with `attack`."""
    broken: Verdicts = {}
    for record in records.read(folder / "records.jsonl"):
        if record.trial == CLEAN or record.trial.startswith(attack):
            for index, wrong in zip(record.index, record.misclassified, strict=True):
                broken[index] = broken.get(index, False) or wrong
    return broken


def rows(name: str, reference: Measured, ours: Measured) -> Iterator[list[str]]:
    """Yield the row of AutoAttack and that of fast."""
    for attack, own, other in (("AutoAttack", reference, ours), ("fast", ours, reference)):
        alone = sum(own.broken[index] and not other.broken[index] for index in own.broken)
        numbers = [own.per_image(part) for part in ("gradients", "forwards", "cpu_seconds")]
        shown = [
            "–" if number is None else f"{number * scale:.0f}"
            for number, scale in zip(numbers, (1, 1, 1000), strict=True)
        ]
        robust = f"{accuracy(sum(own.broken.values()), len(own.broken))} n={len(own.broken)}"
        yield [
            name,
            str(CASES[name].threat),
            attack,
            robust,
            *shown,
            str(own.images) if own.passes else "–",
            str(alone),
        ]


def target_row(name: str, reference: Measured, ours: Measured) -> list[str]:
    """Return the difference in points, and the shares of the cost, with what is missed."""
    difference = (sum(reference.broken.values()) - sum(ours.broken.values())) / len(ours.broken)
    shares = [share(ours, reference, part) for part in ("gradients", "forwards", "cpu_seconds")]
    met = difference <= WORSE and all(
        each is None or each <= bound for each, bound in zip(shares, (SHARE, SHARE, 1 / TIMES), strict=True)
    )
    gradients, forwards = ("–" if each is None else f"{each:.1%}" for each in shares[:2])
    faster = "–" if shares[2] is None else f"{1 / shares[2]:.1f} ×"
    return [name, f"{100 * difference:+.1f}", gradients, forwards, faster, "" if met else "**missed**"]


def curve_rows(folder: Path, name: str) -> Iterator[list[str]]:
    """Yield the optimality, the accuracy at each radius and the cost of each suite that has finished on a case."""
    finished = {suite: found for suite in CURVES if (found := of(folder / suite))}
    images = next((len(found.broken) for found in finished.values()), 0)
    curves = {suite: curve_of(folder / suite, CASES[name].threat.radius) for suite in finished}
    best = cumulative(list(curves.values()))
    for suite, found in finished.items():
        accuracies = [f"{100 * (1 - len(curves[suite][factor]) / images):.1f}" for factor in FACTORS]
        cost = [f"{(found.per_image(part) or 0):.0f}" for part in ("gradients", "forwards")]
        shown = f"{100 * optimality(curves[suite], best, images):.1f}"
        yield [name, "AutoAttack" if suite == REFERENCE else suite, shown, *accuracies, *cost]


def curve_of(folder: Path, radius: float) -> dict[float, frozenset[int]]:
    """Return the images that a suite breaks at each factor of the radius, those misclassified clean at 0."""
    broken: dict[float, set[int]] = {factor: set() for factor in (0.0, *FACTORS)}
    for record in records.read(folder / "records.jsonl"):
        wrong = {index for index, each in zip(record.index, record.misclassified, strict=True) if each}
        at = next((f for f in FACTORS if f" in {Linf(f * radius)} [" in record.trial), 0.0)
        for factor in broken if record.trial == CLEAN else (at,):
            broken[factor] |= wrong
    return {factor: frozenset(found) for factor, found in broken.items()}


def share(ours: Measured, reference: Measured, part: str) -> float | None:
    """Return a part of the cost of fast as a share of AutoAttack's."""
    own, other = ours.per_image(part), reference.per_image(part)
    return None if own is None or not other else own / other


def named(name: str, reference: Measured, ours: Measured) -> list[str]:
    """Return the dataset indices of the images that only one of the two breaks."""
    pairs = ((reference.broken, ours.broken), (ours.broken, reference.broken))
    return [name, *(" ".join(str(i) for i in sorted(a) if a[i] and not b[i]) or "–" for a, b in pairs)]


if __name__ == "__main__":
    sys.exit(main())
