"""What it costs to leave the classifier as it is: the table that none of the five papers has."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from forefend.studies.costs import Cost
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
    assert isinstance(robust, Trained)
    cells = [
        *_row(setting, "undefended", own, unseen, [None]),
        *_row(setting, "adversarial training", robust, None, [None], auto=True),
        *_cost(setting, "adversarial training", robust, None, robust),
        *_smoothed(setting, own, unseen),
        *_row(setting, "JPEG", own, unseen, [_jpeg(setting)], ("BPDA",)),
        *_cost(setting, "JPEG", own, _jpeg(setting), None),
    ]
    for joint in setting.joint("jat", "preprocessor", "own"):
        cells += _row(setting, "joint training (JAT)", joint, unseen, [joint], auto=True)
        cells += _cost(setting, "joint training (JAT)", joint, joint, joint)
    for recipe, network in {"rtfe": "preprocessor", "aaa": "autoencoder", "robustifier": "preprocessor"}.items():
        made = setting.preprocessor(recipe, network, [own])
        cells += _row(setting, recipe, own, unseen, made, auto=recipe == "rtfe")
        cells += _cost(setting, recipe, own, made[0], made[0])
    cells += _drawn(setting, robust, own, unseen)
    return [Cell(**{**vars(cell), "differs": setting.differs}) for cell in cells]


def _row(
    setting: Setting,
    row: str,
    own: Source,
    unseen: Source | None,
    defenses: Sequence[Preprocessor | None],
    attacks: Sequence[str] = (),
    *,
    auto: bool = False,
) -> list[Cell]:
    """Clean and robust accuracy of both classifiers, and AutoAttack on the own one if `auto`."""
    names = ["Natural", *(attacks or ("PGD", *setting.added))]
    own_names = [*names, *(["AA"] if auto else [])]
    cells = [Cell(row, f"own, {_shown(name)}", None, measured(setting, own, name, defenses)) for name in own_names]
    for name in names if unseen else ():
        cells.append(Cell(row, f"unseen, {_shown(name)}", None, measured(setting, unseen, name, defenses)))  # type: ignore[arg-type]
    return cells


def _cost(
    setting: Setting, row: str, own: Source, defense: Preprocessor | None, trained: Trained | None, copies: int = 0
) -> list[Cell]:
    """What a defense adds to its own classifier, and what its training computed."""
    sigma = SIGMA if copies else 0.0
    cost = Cost(Pipeline(own, setting.data, setting.test, defense, sigma, copies), trained)
    return [Cell(row, column, None, [[cost]], value) for column, value in COSTS.items()]


def _shown(attack: str) -> str:
    return {"Natural": "clean", "AA": "AutoAttack", "BPDA": "PGD"}.get(attack, attack)


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
    defense = setting.preprocessor("denoised-smoothing", "preprocessor", [own])[0]
    return [*cells, *_cost(setting, "denoised smoothing", own, defense, defense, COPIES)]


def _drawn(setting: Setting, robust: Trained, own: Source, unseen: Source) -> list[Cell]:
    """The control, attacked on the whole and from the classifier that draws; the lower accuracy counts."""
    drawn = Drawn(robust, setting.data, setting.train)
    cells = _cost(setting, CONTROL, own, drawn, robust)
    for role, classifier in (("own", own), ("unseen", unseen)):
        cells.append(Cell(CONTROL, f"{role}, clean", None, measured(setting, classifier, "Natural", [drawn])))
        inside = measured(setting, classifier, "PGD", [drawn], {"drawing": robust})
        for name in ("PGD", *setting.added):
            whole = measured(setting, classifier, name, [drawn])
            pairs: Runs = [[*one, *other] for one, other in zip(whole, inside, strict=True)]
            cells.append(Cell(CONTROL, f"{role}, {name}", None, pairs, "lowest accuracy"))
    return cells


NOTE = (
    "Every training of a defense takes the same operations; its gradients differ with its networks. The last row, "
    f"{CONTROL}, is a control: it takes nothing from the classifier behind it and transfers to every classifier by "
    "construction. A preprocessor that does not beat it on the unseen classifier gets nothing from the classifier "
    "behind it. Added time: of one image in batches of 32, on a machine that did other work too."
)
COSTS = {"thousand gradients": "gradients", "ms added": "milliseconds", "parameters added": "parameters"}
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
