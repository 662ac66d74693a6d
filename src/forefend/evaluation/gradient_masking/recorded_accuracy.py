"""Read the robust accuracy of a model from the records of earlier evaluations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from forefend.checks import InputError
from forefend.data import ImageDataset
from forefend.data.dataset import image_digests
from forefend.evaluation import records
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.gradient_masking.evidence import RecordedAccuracy
from forefend.evaluation.identification import KnownModels, examine, network_digest
from forefend.evaluation.records import Record
from forefend.evaluation.result_store import key_of
from forefend.evaluation.results import CLEAN
from forefend.models.freezing import frozen
from forefend.threat_models.base import ThreatModel


@dataclass(frozen=True)
class Recorded:
    """What earlier evaluations recorded: their verdicts, and what their models answered."""

    records: Sequence[Record]
    models: KnownModels


def read_records(folders: Iterable[str | Path], *, exclude: Path | None = None) -> Recorded:
    """Read all records below some folders, except those that gradient-masking checks wrote.

    Args:
        folders: folders of evaluations, or folders that contain them.
        exclude: a folder whose records are skipped: the one that the check will write.

    Raises:
        InputError: the folders hold no records.
    """
    named = " ".join(map(str, folders := list(folders)))
    paths = sorted({path.resolve() for folder in folders for path in Path(folder).rglob("records.jsonl")})
    if folders and not paths:
        raise InputError(f"{named}: no records.jsonl was found; name the folder of an evaluation.")
    skipped = {path.parent for path in paths if (path.parent / "check.json").exists()}
    skipped |= {exclude.resolve()} if exclude else set()
    paths = [path for path in paths if path.parent not in skipped]
    found = [record for path in paths for record in records.read(path)]
    return Recorded(found, KnownModels(path.parent for path in paths))


def recorded_accuracy(
    recorded: Recorded, model: EvaluatedModel, images: ImageDataset, threat: ThreatModel
) -> RecordedAccuracy:
    """Return what records state about this model, on these images, in this threat model.

    Only attacked images can be robust; images misclassified without an attack count as attacked.

    Args:
        recorded: records of any models.
        model: the model; its tensors, its architecture and its answers decide which records count.
        images: test images.
        threat: threat model of the attacks that count.
    """
    network = frozen(model.network)
    without_answers = key_of(network_digest(network), images)
    if not any(f"{record.model}:".startswith(f"{without_answers}:") for record in recorded.records):
        return RecordedAccuracy(())
    examined = examine(network, images, model.name)
    keys = {key_of(identity, images) for identity in recorded.models.identities(examined)}
    counting = [r for r in recorded.records if f" in {threat} [" in r.trial or r.trial == CLEAN]
    own = [r for r in counting if r.model in keys]
    unidentified = sum(len(r.index) for r in counting if r.model == without_answers)
    digests = _digests(images) if own else {}
    outcomes = [(record.trial, _valid_outcomes(record, digests)) for record in own]
    attacked = frozenset(i for trial, outcome in outcomes if trial != CLEAN for i in outcome)
    misclassified = frozenset(i for _, outcome in outcomes for i, is_adv in outcome.items() if is_adv)
    trials = sorted({trial for trial, outcome in outcomes if trial != CLEAN and outcome})
    if not trials:
        return RecordedAccuracy((), unidentified=unidentified)
    return RecordedAccuracy(trials, attacked | misclassified, attacked - misclassified, unidentified)


def _digests(images: ImageDataset) -> dict[int, str]:
    batches = (images.batch(rows) for rows in torch.arange(len(images)).split(256))
    return {i: digest for x, y, index in batches for i, digest in zip(index.tolist(), image_digests(x, y), strict=True)}


def _valid_outcomes(record: Record, digests: Mapping[int, str]) -> dict[int, bool]:
    """Return a record's outcomes, without those of images that have changed since."""
    held = record.images or [digests.get(i, "") for i in record.index]  # old records hold no digests
    outcomes = zip(record.index, record.misclassified, held, strict=False)
    return {i: is_adv for i, is_adv, digest in outcomes if digests.get(i, digest) == digest}
