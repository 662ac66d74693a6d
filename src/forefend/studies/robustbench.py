"""The measured networks of a table in the form of RobustBench's model files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from forefend.runtime.files import content_digest
from forefend.studies.measurements import Accuracy
from forefend.studies.table import Cell
from forefend.studies.tasks import Place

PAPERS: Mapping[str, tuple[str, str, str]] = {  # authors, venue, link
    "freezing": ("forefend", "", ""),
    "aaa": ("Vaishnavi et al.", "arXiv 2019", "https://arxiv.org/abs/1909.05921"),
    "jatp": ("Zhou et al.", "arXiv 2021", "https://arxiv.org/abs/2106.05453"),
    "robustifier": ("Norouzzadeh et al.", "ICML 2021 workshop", ""),
    "rtfe": ("Cann et al.", "arXiv 2022", "https://arxiv.org/abs/2209.06931"),
    "transfer": ("Davchev et al.", "arXiv 2019", "https://arxiv.org/abs/1905.02675"),
}


def entries(paper: str, cells: Sequence[Cell], place: Place) -> list[dict[str, Any]]:
    """Return an entry for each network of which an accuracy under attack is measured, with the keys of RobustBench.

    `attacks` has accuracy and number of images by identity of the attack, since few are RobustBench's AutoAttack.

    Args:
        paper: the name of the study.
        cells: its cells.
        place: where their tasks keep their results.
    """
    authors, venue, link = PAPERS[paper]
    found: dict[str, dict[str, Any]] = {}
    for cell in cells:
        for task in cell.tasks():
            if not isinstance(task, Accuracy) or task.seconds(place) is None:
                continue
            about = {"link": link, "authors": authors, "venue": venue, "additional_data": False}
            network = {name: value for name, value in task.pipeline.config().items() if name != "images"}
            entry = found.setdefault(content_digest(network), _entry(task, cell.row) | about)
            count = task.count(place)
            if task.attack is None:
                entry["clean_acc"] = f"{count.accuracy():.2f}"
                continue
            entry["norm"], _, entry["eps"] = task.attack.threat.partition(":")
            entry["attacks"][count.trials[0]] = {"accuracy": f"{count.accuracy():.2f}", "n": count.n}
            if task.attack.name == "autoattack":
                entry["autoattack_acc"] = f"{count.accuracy():.2f}"
    return [entry for entry in found.values() if entry["attacks"]]


def _entry(task: Accuracy, row: str) -> dict[str, Any]:
    pipeline, defense = task.pipeline, task.pipeline.defense
    network = {
        "architecture": pipeline.classifier.architecture,
        "preprocessor": defense.architecture if defense else "",
    }
    trained = {"recipe": defense.recipe if defense else getattr(pipeline.classifier, "recipe", "published")}
    passes = {"number_forward_passes": str(max(1, pipeline.copies))}
    return {"name": row, "dataset": pipeline.data, **network, **trained, **passes, "attacks": dict[str, Any]()}
