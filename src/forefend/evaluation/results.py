"""Summary: verdicts counted into cells, each an accuracy with everything it needs to be believed. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from forefend.checks import InputError
from forefend.evaluation.statistics import wilson
from forefend.runtime.files import read_json, write_json

CLEAN = "none"
WORST = "worst"


@dataclass(frozen=True)
class Result:
    """One accuracy; shares are in [0, 1].

    Args:
        classifier: name of the classifier.
        seen: whether it was a guide of the defense.
        defended: whether the defense stood in front of it.
        attack: name of the trial; `none` on clean images, `worst` for the worst of all trials, image by image.
        norm: of the threat model; empty on clean images.
        radius: of the threat model; 0 on clean images.
        n: how many images were judged.
        accuracy: share classified correctly under this attack at this radius.
        low: lower end of the 95% Wilson interval of `accuracy`.
        high: upper end.
        cumulative: the same share when an image lost at a radius counts as lost at every larger one.
        seed: of the evaluation.
    """

    classifier: str
    seen: bool
    defended: bool
    attack: str
    norm: str
    radius: float
    n: int
    accuracy: float
    low: float
    high: float
    cumulative: float
    seed: int


@dataclass(frozen=True)
class Verdict:
    """The images that one trial broke, by dataset index; misclassified clean images are among them."""

    attack: str
    norm: str
    radius: float
    lost: frozenset[int]


@dataclass(frozen=True)
class Stand:
    """What the cells of one subject have in common."""

    classifier: str
    seen: bool
    defended: bool
    n: int
    seed: int

    def cell(self, verdict: Verdict, fallen: frozenset[int] | None = None) -> Result:
        """Count one verdict; `fallen` are the images lost at this radius or a smaller one."""
        standing = self.n - len(verdict.lost)
        low, high = wilson(standing, self.n)
        return Result(
            classifier=self.classifier,
            seen=self.seen,
            defended=self.defended,
            attack=verdict.attack,
            norm=verdict.norm,
            radius=verdict.radius,
            n=self.n,
            accuracy=standing / self.n,
            low=low,
            high=high,
            cumulative=1 - len(verdict.lost if fallen is None else fallen) / self.n,
            seed=self.seed,
        )


def cells(stand: Stand, clean: frozenset[int], verdicts: Iterable[Verdict]) -> list[Result]:
    """Every trial at every radius, and the worst of them where several attacks ran in one norm.

    Args:
        stand: whose cells these are.
        clean: the images misclassified without an attack.
        verdicts: one for each trial.
    """
    verdicts = list(verdicts)
    curves: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in verdicts:
        curves.setdefault((verdict.norm, verdict.attack), []).append(verdict)
    for norm in {verdict.norm: None for verdict in verdicts}:
        if sum(key[0] == norm for key in curves) > 1:
            curves[norm, WORST] = _worst([v for v in verdicts if v.norm == norm])
    found = [stand.cell(Verdict(CLEAN, "", 0.0, clean))]
    for curve in curves.values():
        fallen = clean
        for verdict in sorted(curve, key=lambda v: v.radius):
            fallen |= verdict.lost
            found.append(stand.cell(verdict, fallen))
    return found


def _worst(verdicts: list[Verdict]) -> list[Verdict]:
    """At each radius, the images that any trial broke."""
    lost: dict[float, frozenset[int]] = {}
    for verdict in verdicts:
        lost[verdict.radius] = lost.get(verdict.radius, frozenset()) | verdict.lost
    return [Verdict(WORST, verdicts[0].norm, radius, gone) for radius, gone in lost.items()]


def save(folder: Path, found: Iterable[Result]) -> None:
    """Write `summary.json` into `folder`."""
    write_json(folder / "summary.json", [asdict(cell) for cell in found])


def load(folder: Path) -> list[Result]:
    """The cells that an evaluation left in `folder`.

    Raises:
        InputError: there is no summary, or it is not one of ours; where the folder is a run, its evaluations are named.
    """
    inside = sorted(str(path.parent) for path in folder.glob("evaluations/*/summary.json"))
    if inside and not (folder / "summary.json").exists():
        raise InputError(f"{folder} is a run, and its evaluations are {', '.join(inside)}: name one of them.")
    rows = read_json(folder / "summary.json")
    wanted = {f.name for f in fields(Result)}
    if not isinstance(rows, list) or any(not isinstance(row, Mapping) or set(row) != wanted for row in rows):
        raise InputError(f"{folder}/summary.json is no list of cells: evaluate again to make it anew.")
    return [Result(**row) for row in rows]
