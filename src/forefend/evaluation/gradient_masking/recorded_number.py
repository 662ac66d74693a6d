from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from forefend.data import ImageDataset
from forefend.data.dataset import image_digests
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.gradient_masking.evidence import Number
from forefend.evaluation.records import Record
from forefend.evaluation.result_store import key_of
from forefend.evaluation.results import CLEAN
from forefend.models.freezing import frozen
from forefend.threat_models.base import ThreatModel


def recorded_number(
    on_record: Sequence[Record], model: EvaluatedModel, images: ImageDataset, threat: ThreatModel
) -> Number:
    """What is on record of this very subject, on this set of images, in this threat model.

    An image that was only ever classified stands up to nothing; one that was misclassified needs no attack.
    """
    key = key_of(frozen(model.network), images)
    ours = [r for r in on_record if r.model == key and (f" in {threat} [" in r.trial or r.trial == CLEAN)]
    digests = _digests(images) if ours else {}
    verdicts = [(record.trial, _still_true(record, digests)) for record in ours]
    attacked = frozenset(i for trial, those in verdicts if trial != CLEAN for i in those)
    lost = frozenset(i for _, those in verdicts for i, gone in those.items() if gone)
    trials = sorted({trial for trial, those in verdicts if trial != CLEAN and those})
    return Number(trials, attacked | lost, attacked - lost) if trials else Number(())


def _digests(images: ImageDataset) -> dict[int, str]:
    """Each image's digest, by dataset index."""
    batches = (images.batch(rows) for rows in torch.arange(len(images)).split(256))
    return {i: digest for x, y, index in batches for i, digest in zip(index.tolist(), image_digests(x, y), strict=True)}


def _still_true(record: Record, digests: Mapping[int, str]) -> dict[int, bool]:
    """A record's verdicts, without those on images that are no longer what they were."""
    held = record.images or [digests.get(i, "") for i in record.index]  # a record without digests is taken at its word
    verdicts = zip(record.index, record.lost, held, strict=False)
    return {i: gone for i, gone, digest in verdicts if digests.get(i, digest) == digest}
