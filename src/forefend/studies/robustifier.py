"""The tables and figures of the robustifier (Norouzzadeh et al., ICML 2021 workshop)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from typing import Any

from forefend.report import figures
from forefend.studies.measurements import Accuracy, Measurement, Outputs, Pipeline
from forefend.studies.networks import Source, Trained
from forefend.studies.scales.robustifier import DEFENDED, FEW_LAYERS, GRIDS, NORMS, Grid
from forefend.studies.setting import SCALES, Setting, measured
from forefend.studies.table import Cell, Picture, Table

BEST = {"l∞": (74.2, 39.0, 38.4), "l2": (82.5, 57.3, 55.6)}  # clean, PGD, AA at β = 15, γ = 30 (S.3)
SMOOTHED = {"clean": 72.0, "l∞": 32.0, "l2": 53.0}  # the dashed lines of Figure 1
OBJECTIVES = {"table-s1": "reconstruction", "table-s2": "stability"}
TABLE_S = {  # by σ: l∞, l2, clean accuracy as shares
    "table-s1": {
        0.05: (0, 0.1, 0.84),
        0.1: (0.06, 0.36, 0.88),
        0.15: (0.15, 0.47, 0.82),
        0.2: (0.24, 0.47, 0.74),
        0.25: (0.31, 0.51, 0.7),
        0.3: (0.26, 0.46, 0.64),
        0.35: (0.29, 0.41, 0.56),
        0.4: (0.29, 0.41, 0.47),
        0.45: (0.29, 0.39, 0.44),
        0.5: (0.28, 0.42, 0.49),
    },
    "table-s2": {
        0.05: (0, 0.1, 0.86),
        0.1: (0.08, 0.38, 0.89),
        0.15: (0.16, 0.49, 0.84),
        0.2: (0.25, 0.5, 0.76),
        0.25: (0.32, 0.53, 0.72),
        0.3: (0.26, 0.48, 0.65),
        0.35: (0.3, 0.42, 0.59),
        0.4: (0.31, 0.4, 0.51),
        0.45: (0.29, 0.39, 0.49),
        0.5: (0.27, 0.39, 0.47),
    },
}
MODELS = ("ResNet-18 inc.", "ResNet-18 exc.", *DEFENDED[1:])
TABLE_S3 = {
    1: ((74.2, 42.5, 43.2, 36.5, 45.7, 31.3), (39.0, 18.1, 15.5, 22.5, 18.9, 11.9)),
    2: ((88.5, 88.2, 88.5, 88.6, 88.8, 89.6), (27.7, 27.3, 24.4, 23.0, 28.5, 29.1)),
    4: ((89.0, 89.1, 89.3, 88.9, 89.2, 88.7), (27.9, 26.2, 27.7, 26.5, 31.6, 30.1)),
    20: ((90.1, 89.8, 89.6, 89.1, 89.6, 88.9), (28.2, 26.9, 28.0, 26.9, 31.9, 30.8)),
}
TABLE_S4 = {
    1: ((82.2, 42.5, 43.2, 36.5, 45.7, 31.3), (57.4, 27.8, 26.6, 20.4, 29.9, 19.5)),
    2: ((86.3, 85.3, 85.8, 85.3, 86.4, 84.9), (45.4, 43.5, 44.3, 42.2, 47.9, 47.3)),
    4: ((88.4, 88.1, 88.4, 88.3, 88.4, 87.8), (49.0, 47.5, 49.0, 48.6, 48.9, 48.9)),
    20: ((89.2, 89.9, 89.4, 89.0, 89.1, 88.2), (49.6, 47.1, 48.8, 48.2, 49.0, 49.5)),
}
EXTREMES: dict[str, dict[str, float]] = {  # section 4.1
    "α = 0.005, β = 15, γ = 30": {},
    "no classification loss (α = 0)": {"alpha": 0.0},
    "no fidelity (β = γ = 0)": {"beta": 0.0, "gamma": 0.0},
}


def robust(setting: Setting, classifier: Source, defenses: Sequence[Trained]) -> list[list[Measurement]]:
    """PGD in each step size, of which the lowest accuracy counts, for each seed."""
    names = [name for name in setting.attacks if name.startswith("PGD step")]
    sizes = [measured(setting, classifier, name, defenses) for name in names]
    return [[own[seed][0] for own in sizes] for seed in range(len(defenses))]


def _made(setting: Setting, scale: str, guides: Sequence[Source], **changes: Any) -> list[Trained]:
    return setting.preprocessor("robustifier", scale, guides, **changes)


def _row(
    setting: Setting, defenses: Sequence[Trained], row: str, column: str, paper: Sequence[float | None]
) -> list[Cell]:
    """Clean accuracy, PGD, AutoAttack where the paper's numbers have a third place, and the attacks added."""
    guide = setting.classifier("ResNet-18")
    runs = {"clean": measured(setting, guide, "Natural", defenses), "PGD": robust(setting, guide, defenses)}
    if len(paper) > 2:
        runs["AA"] = measured(setting, guide, "AA", defenses)
    runs |= {name: measured(setting, guide, name, defenses) for name in setting.added}
    return [
        Cell(f"{row}, {kind}", column, number, own, "lowest accuracy", differs=setting.differs)
        for (kind, own), number in zip_longest(runs.items(), paper)
    ]


def coefficients(
    norms: Mapping[str, Setting], scale: str, betas: Sequence[float], gammas: Sequence[float], auto: bool
) -> list[Cell]:
    """The cells of Figures 1, S.3 and S.5: rows of β and norm, columns of γ.

    Args:
        norms: the setting in each norm.
        scale: the scale factor of the U-Net, such as `S = 16`.
        betas: weights of the pixel fidelity.
        gammas: weights of the activation fidelity.
        auto: whether AutoAttack is run too.
    """
    cells = []
    for norm, setting in norms.items():
        guides = [setting.classifier("ResNet-18")]
        for beta in betas:
            for gamma in gammas:
                best = BEST[norm] if (scale, beta, gamma) == ("S = 16", 15.0, 30.0) else (None, None, None)
                defenses = _made(setting, scale, guides, beta=beta, gamma=gamma)
                paper = best if auto else best[:2]
                cells += _row(setting, defenses, f"{norm}, β = {beta:g}", f"γ = {gamma:g}", paper)
    return cells


def figure_1(norms: Mapping[str, Setting], grid: Grid) -> list[Cell]:
    """The cells of Figure 1, with the dashed lines of denoised smoothing."""
    cells = coefficients(norms, "S = 16", grid.betas, grid.gammas, auto=True)
    for gamma in grid.gammas:
        cells += [Cell(f"denoised smoothing, {kind}", f"γ = {gamma:g}", line) for kind, line in SMOOTHED.items()]
    return cells


def figure_s3(norms: Mapping[str, Setting], grid: Grid) -> list[Cell]:
    """The cells of Figure S.3."""
    return coefficients(norms, "S = 4", grid.wide, grid.gammas, auto=False)


def figure_s5(norms: Mapping[str, Setting], grid: Grid) -> list[Cell]:
    """The cells of Figure S.5."""
    gammas = [gamma for gamma in grid.gammas if gamma >= 20]
    return coefficients(norms, "S = 8", [10.0], gammas, auto=False)


def extremes(norms: Mapping[str, Setting], grid: Grid) -> list[Cell]:
    """The cells of section 4.1: the loss without one of its parts."""
    cells = []
    for norm, setting in norms.items():
        for row, changes in EXTREMES.items():
            defenses = _made(setting, "S = 4", [setting.classifier("ResNet-18")], **changes)
            cells += _row(setting, defenses, row, norm, (None, None))
    return cells


def smoothing(norms: Mapping[str, Setting], grid: Grid, name: str) -> list[Cell]:
    """The cells of Table S.1 or S.2: denoised smoothing at each noise."""
    cells, setting = [], norms["l∞"]
    guide, few = setting.classifier("ResNet-18"), setting.few.get("smoothed PGD", setting.test)
    for sigma in grid.sigmas:
        changes = {"sigma": sigma, "objective": OBJECTIVES[name]}
        pipelines = [
            Pipeline(guide, setting.data, few, defense, sigma, grid.copies)
            for defense in setting.preprocessor("denoised-smoothing", "denoiser", [guide], **changes)
        ]
        attacks = [norms["l∞"].attacks["smoothed PGD"], norms["l2"].attacks["smoothed PGD"], None]
        for column, attack, share in zip(("l∞", "l2", "clean"), attacks, TABLE_S[name][sigma], strict=True):
            runs = [[Accuracy(pipeline, attack)] for pipeline in pipelines]
            cells.append(Cell(f"σ = {sigma:g}", column, round(100 * share, 1), runs, differs=setting.differs))
    return cells


def ensembles(norms: Mapping[str, Setting], grid: Grid, norm: str, paper: Mapping[int, Any]) -> list[Cell]:
    """The cells of Table S.3 or S.4: robustifiers of M guides before seen and unseen classifiers."""
    cells, setting = [], norms[norm]
    for size in grid.ensembles:
        guides = [setting.classifier("ResNet-18", seed=seed) for seed in range(size)]
        defenses = _made(setting, "S = 16", guides)
        unseen = setting.classifier("ResNet-18", seed=max(paper))
        models = [guides[0], unseen, *(setting.classifier(name) for name in DEFENDED[1:])]
        clean, attacked = paper[size]
        kinds = {"clean": clean, "robust": attacked} | dict.fromkeys(setting.added, (None,) * len(MODELS))
        for kind, numbers in kinds.items():
            for column, model, number in zip(MODELS, models, numbers, strict=True):
                attack = "Natural" if kind == "clean" else kind
                by_size = kind == "robust"
                runs = robust(setting, model, defenses) if by_size else measured(setting, model, attack, defenses)
                cells.append(Cell(f"M = {size}, {kind}", column, number, runs, "lowest accuracy"))
    return [Cell(**{**vars(cell), "differs": setting.differs}) for cell in cells]


def layers(norms: Mapping[str, Setting], grid: Grid) -> Picture:
    """The images of Figure S.6: outputs for two sets of layers."""
    setting = norms["l∞"]
    guide = setting.classifier("ResNet-18")
    rows = {
        row: Outputs(Pipeline(guide, setting.data, 10, _made(setting, "S = 16", [guide], **own, **changes)[0]))
        for own in [{"beta": 10.0, "gamma": 15.0}]
        for row, changes in FEW_LAYERS.items()
    }
    return Picture(rows, ("x", "g(x)"))


def layer_sets(norms: Mapping[str, Setting], grid: Grid) -> list[Cell]:
    """The accuracies that the caption of Figure S.6 states."""
    setting, cells = norms["l∞"], []
    for (row, changes), paper in zip(FEW_LAYERS.items(), ((78.0, 39.0), (87.0, 31.0)), strict=True):
        defenses = _made(setting, "S = 16", [setting.classifier("ResNet-18")], beta=10.0, gamma=15.0, **changes)
        cells += _row(setting, defenses, row, "l∞", paper)
    return cells


def _at(make: Callable[..., Any], *more: Any) -> dict[str, Callable[[], Any]]:
    return {scale: partial(make, NORMS[scale], GRIDS[scale], *more) for scale in SCALES}


GRID = "The paper draws the grid; it states the numbers of its best setting only."
SHIFTED = "In the row M = 20 of its Table S.4 the paper's cells are shifted by one, which is undone here."
TABLES = (
    Table(
        "figure-1",
        "Weights of the fidelity, scale factor 16",
        "section 4.1, Figure 1",
        _at(figure_1),
        note=GRID,
        draw=figures.curves,
    ),
    Table("extremes", "Without a part of the loss", "section 4.1", _at(extremes), note="The paper states no numbers."),
    Table("table-s1", "Denoised smoothing, MSE objective", "S.2, Table S.1", _at(smoothing, "table-s1")),
    Table("table-s2", "Denoised smoothing, stability objective", "S.2, Table S.2", _at(smoothing, "table-s2")),
    Table(
        "figure-s3",
        "Weights of the fidelity, scale factor 4",
        "S.3, Figure S.3",
        _at(figure_s3),
        note=GRID,
        draw=figures.heat_map,
    ),
    Table(
        "figure-s5",
        "Weights of the fidelity, scale factor 8",
        "S.3, Figure S.5",
        _at(figure_s5),
        note=GRID,
        draw=figures.curves,
    ),
    Table("table-s3", "Seen and unseen classifiers, l∞", "S.4, Table S.3", _at(ensembles, "l∞", TABLE_S3)),
    Table(
        "table-s4", "Seen and unseen classifiers, l2", "S.4, Table S.4", _at(ensembles, "l2", TABLE_S4), note=SHIFTED
    ),
    Table("figure-s6", "Layers of the activation fidelity", "S.4, Figure S.6", _at(layer_sets), picture=_at(layers)),
)
