"""Results: accuracies with intervals, the table of them, and `summary.json`. This module does not need torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, final

from forefend.checks import InputError
from forefend.evaluation import records
from forefend.evaluation.movement import Movement, from_json
from forefend.evaluation.result_rows import read_rows, sealed
from forefend.evaluation.statistics import wilson
from forefend.runtime.files import read_versioned, write_versioned
from forefend.runtime.formatting import counted, format_radius, markdown_table, percent, text_table

CLEAN = "none"
WORST = "worst"
SHOWN_AS = {"fast": "fast (not AutoAttack)"}  # attacks that a reader may take for another
Layout = Callable[["Results"], tuple[list[str], list[list[str]]]]  # heading and rows of a table
Curve = list[tuple[float, frozenset[int]]]  # radius and misclassified images


@dataclass(frozen=True)
class Result:
    """One accuracy; shares are in [0, 1].

    Args:
        classifier: name of the classifier.
        seen: whether it was a guide of the defense.
        defended: whether the defense was in front of it.
        attack: name of the trial; `none` on clean images, `worst` for the worst of all trials,
            image by image.
        norm: of the threat model; empty on clean images.
        radius: of the threat model; 0 on clean images.
        n: the number of images.
        accuracy: share classified correctly under this attack at this radius.
        low: lower end of the 95% Wilson interval of `accuracy`.
        high: upper end.
        cumulative: the share when an image misclassified at a radius counts as misclassified at
            every larger one.
        seed: the seed of the evaluation.
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


@final
class Results(list[Result]):
    """The results of an evaluation; `print` shows them as a table.

    Args:
        results: the results.
        warnings: signs that a model does not work on clean images, a sentence each.
        predictions: by title of the model, how many clean images each class is predicted for.
        classes: the names of the classes, where they are known.
        movement: by title of a defended model and `label_of` an attack, how far images are moved.
        told: whether the warnings were printed when they were found; `print` then says how many there were.
    """

    def __init__(
        self,
        results: Iterable[Result] = (),
        warnings: Iterable[str] = (),
        predictions: Mapping[str, Sequence[int]] | None = None,
        classes: Sequence[str] = (),
        movement: Mapping[str, Mapping[str, Movement]] | None = None,
        told: bool = False,
    ) -> None:
        super().__init__(results)
        self.warnings, self.predictions, self.classes = list(warnings), dict(predictions or {}), list(classes)
        self.movement, self.told = dict(movement or {}), told

    def __str__(self) -> str:
        return self.to_text(rows_of)

    def to_text(self, layout: Layout) -> str:
        """Return the warnings and the table for the terminal; `layout` gives heading and rows of results."""
        warnings = [f"WARNING: {warning}" for warning in self.warnings]
        if self.told and warnings:
            warnings = [f"WARNING: {counted(len(warnings), 'warning')} above"]
        return "\n".join([*warnings, text_table(*layout(self)), caption(self)])

    def to_markdown(self, layout: Layout | None = None) -> str:
        """Return the warnings and the table in Markdown; the layout is `rows_of` by default."""
        warnings = [f"**Warning:** {warning}" for warning in self.warnings]
        return "\n\n".join([*warnings, markdown_table(*(layout or rows_of)(self)), caption(self)])

    def fooling_rate(self, result: Result) -> float | None:
        """Return the share of the images classified correctly without an attack whose prediction it changes.

        None if no image is classified correctly, or the clean accuracy is missing.
        """
        model = (result.classifier, result.defended, result.seed)
        clean = [r.accuracy for r in self if r.attack == CLEAN and (r.classifier, r.defended, r.seed) == model]
        return 1 - result.accuracy / clean[0] if clean and clean[0] else None

    def moved(self, result: Result) -> Movement | None:
        """Return how far the images of a result are moved; None where that was not measured."""
        title = f"{result.classifier}{' defended' * result.defended}"
        return self.movement.get(title, {}).get(label_of(result.attack, result.norm, result.radius))

    def worst(self, classifier: str | None = None, *, defended: bool | None = None) -> Result:
        """Return the lowest accuracy, of all results or of one classifier.

        Args:
            classifier: its name; None for any.
            defended: with or without the defense; None for either.
        """
        chosen = [r for r in self if classifier in (None, r.classifier) and defended in (None, r.defended)]
        return min(chosen, key=lambda result: result.accuracy)


@dataclass(frozen=True)
class Row:
    """What the results of one model have in common."""

    classifier: str
    seen: bool
    defended: bool
    n: int
    seed: int

    def count(self, trials: Sequence[tuple[str, str, float]], verdicts: Sequence[Mapping[int, bool]]) -> list[Result]:
        """Count verdicts for each trial at each radius, and for the worst of several in one norm.

        Args:
            trials: attack, norm and radius of each trial; the first is for clean images.
            verdicts: for each trial, whether each image is misclassified.
        """
        broken = [frozenset(index for index, wrong in those.items() if wrong) for those in verdicts]
        curves: dict[tuple[str, str], Curve] = {}
        for (attack, norm, radius), images in zip(trials[1:], broken[1:], strict=True):
            curves.setdefault((attack, norm), []).append((radius, images))
        for norm in dict.fromkeys(norm for _, norm, _ in trials[1:]):
            together = [points for (_, other), points in curves.items() if other == norm]
            if len(together) > 1:
                curves[WORST, norm] = _worst(together)
        found = [self._result(CLEAN, "", 0.0, broken[0], broken[0])]
        for (attack, norm), points in curves.items():
            so_far = broken[0]
            for radius, images in sorted(points, key=lambda point: point[0]):
                so_far |= images
                found.append(self._result(attack, norm, radius, images, so_far))
        return found

    def _result(self, attack: str, norm: str, radius: float, broken: frozenset[int], so_far: frozenset[int]) -> Result:
        right = self.n - len(broken)
        low, high = wilson(right, self.n)
        cumulative = 1 - len(so_far) / self.n
        share: dict[str, Any] = {"accuracy": right / self.n, "low": low, "high": high, "cumulative": cumulative}
        return Result(**vars(self), attack=attack, norm=norm, radius=radius, **share)


def _worst(curves: Sequence[Curve]) -> Curve:
    """Return at each radius the images that any trial breaks."""
    broken: dict[float, frozenset[int]] = {}
    for radius, images in (point for curve in curves for point in curve):
        broken[radius] = broken.get(radius, frozenset()) | images
    return list(broken.items())


def rows_of(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Return heading and rows: one row for each classifier and defense, one column for each radius.

    Beside a defense, each classifier is called guide or unseen. A column shows the worst attack,
    image by image.
    """
    columns = columns_of(results)
    heading = ["classifier", "defense", *(column_title(*column) for column in columns)]
    rows = []
    for classifier, seen, defended in dict.fromkeys((r.classifier, r.seen, r.defended) for r in results):
        own = [r for r in results if (r.classifier, r.seen, r.defended) == (classifier, seen, defended)]
        role = f" ({'guide' if seen else 'unseen'})" if any(r.defended for r in results) else ""
        rows.append([classifier + role, "yes" if defended else "no", *(cell(own, *column) for column in columns)])
    return heading, rows


def columns_of(results: Sequence[Result]) -> list[tuple[str, float]]:
    """Return the norms and radii of results, ascending; clean images come first."""
    return sorted({(r.norm, r.radius) for r in results})


def label_of(attack: str, norm: str, radius: float) -> str:
    """Return the text that tells the attacks of an evaluation apart."""
    return f"{attack} {column_title(norm, radius)}"


def norm_and_radius(threat: str) -> tuple[str, float] | None:
    """Return norm and radius of a threat model's text, such as `Linf:8/255`; None if it is none."""
    norm, _, radius = threat.partition(":")
    try:
        return norm, float(Fraction(radius.partition("(")[0]))
    except (ValueError, ZeroDivisionError):
        return None


def column_title(norm: str, radius: float) -> str:
    """Return the heading of a column."""
    return f"{norm} {format_radius(radius)}" if norm else "clean"


def cell(results: Sequence[Result], norm: str, radius: float) -> str:
    """Return the accuracy at a radius with its interval, under the worst attack."""
    here = [r for r in results if (r.norm, r.radius) == (norm, radius)]
    if not here:
        return "–"
    shown = next((r for r in here if r.attack == WORST), here[0])
    return percent(shown.accuracy, shown.low, shown.high, shown.n)


def caption(results: Sequence[Result]) -> str:
    """Return the line under a table: attacks, seed and interval."""
    attacks = list(dict.fromkeys(SHOWN_AS.get(r.attack, r.attack) for r in results if r.attack not in (CLEAN, WORST)))
    attacked = f"attacks: {', '.join(attacks)}, the worst image by image; " if attacks else ""
    seeds = ", ".join(map(str, sorted({r.seed for r in results})))
    return f"accuracy in %, [95% Wilson interval]; {attacked}seed {seeds}"


def save(folder: Path, results: Iterable[Result]) -> None:
    """Write `summary.json` into `folder`."""
    content: dict[str, Any] = sealed([asdict(result) for result in results])
    if isinstance(results, Results):
        content |= {"warnings": results.warnings, "predictions": results.predictions}
        content |= {"classes": results.classes} if results.classes else {}
        moved = {title: {name: asdict(one) for name, one in own.items()} for title, own in results.movement.items()}
        content |= {"movement": moved} if any(moved.values()) else {}
    write_versioned(folder / "summary.json", content)


def load(folder: Path) -> Results:
    """Read the results of an evaluation from its folder.

    Where the records lie beside it, those that were damaged or edited are named.

    Raises:
        InputError: there is no summary, or it is not one of ours; for a run, the message names its
            evaluations.
    """
    inside = sorted(str(path.parent) for path in folder.glob("evaluations/*/summary.json"))
    if inside and not (folder / "summary.json").exists():
        raise InputError(f"{folder} is a run, and its evaluations are {', '.join(inside)}: give one of them.")
    records.read(folder / "records.jsonl")  # names lines that were edited
    return read_summary(folder)


def read_summary(folder: Path) -> Results:
    """Read `summary.json` alone.

    Raises:
        InputError: there is none, or it is not one of ours.
    """
    rows = read_rows(folder / "summary.json", Result)
    held = read_versioned(folder / "summary.json")
    held = held if isinstance(held, dict) else {}
    more = {name: held[name] for name in ("warnings", "predictions", "classes") if name in held}
    moved = {title: from_json(own) for title, own in held.get("movement", {}).items()}
    return Results((Result(**row) for row in rows), **more, movement=moved)
