"""What it costs to leave the classifier as it is: the table that none of the five papers has."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from forefend.studies.measurements import Accuracy, Measurement, Pipeline
from forefend.studies.networks import Source, Trained
from forefend.studies.scales.freezing import CIFARS, COPIES, FASHIONS, SIGMA
from forefend.studies.setting import Setting, measured
from forefend.studies.table import Cell, Table
from forefend.studies.untrained import Drawn, Preprocessor, Transform

Runs = list[list[Measurement]]
CONTROL = "a robust classifier that draws its answer"


def costs(setting: Setting) -> list[Cell]:
    """The cells: defenses of equal training compute, before their own classifier and an unseen one."""
    own, unseen = setting.classifier("own"), setting.classifier("unseen")
    robust = setting.classifier("own", "adversarial")
    cells = [
        *_row(setting, "undefended", own, unseen, [None], "PGD"),
        *_row(setting, "adversarial training", robust, None, [None], "PGD", auto=True),
        *_smoothed(setting, own, unseen),
        *_row(setting, "JPEG", own, unseen, [_jpeg(setting)], "BPDA"),
    ]
    for joint in setting.joint("jat", "preprocessor", "own"):
        cells += _row(setting, "joint training (JAT)", joint, unseen, [joint], "PGD", auto=True)
    for recipe, network in {"rtfe": "preprocessor", "aaa": "autoencoder", "robustifier": "preprocessor"}.items():
        made = setting.preprocessor(recipe, network, [own])
        cells += _row(setting, recipe, own, unseen, made, "PGD", auto=recipe == "rtfe")
    cells += _drawn(setting, robust, own, unseen)
    return [Cell(**{**vars(cell), "differs": setting.differs}) for cell in cells]


def _row(
    setting: Setting,
    row: str,
    own: Source,
    unseen: Source | None,
    defenses: Sequence[Preprocessor | None],
    attack: str,
    *,
    auto: bool = False,
) -> list[Cell]:
    """Clean and robust accuracy of both classifiers, and AutoAttack on the own one if `auto`."""
    names = ["Natural", attack, *(["AA"] if auto else [])]
    cells = [Cell(row, f"own, {_shown(name)}", None, measured(setting, own, name, defenses)) for name in names]
    for name in names[:2] if unseen else ():
        cells.append(Cell(row, f"unseen, {_shown(name)}", None, measured(setting, unseen, name, defenses)))  # type: ignore[arg-type]
    return cells


def _shown(attack: str) -> str:
    return {"Natural": "clean", "AA": "AutoAttack"}.get(attack, "PGD")


def _jpeg(setting: Setting) -> Transform:
    return Transform("jpeg", 3 if setting.data.startswith("cifar") else 1)


def _smoothed(setting: Setting, own: Source, unseen: Source) -> list[Cell]:
    """Denoised smoothing: predictions are averaged over noisy copies, and so are the attack's gradients."""
    cells, images = [], setting.few.get("smoothed", setting.test)
    for role, classifier in (("own", own), ("unseen", unseen)):
        pipelines = [
            Pipeline(classifier, setting.data, images, defense, SIGMA, COPIES)
            for defense in setting.preprocessor("denoised-smoothing", "preprocessor", [own])
        ]
        for column, attack in (("clean", None), ("PGD", setting.attacks["smoothed"])):
            runs: Runs = [[Accuracy(pipeline, attack)] for pipeline in pipelines]
            cells.append(Cell("denoised smoothing", f"{role}, {column}", None, runs))
    return cells


def _drawn(setting: Setting, robust: Source, own: Source, unseen: Source) -> list[Cell]:
    """The control, attacked on the whole and from the classifier that draws; the lower accuracy counts."""
    assert isinstance(robust, Trained)
    drawn, cells = [Drawn(robust, setting.data, setting.train)], []
    for role, classifier in (("own", own), ("unseen", unseen)):
        clean = measured(setting, classifier, "Natural", drawn)
        both = [measured(setting, classifier, "PGD", drawn, others) for others in ({}, {"drawing": robust})]
        pairs: Runs = [[*whole, *inside] for whole, inside in zip(*both, strict=True)]
        cells += [
            Cell(CONTROL, f"{role}, clean", None, clean),
            Cell(CONTROL, f"{role}, PGD", None, pairs, "lowest accuracy"),
        ]
    return cells


NOTE = (
    f"Every training takes the same operations. The last control, {CONTROL}, takes nothing from the classifier behind "
    "it and transfers to every classifier by construction: a preprocessor that does not beat it on the unseen "
    "classifier gains nothing from its guide."
)
TABLES = (
    Table(
        "fashion",
        "What freezing costs on Fashion-MNIST",
        "in none of the papers",
        {scale: partial(costs, setting) for scale, setting in FASHIONS.items()},
        note=NOTE,
    ),
    Table(
        "cifar",
        "What freezing costs on CIFAR-10",
        "in none of the papers",
        {scale: partial(costs, setting) for scale, setting in CIFARS.items()},
        note=NOTE,
    ),
)
