"""What a server says of itself: the card of its defense with what was measured, and the images that it takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from forefend.evaluation.statistics import wilson
from forefend.models.defense import Defense
from forefend.models.defense_readme import accuracies_on, files_of
from forefend.models.release import RELEASE
from forefend.report.measured import measured_in
from forefend.runtime.files import FORMAT, provenance
from forefend.serving.limits import Limits
from forefend.serving.measured_on import OTHER, SERVED, UNIDENTIFIED, ServedPipeline, known_in
from forefend.serving.pipeline import Pipeline

MEASURED_OF = {
    SERVED: "exactly the classifier that is served, behind this defense",
    OTHER: "another classifier behind this defense, maybe of the same name",
    UNIDENTIFIED: "a classifier behind this defense that could not be compared with the one that is served",
}


def describe(
    pipeline: Pipeline, limits: Limits, card: str, *, resize: bool, folder: Path | None = None
) -> dict[str, Any]:
    """Return JSON values that describe a server.

    Args:
        pipeline: what answers.
        limits: what is accepted.
        card: the model card of its defense, as `model_card` returns it.
        resize: whether pictures of other sizes are resized.
        folder: as for `model_card`.
    """
    defense = pipeline.defense
    served = ServedPipeline(pipeline, known_in(folder))
    return {
        "format": FORMAT,
        "versions": provenance()["versions"],
        "classifier": _classifier(pipeline),
        "pipeline": served.digest,
        "defense": {"identity": defense.identity(), "verified": defense.verified, **asdict(defense.card)},
        "images": {"shape": list(pipeline.shape), "resize": resize, "any_size": pipeline.any_size},
        "limits": limits.as_json(),
        "measured": _measured(card, served),
        "measured_of": MEASURED_OF,
        "model_card": card,
    }


def _measured(card: str, served: ServedPipeline) -> list[dict[str, Any]]:
    """Return the accuracies on a model card with their 95% Wilson intervals, in %, and what each was measured on."""
    stated = accuracies_on(card)
    for one in (accuracy for each in stated for accuracy in each["accuracies"]):
        n = int(found[1]) if (found := re.search(r"n=(\d+)", one["name"])) else 0
        bounds = wilson(round(one["percent"] * n / 100), n) if n else ()
        one["of"] = served.compare(one["pipeline"])
        one["interval"] = [round(100 * bound, 2) for bound in bounds] or None
    return stated


def _classifier(pipeline: Pipeline) -> Mapping[str, Any]:
    return {
        "name": pipeline.name,
        "fingerprint": pipeline.identity,
        "seen": pipeline.defense.has_seen(pipeline.network),
        "alone": pipeline.alone,
        "probabilities": pipeline.scores,
        "random": pipeline.random,
        "classes": pipeline.classes,
    }


def model_card(defense: Defense, folder: Path | None) -> str:
    """Return the model card of a defense, whose accuracies are counted from the records of its evaluations.

    Args:
        defense: the defense.
        folder: of its run, or one that `Defense.save_pretrained` wrote, whose card is returned as it is; None for none.
    """
    if folder is not None and (folder / RELEASE).exists():
        return (folder / "README.md").read_text(encoding="utf-8")
    found = [] if folder is None else measured_in(defense, folder)
    return files_of(asdict(defense.card), found, "")["README.md"].decode()
