"""The table and heat maps of robustness under transfer learning (Davchev et al., arXiv 1905.02675)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from typing import Any

from forefend.report import figures
from forefend.studies.networks import Trained
from forefend.studies.scales.transfer import SOURCES, TARGETS
from forefend.studies.setting import SCALES, Setting, measured
from forefend.studies.table import Cell, Table

COLUMNS = {"Natural": "Natural", "BB-FGSM": "FGSM", "BB-PGD": "PGD", "WB-FGSM": "FGSM", "WB-PGD": "PGD"}
TABLE_1 = {
    "nat": (92.5, 34.7, 12.6, 20.0, 0.0),
    "nat→nat 1": (73.1, 33.5, 30.2, 7.4, 0.0),
    "nat→nat 18": (91.2, 41.1, 24.6, 18.4, 0.0),
    "nat→nat 56": (92.6, 35.0, 14.9, 18.5, 0.0),
    "fgsm": (87.1, 81.5, 82.2, 78.6, 13.5),
    "fgsm_no_ll": (87.4, 76.0, 78.1, 88.5, 0.2),
    "fgsm→nat 1": (69.0, 46.3, 54.0, 23.5, 0.0),
    "fgsm→nat 18": (89.1, 58.3, 65.1, 43.3, 2.4),
    "fgsm→nat 56": (91.9, 37.9, 27.9, 23.6, 0.0),
    "nat→fgsm 1": (69.3, 40.9, 38.8, 13.1, 0.0),
    "nat→fgsm 18": (77.3, 65.0, 60.2, 41.9, 0.5),
    "nat→fgsm 56": (88.1, 69.3, 71.3, 78.4, 1.8),
    "fgsm→fgsm 1": (66.6, 56.2, 60.0, 42.7, 0.2),
    "fgsm→fgsm 18": (87.2, 71.4, 76.6, 67.5, 2.9),
    "fgsm→fgsm 56": (85.7, 65.2, 66.3, 72.3, 1.5),
    "pgd": (83.9, 81.1, 82.1, 45.4, 36.1),
    "pgd→nat 1": (64.9, 62.6, 63.0, 18.0, 12.0),
    "pgd→nat 18": (84.6, 80.4, 81.6, 26.2, 12.5),
    "pgd→nat 56": (91.4, 42.4, 31.9, 19.9, 0.0),
    "nat→pgd 1": (52.2, 30.6, 32.8, 13.2, 0.0),
    "nat→pgd 18": (60.8, 31.6, 30.7, 20.0, 1.0),
    "nat→pgd 56": (81.5, 79.2, 79.9, 45.6, 39.2),
    "pgd→pgd 1": (61.3, 59.6, 60.0, 25.6, 20.3),
    "pgd→pgd 18": (81.3, 78.6, 79.6, 45.1, 39.1),
    "pgd→pgd 56": (82.6, 80.1, 80.9, 47.7, 41.3),
}
# How a name in these rows trains: the steps of its attack, their size, and the labels that it is given.
TRAININGS: dict[str, dict[str, Any]] = {
    "nat": {"steps": 0},
    "fgsm": {"steps": 1, "relative_step": 1.0, "labels": "predicted_labels"},
    "fgsm_no_ll": {"steps": 1, "relative_step": 1.0, "labels": "true_labels"},
    "pgd": {"steps": 7, "relative_step": 0.25, "labels": "true_labels"},
}
LAYERS = {"1": "head", "18": "last_stage", "56": "everything"}
BASELINES = ("nat", "fgsm", "fgsm_no_ll", "pgd")
SHOWN: dict[str, Callable[[str], bool]] = {  # the rows of each heat map
    "figure-2": lambda row: row in BASELINES or "→nat" in row,
    "figure-3": lambda row: row in BASELINES or (not row.endswith(" 1") and ("→nat" not in row or row[:3] == "nat")),
    "figure-4": lambda row: True,
    "figure-5": lambda row: "fgsm" in row or "pgd" in row,
}


def _from_scratch(setting: Setting, name: str) -> Trained:
    """A network that starts from random weights."""
    settings = setting.settings("transfer") | dict(setting.recipes["source"]) | TRAININGS[name]
    network = setting.architecture("network")
    return Trained("transfer", setting.data, setting.train, network, settings | {"layers": "everything"})


def network_of(row: str, source: Setting, target: Setting) -> Trained:
    """The training of a row: `source→target layers`, or a name alone for a network without a source."""
    names, _, layers = row.partition(" ")
    before, arrow, after = names.partition("→")
    if not arrow:
        return _from_scratch(target, before)
    settings = target.settings("transfer", layers=LAYERS[layers], **TRAININGS[after])
    start = _from_scratch(source, before)
    return Trained("transfer", target.data, target.train, target.architecture("network"), settings, start=start)


def table(source: Setting, target: Setting, shown: Callable[[str], bool]) -> list[Cell]:
    """The cells of Table 1, or of some of its rows."""
    surrogate, cells = {"surrogate": target.classifier("surrogate")}, []
    columns = COLUMNS | {f"WB-{name}": name for name in target.added}
    for row, numbers in TABLE_1.items():
        if not shown(row):
            continue
        network = network_of(row, source, target)
        for (column, attack), number in zip_longest(columns.items(), numbers):
            others = surrogate if column.startswith("BB") else {}
            cells.append(
                Cell(row, column, number, measured(target, network, attack, others=others), differs=target.differs)
            )
    return cells


def _at(name: str) -> dict[str, Callable[[], Sequence[Cell]]]:
    """The cells by scale; heat maps have the paper's columns alone."""
    shown, targets = SHOWN.get(name, SHOWN["figure-4"]), TARGETS
    if name in SHOWN:
        targets = {scale: replace(target, added=()) for scale, target in TARGETS.items()}
    return {scale: partial(table, SOURCES[scale], targets[scale], shown) for scale in SCALES}


ROWS = "A row is source→target and the number of layers that are retrained; one name alone had no source."
CHOICE = "The paper draws the best strategies; here are all that retrain more than the last layer."
TABLES = (
    Table("table-1", "25 networks, black-box and white-box attacks", "appendix, Table 1", _at("table-1"), note=ROWS),
    Table("figure-2", "Robust sources", "section 3.1, Figure 2", _at("figure-2"), note=ROWS, draw=figures.heat_map),
    Table(
        "figure-3",
        "Robust sources and targets",
        "section 3.2, Figure 3",
        _at("figure-3"),
        note=f"{ROWS} {CHOICE}",
        draw=figures.heat_map,
    ),
    Table("figure-4", "All networks", "appendix, Figure 4", _at("figure-4"), note=ROWS, draw=figures.heat_map),
    Table("figure-5", "FGSM beside PGD", "appendix, Figure 5", _at("figure-5"), note=ROWS, draw=figures.heat_map),
)
