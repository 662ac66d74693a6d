"""The tables and figures of JATP (Zhou et al., arXiv 2106.05453)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from typing import Any

from forefend.report import figures
from forefend.studies.measurements import Measurement, Outputs, Pipeline
from forefend.studies.networks import Published, Source, Trained
from forefend.studies.scales.jatp import ALPHAS, BETAS, CIFARS, STRATEGIES, SVHNS, TAPS
from forefend.studies.setting import SCALES, Setting, measured
from forefend.studies.table import Cell, Picture, Table

ATTACKS = ("Natural", "PGD", "DLR", "AA", "FWA", "TI-BIM")
TABLE_1 = {
    "None": (78.45, 47.48, 45.02, 44.10, 34.39, 59.67),
    "APE-G": (78.40, 34.94, 33.11, 16.35, 23.71, 57.80),
    "HGD": (78.17, 13.84, 12.66, 17.36, 12.5, 56.90),
    "NRP": (78.38, 24.28, 22.94, 18.51, 11.78, 57.40),
    "JATP": (79.00, 46.14, 43.54, 43.25, 31.57, 60.04),
}
TABLE_2 = {  # Natural, PGD, DLR, FWA for Standard, MMA and MART
    "None": ((82.38, 43.29, 43.27, 24.39), (82.88, 43.56, 42.60, 21.97), (78.19, 48.54, 44.90, 34.28)),
    "APE-G": ((82.54, 27.35, 30.68, 14.17), (82.53, 29.02, 30.59, 13.18), (78.28, 34.34, 32.15, 21.28)),
    "HGD": ((82.64, 7.86, 10.23, 6.97), (82.17, 9.09, 10.29, 7.24), (77.74, 10.97, 11.31, 10.09)),
    "NRP": ((82.43, 13.71, 17.72, 5.01), (82.52, 16.56, 18.46, 4.50), (77.95, 21.32, 20.26, 9.64)),
    "JATP": ((83.65, 41.65, 42.75, 22.07), (83.14, 41.73, 40.89, 19.29), (79.25, 46.75, 43.29, 31.54)),
    "JATP'": ((82.45, 43.89, 42.99, 24.86), (82.29, 42.82, 41.64, 19.82), (77.89, 48.29, 45.00, 35.04)),
}
OBLIVIOUS = {"APE-G": "ape-gan", "HGD": "hgd", "NRP": "nrp"}  # the baselines, trained on oblivious examples
ABLATIONS: dict[str, dict[str, float]] = {  # Figure 4b
    "JATP": {},
    "without Pix": {"beta": 0.0},
    "without BCE": {"adversarial_weight": 0.0},
    "without FSM": {"alpha": 0.0},
}


def target(setting: Setting, name: str) -> Source:
    """A target model, which is robust itself; a published one where the setting has one and does not continue it."""
    network, recipe = setting.networks[name], STRATEGIES[name]
    given = isinstance(network, Published) and recipe not in setting.continued
    return setting.classifier(name, "natural" if given else recipe)


def defenses(setting: Setting, name: str, **changes: Any) -> Sequence[Trained | None]:
    """A preprocessor trained before the TRADES target, with each seed; None for no preprocessor."""
    trades = target(setting, "TRADES")
    if name == "None":
        return [None]
    if name == "JATP'":  # the classifier is trained too, from the TRADES target
        return [replace(made, joint="", start=trades) for made in setting.joint("jatp-prime", "JATP", "TRADES")]
    return setting.preprocessor(OBLIVIOUS.get(name, "jatp"), name, [trades], **changes)


def accuracies(
    setting: Setting, rows: Mapping[str, Sequence[Any]], targets: Sequence[str], attacks: Sequence[str]
) -> list[Cell]:
    """The cells of Table 1 or 2: each defense before each target under each attack, and under those added.

    A setting with an attack in AutoAttack's place only quotes the paper's numbers of it.

    Args:
        setting: data, networks and attacks.
        rows: by defense, the paper's numbers for each target, each with one for each attack.
        targets: names of the targets.
        attacks: names of the attacks.
    """
    cells = []
    for defense, numbers in rows.items():
        for name, own in zip(targets, numbers, strict=True):
            for attack, number in zip_longest((*attacks, *setting.added), own):
                quoted = attack == "AA" and setting.added
                if quoted and number is None:
                    continue
                made = defenses(setting, defense)
                runs = [] if quoted else measured(setting, target(setting, name), attack, made)
                column = attack if len(targets) == 1 else f"{name}, {attack}"
                cells.append(Cell(defense, column, number, runs, differs=setting.differs))
    return cells


def table_1(setting: Setting) -> list[Cell]:
    """The cells of Table 1."""
    return accuracies(setting, {row: [numbers] for row, numbers in TABLE_1.items()}, ["TRADES"], ATTACKS)


def table_1_svhn(setting: Setting) -> list[Cell]:
    """The cells of the same table for SVHN, whose numbers are in a supplement that could not be had."""
    return accuracies(setting, {row: [[None] * len(ATTACKS)] for row in TABLE_1}, ["TRADES"], ATTACKS)


def table_2(setting: Setting) -> list[Cell]:
    """The cells of Table 2."""
    return accuracies(setting, TABLE_2, ["Standard", "MMA", "MART"], ("Natural", "PGD", "DLR", "FWA"))


def degradation(setting: Setting) -> list[Cell]:
    """The cells of Figure 1a and 1b: robust targets lose robustness behind preprocessors of oblivious training."""
    rows: dict[str, list[Any]] = {}
    for defense in ("None", "APE-G", "HGD", "NRP"):
        standard, trades = TABLE_2[defense][0], TABLE_1[defense]
        rows[defense] = [(standard[1], None, standard[3]), (trades[1], trades[3], trades[4])]
    return accuracies(setting, rows, ["Standard", "TRADES"], ("PGD", "AA", "FWA"))


def knowledge(setting: Setting) -> list[Cell]:
    """The cells of Figures 1c and 2a: examples against the target alone, or against the whole pipeline."""
    cells = []
    for defense in ("APE-G", "HGD", "NRP"):
        for name in ("Standard", "TRADES"):
            for kind, sees in {"Obl": "oblivious", "Full": "full"}.items():
                made = defenses(setting, defense, sees=sees)
                runs = measured(setting, target(setting, name), "PGD", made)
                cells.append(Cell(defense, f"{name}, {kind}", None, runs, differs=setting.differs))
    return cells


def fooling(setting: Setting) -> list[Cell]:
    """The cells of Figure 4a: the share of images that an attack fools, with and without BPDA."""
    cells, trades = [], target(setting, "TRADES")
    for defense in ("APE-G", "HGD", "NRP", "JATP"):
        made = defenses(setting, defense)
        clean = measured(setting, trades, "Natural", made)
        for attack in ("PGD", "BPDA"):
            attacked = measured(setting, trades, attack, made)
            pairs: list[list[Measurement]] = [[*a, *c] for a, c in zip(attacked, clean, strict=True)]
            cells.append(Cell(defense, attack, None, pairs, value="fooling rate", differs=setting.differs))
    return cells


def ablations(setting: Setting) -> list[Cell]:
    """The cells of Figure 4b: a term of the loss is left out."""
    cells = []
    for row, changes in ABLATIONS.items():
        for name in STRATEGIES:
            runs = measured(setting, target(setting, name), "PGD", defenses(setting, "JATP", **changes))
            cells.append(Cell(row, name, None, runs, differs=setting.differs))
    return cells


def variants(setting: Setting, rows: Mapping[str, Mapping[str, Any]]) -> list[Cell]:
    """The cells of a sensitivity study: JATP with other hyper-parameters, by row."""
    cells = []
    for row, changes in rows.items():
        for attack in ("Natural", "PGD"):
            runs = measured(setting, target(setting, "TRADES"), attack, defenses(setting, "JATP", **changes))
            cells.append(Cell(row, attack, None, runs, differs=setting.differs))
    return cells


def movements(setting: Setting) -> list[Cell]:
    """The numbers of Figure 2b: how far the attack moves images, and how far they are behind the preprocessor."""
    cells = []
    for defense in ("APE-G", "HGD", "NRP", "JATP"):
        runs = measured(setting, target(setting, "TRADES"), "PGD", defenses(setting, defense))
        for column, number in {"attacked": 7.51, "processed": 18.68}.items():
            value = "moved by attack" if column == "attacked" else "moved behind defense"
            paper = number if defense == "HGD" else None
            cells.append(Cell(defense, column, paper, runs, value, differs=setting.differs))
    return cells


def distances(setting: Setting) -> Picture:
    """The images of Figure 2b: attacked, and as HGD passes them on."""
    defense = setting.preprocessor("hgd", "HGD", [target(setting, "TRADES")])[0]
    pipeline = Pipeline(target(setting, "TRADES"), setting.data, min(100, setting.test or 100), defense)
    kinds = ("x", "x_adv", "g(x_adv)", "x_adv − x", "g(x_adv) − x")
    return Picture({"HGD": Outputs(pipeline, setting.attacks["PGD"])}, kinds)


def _at(make: Callable[..., Any], settings: Mapping[str, Setting] = CIFARS) -> dict[str, Callable[[], Any]]:
    return {scale: partial(make, setting) for scale, setting in settings.items()}


WEIGHTS = {f"α = {alpha:g}": {"alpha": alpha} for alpha in ALPHAS} | {f"β = {beta:g}": {"beta": beta} for beta in BETAS}
LAYERS = {scale: partial(variants, CIFARS[scale], {tap: {"tap": tap} for tap in TAPS[scale]}) for scale in SCALES}
UNSTATED = "The paper states no numbers."
SUPPLEMENT = "The paper has its numbers in a supplement that could not be had."
DRAWN = "The paper draws bars; its numbers here are those of Tables 1 and 2."
TABLES = (
    Table(
        "figure-1",
        "Robust targets behind preprocessors",
        "section 1, Figure 1a and b",
        _at(degradation),
        note=DRAWN,
        draw=figures.bars,
    ),
    Table(
        "figure-2a",
        "Oblivious and full training examples",
        "section 2.2, Figures 1c and 2a",
        _at(knowledge),
        note=UNSTATED,
        draw=figures.bars,
    ),
    Table(
        "figure-2b",
        "What a preprocessor makes of attacked images",
        "section 2.3, Figure 2b",
        _at(movements),
        unit="mean |Δ| from the clean image in 8-bit pixel values",
        note="The paper does not say which preprocessor its numbers are of; they stand beside HGD.",
        picture=_at(distances),
    ),
    Table("table-1", "Before the TRADES target", "section 4.2, Table 1", _at(table_1)),
    Table("table-1-svhn", "Before the TRADES target, SVHN", "supplement C", _at(table_1_svhn, SVHNS), note=SUPPLEMENT),
    Table("table-2", "Before other targets", "section 4.2, Table 2", _at(table_2)),
    Table(
        "figure-4a",
        "Fooling rates of PGD and BPDA",
        "section 4.2, Figure 4a",
        _at(fooling),
        unit="fooling rate in %",
        note=UNSTATED,
        draw=figures.bars,
    ),
    Table(
        "figure-4b",
        "A term of the loss left out",
        "section 4.3, Figure 4b",
        _at(ablations),
        note=UNSTATED,
        draw=figures.bars,
    ),
    Table(
        "sensitivity",
        "Weights α and β",
        "section 4.3",
        {scale: partial(variants, CIFARS[scale], WEIGHTS) for scale in SCALES},
        note=UNSTATED,
    ),
    Table("layers", "The layer of the features", "supplement B", LAYERS, note=SUPPLEMENT),
)
