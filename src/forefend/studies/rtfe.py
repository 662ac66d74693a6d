"""The tables and figures of RTFE (Cann, Colbert and Amer, arXiv 2209.06931)."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from typing import Any

from forefend.report import figures
from forefend.studies.measurements import Measurement, Outputs, Pipeline
from forefend.studies.networks import Source, Trained
from forefend.studies.scales.rtfe import CIFARS_10, CIFARS_100, LATERAL, READINGS
from forefend.studies.setting import SCALES, Setting, measured
from forefend.studies.table import Cell, Picture, Table

COLUMNS = ("ε = 0", "ε = 2", "ε = 4", "ε = 8")
TABLE_1 = {
    "CIFAR-10": {
        "None": (94.8, 19.1, 2.6, 0.0),
        "AT": (84.1, 76.3, 67.2, 49.1),
        "JAT": (83.9, 75.7, 66.3, 47.3),
        "RTFE": (75.9, 69.4, 62.8, 49.9),
    },
    "CIFAR-100": {
        "None": (75.3, 6.0, 0.5, 0.0),
        "AT": (55.2, 45.5, 37.0, 24.2),
        "JAT": (55.0, 45.2, 36.4, 23.6),
        "RTFE": (53.4, 39.4, 29.3, 17.7),
    },
}
TABLE_2 = {
    "ResNet18": {"JAT": (94.2, 28.8, 5.9, 0.4), "RTFE": (58.9, 53.4, 47.7, 37.7)},
    "MobileNetV2": {"JAT": (92.3, 11.7, 0.7, 0.0), "RTFE": (44.5, 39.7, 35.2, 27.4)},
}
TABLE_3 = {
    "ResNet18": {"JAT": (94.3, 27.0, 5.2, 0.4), "RTFE": (88.4, 52.7, 24.0, 5.8)},
    "MobileNetV2": {"JAT": (94.5, 29.8, 6.2, 0.5), "RTFE": (82.2, 40.6, 14.9, 1.8)},
}
TABLE_4 = {
    ("ResNet50", "ResNet34"): (64.9, 39.5),
    ("ResNet50", "ResNet18"): (59.5, 38.5),
    ("ResNet18", "ResNet50"): (46.3, 28.0),
    ("ResNet18", "ResNet34"): (61.8, 39.5),
}
POOL = [(name, seed) for name in ("ResNet18", "MobileNetV2", "SqueezeNet") for seed in (0, 1)]
ABLATIONS: dict[str, tuple[str, dict[str, float]]] = {  # footnote 1 and the end of section 3.2
    "logit loss (RTFE)": ("UNet", {}),
    "cross-entropy": ("UNet", {"logit_weight": 0.0, "ce_weight": 1.0}),
    "logit and pixel loss": ("UNet", {"pixel_weight": 1.0}),
    "autoencoder without lateral connections": ("DAE", {}),
}


def _attacked(
    setting: Setting,
    classifier: Source,
    column: str,
    defenses: Sequence[Trained | None] = (None,),
    prefix: str = "",
    others: Mapping[str, Source] | None = None,
) -> list[list[Measurement]]:
    """The accuracy at the radius of a column; `ε = 0` is clean, and `prefix` names another attack."""
    attack = "Natural" if column == "ε = 0" else f"{prefix}{column}"
    return measured(setting, classifier, attack, defenses, others or {})


def _rtfe(setting: Setting, guide: str) -> list[Trained]:
    return setting.preprocessor("rtfe", "UNet", [setting.classifier(guide)])


def white_box(settings: Mapping[str, Setting]) -> list[Cell]:
    """The cells of Table 1 and Figure 5: each defense of its own classifier, by data set."""
    cells = []
    for data, setting in settings.items():
        jat, rtfe = setting.joint("jat", "UNet", "ResNet18"), _rtfe(setting, "ResNet18")
        adversarial = [setting.classifier("ResNet18", "adversarial", seed) for seed in setting.seeds]
        natural = setting.classifier("ResNet18")
        for defense, numbers in TABLE_1[data].items():
            for column, number in zip_longest((*COLUMNS, *setting.added), numbers):
                runs = {
                    "None": lambda: _attacked(setting, natural, column),  # noqa: B023 (called below)
                    "AT": lambda: [_attacked(setting, own, column)[0] for own in adversarial],  # noqa: B023
                    "JAT": lambda: [_attacked(setting, own, column, [own])[0] for own in jat],  # noqa: B023
                    "RTFE": lambda: _attacked(setting, natural, column, rtfe),  # noqa: B023
                }[defense]()
                cells.append(Cell(f"{data}, {defense}", column, number, runs, differs=setting.differs))
    return cells


def transferred(source: Setting, target: Setting, paper: Mapping[str, Any], over: str) -> list[Cell]:
    """The cells of Tables 2 and 3: a preprocessor before classifiers that it never saw.

    Args:
        source: where the preprocessors are trained.
        target: where the defended classifiers are trained and attacked.
        paper: its numbers, by defended network and defense.
        over: how the seeds are combined.
    """
    cells = []
    for name, defenses in paper.items():
        guide = "ResNet18" if source is target else name  # across data sets, the guide has the same architecture
        ways = {"JAT": source.joint("jat", "UNet", guide), "RTFE": _rtfe(source, guide)}
        defended = target.classifier(name, seed=1)  # from another initialization than the guide
        for defense, numbers in defenses.items():
            for column, number in zip_longest((*COLUMNS, *target.added), numbers):
                runs = _attacked(target, defended, column, ways[defense])
                cells.append(Cell(f"{name}, {defense}", column, number, runs, over=over, differs=target.differs))
    return cells


def capacity(setting: Setting) -> list[Cell]:
    """The cells of Table 4: guides and defended classifiers of several sizes, three seeds."""
    cells, setting = [], replace(setting, seeds=setting.seeds[:3])
    for (guide, defended), numbers in TABLE_4.items():
        for column, number in zip(("ε = 0", "ε = 8"), numbers, strict=True):
            runs = _attacked(setting, setting.classifier(defended, seed=1), column, _rtfe(setting, guide))
            cells.append(Cell(f"{guide} → {defended}", column, number, runs, differs=setting.differs))
    return cells


def _ensemble(setting: Setting, members: int, seed: int) -> list[Source]:
    """Guides drawn without replacement from the pool of six."""
    drawn = random.Random(seed).sample(POOL, members)
    return [setting.classifier(name, seed=number) for name, number in drawn]


def _ensemble_defenses(setting: Setting, members: int) -> list[Trained]:
    """The preprocessor of an ensemble, drawn anew for each seed."""
    return [
        replace(setting.preprocessor("rtfe", "UNet", _ensemble(setting, members, seed))[0], seed=seed)
        for seed in setting.seeds
    ]


def ensembles(setting: Setting, sizes: Sequence[int]) -> list[Cell]:
    """The cells of Figure 8: a VGG16 behind preprocessors of ensembles, and adversarially trained."""
    cells, vgg = [], setting.classifier("VGG16")
    adversarial = [setting.classifier("VGG16", "adversarial", seed) for seed in setting.seeds]
    for column in ("ε = 0", "ε = 8", *setting.added):
        at = [_attacked(setting, own, column)[0] for own in adversarial]
        for size in sizes:
            runs = _attacked(setting, vgg, column, _ensemble_defenses(setting, size))
            cells.append(Cell(f"RTFE, {column}", f"m = {size}", None, runs, differs=setting.differs))
            cells.append(Cell(f"AT VGG16, {column}", f"m = {size}", None, at, differs=setting.differs))
    return cells


def obfuscation(setting: Setting) -> list[Cell]:
    """The cells of Figure 9: three attacks at growing radii."""
    cells, natural, rtfe = [], setting.classifier("ResNet18"), _rtfe(setting, "ResNet18")
    attacks = {"weak: 1 step": "weak, ", "strong: 100 steps, restarts": "strong, ", "section 4.1: 20 steps": ""}
    attacks |= {"fast": "fast, "} if setting.added else {}
    for row, prefix in attacks.items():
        for column in (*COLUMNS, "ε = 16", "ε = 32"):
            runs = _attacked(setting, natural, column, rtfe, prefix)
            cells.append(Cell(row, column, None, runs, differs=setting.differs))
    return cells


def own_guides(setting: Setting, size: int) -> list[Cell]:
    """The cells of Figure 10: one guide against an ensemble, before their own guides and an unseen VGG16."""
    cells, vgg, guide = [], setting.classifier("VGG16"), setting.classifier("ResNet18")
    single, several = _rtfe(setting, "ResNet18"), _ensemble_defenses(setting, size)
    for column in COLUMNS:
        runs: dict[str, list[list[Measurement]]] = {
            "single, its guide": _attacked(setting, guide, column, single),
            "single, VGG16": _attacked(setting, vgg, column, single),
            "ensemble, its guides": [_members(setting, defense, column) for defense in several],
            "ensemble, VGG16": _attacked(setting, vgg, column, several),
        }
        for row, own in runs.items():
            value = "mean accuracy" if row == "ensemble, its guides" else "accuracy"
            cells.append(Cell(row, column, None, own, value=value, differs=setting.differs))
    return cells


def _members(setting: Setting, defense: Trained, column: str) -> list[Measurement]:
    """The accuracy of each guide of an ensemble behind its defense, under the attack on all of them (Eq. 8)."""
    found = []
    for guide in defense.guides:
        others = {f"{other.name()} {place}": other for place, other in enumerate(defense.guides) if other is not guide}
        found += _attacked(setting, guide, column, [defense], "ensemble, " if others else "", others)[0]
    return found


def ablations(setting: Setting) -> list[Cell]:
    """The cells of the footnote: other losses and another network."""
    cells, guide = [], setting.classifier("ResNet18")
    for row, (network, changes) in ABLATIONS.items():
        defenses = setting.preprocessor("rtfe", network, [guide], **changes)
        for column in ("ε = 0", "ε = 8"):
            runs = _attacked(setting, guide, column, defenses)
            cells.append(Cell(row, column, None, runs, differs=setting.differs))
    return cells


def steps(setting: Setting) -> list[Cell]:
    """The cells of the three readings of the attack's step."""
    guide, cells = setting.classifier("ResNet18"), []
    models: dict[str, tuple[Source, Sequence[Trained | None]]] = {
        "None": (guide, [None]),
        "AT": (setting.classifier("ResNet18", "adversarial"), [None]),
        "RTFE": (guide, _rtfe(setting, "ResNet18")[:1]),
    }
    for row, (classifier, defenses) in models.items():
        for place, radius in enumerate(COLUMNS[1:], start=1):
            for reading in READINGS:
                runs = _attacked(setting, classifier, radius, defenses, f"step {reading}, ")
                column, number = f"{radius}, step {reading}", TABLE_1["CIFAR-10"][row][place]
                cells.append(Cell(row, column, number, runs, differs=setting.differs))
        for column in setting.added:
            runs = _attacked(setting, classifier, column, defenses)
            cells.append(Cell(row, column, None, runs, differs=setting.differs))
    return cells


def nakkiran(setting: Setting, size: int) -> list[Cell]:
    """The cells of the contrast: Eq. 7 misleads one classifier while the others stay right."""
    names = {"ResNet18 2": ("ResNet18", 1), "MobileNetV2": ("MobileNetV2", 0), "SqueezeNet": ("SqueezeNet", 0)}
    others = {name: setting.classifier(*own[:1], seed=own[1]) for name, own in names.items()}
    guide, cells = setting.classifier("ResNet18"), []
    rows: dict[str, Sequence[Trained | None]] = {
        "None": [None],
        "RTFE, one guide": _rtfe(setting, "ResNet18"),
        f"RTFE, {size} guides": _ensemble_defenses(setting, size),
    }
    for row, defenses in rows.items():
        cells.append(Cell(row, "PGD, ε = 8", None, _attacked(setting, guide, "ε = 8", defenses)))
        cells.append(Cell(row, "bugs (Eq. 7), ε = 8", None, measured(setting, guide, "bugs", defenses, others)))
    return [replace(cell, differs=setting.differs) for cell in cells]


def images(setting: Setting) -> Picture:
    """The images of Figure 4: clean, processed, and their difference."""
    defense = _rtfe(setting, "ResNet18")[0]
    pipeline = Pipeline(setting.classifier("ResNet18"), setting.data, 10, defense)
    return Picture({"RTFE": Outputs(pipeline)}, ("x", "g(x)", "x − g(x)"))


def _at(make: Callable[..., Any], *more: Any) -> dict[str, Callable[[], Any]]:
    return {scale: partial(make, CIFARS_10[scale], *more) for scale in SCALES}


def _white_box(settings: Mapping[str, Setting]) -> dict[str, Callable[[], Any]]:
    found = {scale: {"CIFAR-10": settings[scale]} for scale in SCALES}
    for scale, setting in CIFARS_100.items():
        found[scale]["CIFAR-100"] = setting
    return {scale: partial(white_box, both) for scale, both in found.items()}


def _models(settings: Mapping[str, Setting]) -> dict[str, Callable[[], Any]]:
    return {scale: partial(transferred, settings[scale], settings[scale], TABLE_2, "mean") for scale in SCALES}


DRAWN_10 = {scale: replace(setting, added=()) for scale, setting in CIFARS_10.items()}  # curves over the radius
DATA = {scale: partial(transferred, CIFARS_100[scale], CIFARS_10[scale], TABLE_3, "max") for scale in CIFARS_100}
SIZES = {"smoke": (1, 2), "cpu": (1, 2, 3, 4), "paper": (1, 2, 3, 4, 5, 6)}
FEATURES = {scale: partial(ensembles, CIFARS_10[scale], SIZES[scale]) for scale in SCALES}
OWN = {scale: partial(own_guides, CIFARS_10[scale], SIZES[scale][-1]) for scale in SCALES}
CONTRAST = {scale: partial(nakkiran, CIFARS_10[scale], SIZES[scale][-1]) for scale in SCALES}
BEST = "The best of the seeds, as in the paper, which flatters all rows."
DRAWN = "The paper draws curves without numbers."
TABLES = (
    Table("figure-4", "Images before and after the preprocessor", "section 4, Figure 4", picture=_at(images)),
    Table("table-1", "White box: each defense of its own classifier", "section 4.1, Table 1", _white_box(CIFARS_10)),
    Table("figure-5", "White box, against radius", "section 4.1, Figure 5", _white_box(DRAWN_10), draw=figures.curves),
    Table("table-2", "Before classifiers that it never saw", "section 4.2, Table 2", _models(CIFARS_10)),
    Table(
        "figure-6",
        "Unseen classifiers, against radius",
        "section 4.2, Figure 6",
        _models(DRAWN_10),
        draw=figures.curves,
    ),
    Table("table-3", "From CIFAR-100 to CIFAR-10", "section 4.3, Table 3", DATA, note=BEST),
    Table(
        "figure-7", "Across data sets, against radius", "section 4.3, Figure 7", DATA, note=BEST, draw=figures.curves
    ),
    Table("table-4", "Guides and classifiers of several sizes", "section 4.4, Table 4", _at(capacity)),
    Table(
        "figure-8",
        "An unseen VGG16 behind preprocessors of m guides",
        "section 4.5, Figure 8",
        FEATURES,
        note=DRAWN,
        draw=figures.curves,
    ),
    Table(
        "figure-9", "Weak and strong attacks", "appendix A, Figure 9", _at(obfuscation), note=DRAWN, draw=figures.curves
    ),
    Table("figure-10", "Own guides and an unseen VGG16", "appendix B, Figure 10", OWN, note=DRAWN, draw=figures.curves),
    Table(
        "footnote-1",
        "Other losses and another network",
        "section 3.2, footnote 1",
        {scale: partial(ablations, setting) for scale, setting in (CIFARS_10 | {"cpu": LATERAL}).items()},
        note="The paper found cross-entropy and autoencoder worse, pixel losses without effect; it states no numbers.",
    ),
    Table(
        "step-size",
        "Three readings of the attack's step",
        "section 4 and appendix A",
        _at(steps),
        note="The paper states three steps that exclude each other; its one number of Table 1 stands beside each.",
    ),
    Table(
        "equation-7",
        "Nakkiran's attack, which the ensemble turns around",
        "section 3.3, Eq. 7",
        CONTRAST,
        note="The paper states no numbers.",
    ),
)
