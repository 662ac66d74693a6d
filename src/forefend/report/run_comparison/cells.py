"""The accuracies that several runs measured of the same classifier, and their differences image by image."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from forefend.evaluation import records
from forefend.evaluation.comparison.paired import PairedDifference, paired_difference
from forefend.evaluation.recount import Recount
from forefend.evaluation.results import CLEAN, WORST, Result, column_title
from forefend.report.evidence.evaluations import FoundEvaluation, z_of
from forefend.report.evidence.identity import fingerprints
from forefend.report.evidence.sources import Sources

Right = Mapping[Hashable, bool]  # by image, whether it is classified correctly


@dataclass(frozen=True, order=True)
class CellKey:
    """What makes accuracies of several runs the same cell.

    Args:
        data: name and split of the images; empty where it was not recorded.
        norm: of the threat model; empty on clean images.
        radius: likewise.
        classifier: its name.
        defended: whether a defense is in front of it.
        attack: name of the attack, or `worst`.
    """

    data: str
    norm: str
    radius: float
    classifier: str
    defended: bool
    attack: str

    @property
    def threat(self) -> str:
        """The threat model in words."""
        return column_title(self.norm, self.radius)

    @property
    def model(self) -> str:
        """The classifier, and what is in front of it."""
        return f"{self.classifier}{', defended' if self.defended else ''}"


@dataclass(frozen=True)
class Measured:
    """One cell of one run.

    Args:
        result: the accuracy.
        evaluation: where it was measured.
        attacks: the identities of the attacks.
        images: which images and which seed, as text.
        fingerprint: of the classifier; empty where it was not recorded.
        model: what the accuracy is counted from; None where records do not say it.
        digests: by dataset index, the digest of each image.
    """

    result: Result
    evaluation: FoundEvaluation
    attacks: tuple[str, ...]
    images: str
    fingerprint: str
    model: Recount | None = None
    digests: Mapping[int, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The names of the attacks."""
        trials = self.model.model.trials if self.model else ()
        own = [name for name, norm, radius, _ in trials if _counts(self.result, name, norm, radius)]
        return list(dict.fromkeys(own)) or [self.result.attack]


@dataclass(frozen=True)
class ComparedCell:
    """One cell of all runs.

    Args:
        key: which cell it is.
        measured: one entry for each run; None where it was not measured.
        differences: for each run after the first, the difference to the first, or why there is none.
    """

    key: CellKey
    measured: Sequence[Measured | None]
    differences: Sequence[PairedDifference | str] = field(default=())

    @property
    def is_shared(self) -> bool:
        """Whether two runs or more measured it."""
        return sum(one is not None for one in self.measured) > 1

    @property
    def attack(self) -> str:
        """The attack in words."""
        if self.key.attack == CLEAN:
            return "no attack"
        if self.key.attack != WORST:
            return self.key.attack
        names = {", ".join(one.names) for one in self.measured if one}
        if len(names) > 1:
            return "the worst that each run met"
        count = max(len(one.names) for one in self.measured if one)
        return f"worst of {count} attacks" if count > 1 else names.pop()


def compared_cells(runs: Sequence[Sources]) -> list[ComparedCell]:
    """Return the cells of all runs, in order; where a run measured a cell several times, one is chosen.

    It is that on the images and under the attacks that the most runs share, then under the most attacks, then on the
    most images, then the lowest.

    Args:
        runs: the runs; differences are to the first.
    """
    found: dict[CellKey, list[list[Measured]]] = {}
    for number, run in enumerate(runs):
        for key, one in _measured(run):
            found.setdefault(key, [[] for _ in runs])[number].append(one)
    z = z_of(runs[0].confidence)
    cells = {}
    for key in sorted(found):
        chosen = _chosen(found[key])
        cells[key] = ComparedCell(key, chosen, [_difference(chosen[0], other, z) for other in chosen[1:]])
    return [cell for key, cell in cells.items() if not _repeats(cell, cells.get(replace(key, attack=WORST)))]


def _repeats(cell: ComparedCell, worst: ComparedCell | None) -> bool:
    """Whether the attack of a cell is the only one, and therefore the worst, in every run."""
    if worst is None or worst is cell:
        return False
    counted = [[one and (one.evaluation.folder, one.attacks) for one in each.measured] for each in (cell, worst)]
    return counted[0] == counted[1]


def _measured(run: Sources) -> Iterator[tuple[CellKey, Measured]]:
    known = {str(one["name"]): str(one["fingerprint"]) for one in run.card.get("guides", []) if "fingerprint" in one}
    known |= fingerprints(run)
    for one in run.evaluations:
        images = f"{one.about.get('index')} {one.about.get('pixels')} {one.about.get('seed')}"
        digests = _digests(one.folder) if one.models else {}
        for result in one.results:
            model = next((m for m in one.models if _is_of(m, result)), None)
            attacks = _attacks(model, result)
            found = Measured(result, one, attacks, images, known.get(result.classifier, ""), model, digests)
            for attack in dict.fromkeys((result.attack, _shown(one, result))):
                yield CellKey(one.data, result.norm, result.radius, result.classifier, result.defended, attack), found


def _shown(one: FoundEvaluation, result: Result) -> str:
    """Return `worst` for the only attack at a radius, which is then also the worst."""
    alike = [
        other.attack
        for other in one.results
        if (other.classifier, other.defended, other.norm, other.radius)
        == (result.classifier, result.defended, result.norm, result.radius)
    ]
    return WORST if result.norm and len(alike) == 1 else result.attack


def _is_of(model: Recount, result: Result) -> bool:
    return (model.model.classifier, model.model.defended) == (result.classifier, result.defended)


def _attacks(model: Recount | None, result: Result) -> tuple[str, ...]:
    """Return the identities of the attacks that a result counts; their names where no identity is recorded."""
    if model is None:
        return (result.attack,)
    return tuple(
        sorted(identity for name, norm, radius, identity in model.model.trials if _counts(result, name, norm, radius))
    )


def _counts(result: Result, name: str, norm: str, radius: float) -> bool:
    return (norm, radius) == (result.norm, result.radius) and result.attack in (WORST, name)


def _chosen(found: Sequence[Sequence[Measured]]) -> list[Measured | None]:
    everywhere = [alike for own in found for alike in {(one.images, one.attacks) for one in own}]

    def rank(one: Measured) -> tuple[float, ...]:
        shared = everywhere.count((one.images, one.attacks))
        return shared, len(one.attacks), one.result.n, -one.result.accuracy

    return [max(own, key=rank, default=None) for own in found]


def _difference(first: Measured | None, second: Measured | None, z: float) -> PairedDifference | str:
    if first is None or second is None:
        return "not measured"
    if first.fingerprint and second.fingerprint and first.fingerprint != second.fingerprint:
        return "another classifier of this name"
    if first.model is None or second.model is None:
        return "no records of the images"
    if first.attacks != second.attacks:
        return "other attacks"
    found = paired_difference(right_of(first), right_of(second), z)
    return found or "no image in common"


def right_of(measured: Measured) -> Right:
    """Return for each image, by dataset index and digest, whether it is classified correctly."""
    model, result = measured.model, measured.result
    assert model is not None
    named = [("", 0.0, CLEAN), *((norm, radius, name) for name, norm, radius, _ in model.model.trials)]
    counted = [
        verdicts
        for (norm, radius, name), verdicts in zip(named, model.verdicts, strict=True)
        if _counts(result, name, norm, radius)
    ]
    return {
        (index, measured.digests.get(index, "")): not any(verdicts[index] for verdicts in counted)
        for index in counted[0]
    }


def _digests(folder: Path) -> Mapping[int, str]:
    """Return the digest of each image of an evaluation, by dataset index."""
    found: dict[int, str] = {}
    for line in records.read(folder / "records.jsonl", lambda path, damaged: None):
        found |= dict(zip(line.index, line.images, strict=False))
    return found
