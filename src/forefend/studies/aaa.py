"""The tables and figures of AAA (Vaishnavi, Eykholt and Rahmati, arXiv 1909.05921)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from typing import Any

from forefend.data.corruptions import CORRUPTIONS
from forefend.report import figures
from forefend.studies.measurements import CorruptedAccuracy, Measurement, Outputs, Pipeline
from forefend.studies.networks import Source, Trained
from forefend.studies.scales.aaa import CIFARS, FASHIONS, MNISTS
from forefend.studies.setting import SCALES, Setting, measured
from forefend.studies.table import Cell, Picture, Table

LOSSES: dict[str, dict[str, float]] = {  # of the rows of tables 3, 4 and 5
    "AAA L_xent": {"mse_weight": 0.0},
    "AAA L_mse": {"ce_weight": 0.0},
    "AAA L_xent + L_mse": {},
}
COLUMNS = ("Natural", "PGD", "CW")  # the paper's numbers for the native, then for the transfer classifier
TABLE_4 = {
    "Natural training": ((99.24, 0, 0), (98.00, 0, 0)),
    "Adversarial training": ((99.10, 88.81, 52.10), (93.32, 71.76, 26.64)),
    "AAA L_xent": ((99.08, 90.44, 58.16), (28.75, 11.85, 1.94)),
    "AAA L_mse": ((99.17, 89.20, 65.86), (98.21, 82.17, 57.16)),
    "AAA L_xent + L_mse": ((99.15, 91.13, 74.44), (98.12, 85.33, 76.61)),
}
TABLE_5 = {
    "Natural training": ((92.55, 5.40, 0), (89.74, 4.33, 0)),
    "Adversarial training": ((87.73, 62.16, 49.43), (79.11, 61.28, 24.50)),
    "AAA L_xent": ((87.59, 68.29, 65.36), (33.60, 22.54, 31.32)),
    "AAA L_mse": ((89.26, 21.87, 55.67), (88.38, 28.71, 54.83)),
    "AAA L_xent + L_mse": ((87.40, 63.98, 69.35), (74.44, 49.67, 62.67)),
}
TABLE_2 = {  # natural and PGD accuracy, adversarial training and AAA
    "MNIST A": ((99.10, 88.81), (99.10, 90.29)),
    "MNIST B": ((98.37, 87.67), (99.19, 90.12)),
    "MNIST C": ((93.32, 71.76), (99.17, 89.97)),
    "CIFAR-10 D": ((81.49, 45.89), (80.06, 45.34)),
    "CIFAR-10 E": ((71.95, 39.73), (78.22, 42.94)),
    "CIFAR-10 F": ((69.48, 36.40), (79.60, 45.16)),
}
PROPERTIES = {  # of Table 1, with the marks of Madry, Ilyas, Liao (HGD), Meng (MagNet), Defense-GAN, AAA
    "Unintrusive": "✗ ✗ ✓ ✓ ✓ ✓",
    "Transferable": "✗ ✗ ✓ ✓ ✓ ✓",
    "Black-box compatible": "✗ ✗ ✓ ✓ ✓* ✓*",
    "Adaptive white-box robustness": "✓ ✓ ✗ ✗ ✗ ✓",
}
SHOWN_BY = {"Adaptive white-box robustness": "A", "Transferable": "B", "Black-box compatible": "C"}
DEFENSES = ("AT (Madry)", "Ilyas", "HGD (Liao)", "MagNet (Meng)", "Defense-GAN", "AAA")


def _aaa(setting: Setting, guides: Sequence[str], **losses: Any) -> list[Trained]:
    """The autoencoder before some natural classifiers, with each seed."""
    return setting.preprocessor("aaa", "autoencoder", [setting.classifier(name) for name in guides], **losses)


def losses_table(
    setting: Setting, native: Mapping[str, Sequence[str]], transfer: str, paper: Mapping[str, Any]
) -> list[Cell]:
    """The cells of Table 4 or 5.

    Args:
        setting: data, networks and attacks.
        native: the name of the native classifier that is shown, and those of all.
        transfer: the name of the transfer classifier.
        paper: its numbers.
    """
    (shown, guides), cells = next(iter(native.items())), []
    for row, numbers in paper.items():
        defenses: Sequence[Trained | None] = _aaa(setting, guides, **LOSSES[row]) if row in LOSSES else [None]
        recipe = "adversarial" if row == "Adversarial training" else "natural"
        for role, name, own in zip(("native", "transfer"), (shown, transfer), numbers, strict=True):
            classifier = setting.classifier(name, recipe)
            columns = ("Natural", "PGD", "CW single", "CW search", *setting.added)
            for column, number in zip_longest(columns, (*own, own[2])):
                runs = measured(setting, classifier, column, defenses)
                cells.append(Cell(row, f"{role}, {column}", number, runs, differs=setting.differs))
    return cells


def ensembles_table(mnist: Setting, cifar: Setting) -> list[Cell]:
    """The cells of Table 2: each classifier of an ensemble, adversarially trained or behind one autoencoder."""
    cells = []
    for row, numbers in TABLE_2.items():
        data, name = row.split(" ")
        setting, guides = (mnist, "ABC") if data == "MNIST" else (cifar, "DEF")
        ways: dict[str, tuple[Source, Sequence[Trained | None]]] = {
            "AT": (setting.classifier(name, "adversarial"), [None]),
            "AAA": (setting.classifier(name), _aaa(setting, guides, **LOSSES["AAA L_xent"])),
        }
        for (way, (classifier, defenses)), own in zip(ways.items(), numbers, strict=True):
            for column, number in zip_longest(("Natural", "PGD", *setting.added), own):
                runs = measured(setting, classifier, column, defenses)
                cells.append(Cell(row, f"{way}, {column}", number, runs, differs=setting.differs))
    return cells


def corruptions_figure(setting: Setting, names: Sequence[str]) -> list[Cell]:
    """The cells of Figure 1: accuracy on each corruption, less that of the natural classifier."""
    cells = []
    defenses = _aaa(setting, "DEF", **LOSSES["AAA L_xent"])
    for classifier in "DEF":
        natural = setting.classifier(classifier)
        ways: dict[str, tuple[Source, Sequence[Trained | None]]] = {
            "AT": (setting.classifier(classifier, "adversarial"), [None]),
            "AAA": (natural, defenses),
        }
        for way, (network, behind) in ways.items():
            for name in names:
                pairs: list[list[Measurement]] = [
                    [
                        CorruptedAccuracy(Pipeline(network, setting.data, setting.test, defense), name),
                        CorruptedAccuracy(Pipeline(natural, setting.data, setting.test), name),
                    ]
                    for defense in behind
                ]
                differs = f"{setting.differs}; corruptions made here instead of CIFAR-10-C"
                cells.append(Cell(name, f"{classifier} {way}", None, pairs, value="difference", differs=differs))
    return cells


def properties_table(setting: Setting) -> list[Cell]:
    """The cells of Table 1: PGD accuracy that shows a property, for the three defenses that this project trains."""
    natural = {name: setting.classifier(name) for name in "ABC"}
    aaa, hgd = _aaa(setting, "AB"), setting.preprocessor("hgd", "autoencoder", [natural["A"], natural["B"]])
    adversarial = setting.classifier("A", "adversarial")
    shown: dict[tuple[str, str], list[list[Measurement]]] = {
        ("Adaptive white-box robustness", "AT (Madry)"): measured(setting, adversarial, "PGD"),
    }
    for column, defenses in (("HGD (Liao)", hgd), ("AAA", aaa)):
        for row, name in {
            "Adaptive white-box robustness": "A",
            "Transferable": "B",
            "Black-box compatible": "C",
        }.items():
            shown[row, column] = measured(setting, natural[name], "PGD", defenses)
    cells = []
    for row, marks in PROPERTIES.items():
        for column, mark in zip(DEFENSES, marks.split(), strict=True):
            cells.append(Cell(row, column, mark, shown.get((row, column), ()), differs=setting.differs))
    return cells


def adaptive_table(setting: Setting) -> list[Cell]:
    """The cells of section 6: attacks on the autoencoder, and PGD beside them."""
    cells = []
    for row in ("AAA L_xent", "AAA L_xent + L_mse"):
        defenses = _aaa(setting, "AB", **LOSSES[row])
        for column in ("PGD", "PGD with reconstruction", "latent", "BPDA"):
            runs = measured(setting, setting.classifier("A"), column, defenses)
            cells.append(Cell(row, column, None, runs, differs=setting.differs))
    return cells


def outputs_picture(setting: Setting, guides: Sequence[str]) -> Picture:
    """The images of Table 3: an input, and the output of the autoencoder for each loss."""
    classifier = setting.classifier(guides[0])
    rows = {
        row: Outputs(Pipeline(classifier, setting.data, 10, _aaa(setting, guides, **losses)[0]))
        for row, losses in LOSSES.items()
    }
    return Picture(rows, ("x", "g(x)"))


def _at(make: Callable[..., Any], *settings: Mapping[str, Setting], **more: Any) -> dict[str, Callable[[], Any]]:
    return {scale: partial(make, *(setting[scale] for setting in settings), **more) for scale in SCALES}


CW = (
    "The paper's one CW number stands beside both readings of its attack (see the page of AAA); AAA in the native "
    "columns is trained with the classifiers named there."
)
FEW = {"smoke": ["gaussian_noise"], "cpu": sorted(CORRUPTIONS), "paper": sorted(CORRUPTIONS)}
TABLES = (
    Table(
        "table-1",
        "Properties of model-agnostic defenses",
        "section 1, Table 1",
        _at(properties_table, MNISTS),
        note="Marks are the paper's; numbers are PGD accuracies that bear on them: on A behind the defense, on B with "
        "the same preprocessor, on C, which it never saw. The other columns and rows are quoted.",
        unit="PGD accuracy in %",
    ),
    Table(
        "table-2",
        "One autoencoder for an ensemble of classifiers",
        "section 4, Table 2",
        _at(ensembles_table, MNISTS, CIFARS),
    ),
    Table(
        "figure-1",
        "Accuracy on corrupted images, less that of the natural classifier",
        "section 4, Figure 1",
        {scale: partial(corruptions_figure, CIFARS[scale], FEW[scale]) for scale in SCALES},
        unit="difference of accuracies in points",
        note="The paper draws 5 of 19 corruptions without numbers.",
        draw=figures.bars,
    ),
    Table(
        "table-3",
        "Outputs of the autoencoder for each loss",
        "section 5, Table 3",
        picture=_at(outputs_picture, MNISTS, guides="AB"),
    ),
    Table(
        "table-4",
        "MNIST: native and transfer classifiers",
        "section 5, Table 4",
        _at(losses_table, MNISTS, native={"A": "AB"}, transfer="C", paper=TABLE_4),
        note=CW,
    ),
    Table(
        "table-5",
        "Fashion-MNIST: native and transfer classifiers",
        "section 5, Table 5",
        _at(losses_table, FASHIONS, native={"native": ["native"]}, transfer="transfer", paper=TABLE_5),
        note=CW,
    ),
    Table(
        "section-6",
        "Attacks on the autoencoder",
        "section 6",
        _at(adaptive_table, MNISTS),
        note="The paper says that both attacks are ineffective, and has their numbers in a supplement that could not "
        "be had.",
    ),
)
