"""Markdown tables of evaluations, and documents whose tables are updated from their results."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from forefend.checks import InputError
from forefend.evaluation import results
from forefend.evaluation.results import WORST, Layout, Result, Results, caption, cell, column_title, columns_of, rows_of
from forefend.evaluation.statistics import wilson
from forefend.runtime.formatting import markdown_table


def attacks_of(found: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Return heading and rows: one row for each classifier, defense and attack."""
    columns = [column for column in columns_of(found) if column[0]]
    lines = list(dict.fromkeys((c.classifier, c.defended, c.attack) for c in found if c.norm))
    heading = ["classifier", "defense", "attack", *(column_title(*column) for column in columns)]
    rows = []
    for classifier, defended, attack in lines:
        own = [c for c in found if (c.classifier, c.defended, c.attack) == (classifier, defended, attack)]
        figures = [cell(own, *column) for column in columns]
        rows.append([classifier, "yes" if defended else "no", attack, *figures])
    return heading, rows


def changes_of(found: Results) -> tuple[list[str], list[list[str]]]:
    """Return heading and rows: for each attack its fooling rate in %, and the mean |Δ| in 8-bit pixel values (JATP).

    The columns Δ are of the attack, x to x_adv; of the output, x to g(x_adv); of the preprocessor, x_adv to g(x_adv).
    """
    heading = ["classifier", "defense", "attack", "radius", "accuracy", "fooling rate"]
    heading += ["Δ attack /255", "Δ output /255", "Δ preprocessor /255"]
    rows = []
    for result in found:
        fooled, moved = found.fooling_rate(result), found.moved(result)
        distances = (moved.attack, moved.output, moved.preprocessor) if moved else ()
        figures = [f"{255 * distance:.2f}" for distance in distances] or ["–"] * 3
        rate = "–" if fooled is None or not result.norm else f"{100 * fooled:.1f}"
        what = [result.classifier, "yes" if result.defended else "no", result.attack]
        rows.append([*what, column_title(result.norm, result.radius), f"{100 * result.accuracy:.1f}", rate, *figures])
    return heading, rows


def cumulative(found: Results) -> Results:
    """Return results in which an image misclassified at a radius is misclassified at every larger one (RTFE)."""
    changed = []
    for result in found:
        low, high = wilson(round(result.cumulative * result.n), result.n)
        changed.append(replace(result, accuracy=result.cumulative, low=low, high=high))
    return Results(changed, found.warnings, found.predictions, found.classes, found.movement, found.told)


def over_seeds(found: Sequence[Sequence[Result]]) -> tuple[list[str], list[list[str]]]:
    """Return heading and rows of accuracies over runs with different seeds: mean, standard deviation and maximum.

    Args:
        found: the results of each run, of the same classifiers, attacks and radii.

    Raises:
        InputError: fewer than two runs, or one that lacks a result of another.
    """
    if len(found) < 2:
        raise InputError(f"There is {len(found)} evaluation, expected one of each of several seeds: name two or more.")
    shares = [{(r.classifier, r.defended, r.attack, r.norm, r.radius): r.accuracy for r in one} for one in found]
    for other in shares[1:]:
        if lone := next(iter(shares[0].keys() ^ other.keys()), None):
            raise InputError(f"Only some evaluations have {lone[0]} under {lone[2]}: give equal ones of several seeds.")
    heading = ["classifier", "defense", "attack", "radius", "mean", "sd", "max", "runs"]
    rows = []
    for classifier, defended, attack, norm, radius in shares[0]:
        runs = [100 * one[classifier, defended, attack, norm, radius] for one in shares]
        figures = [f"{figure:.1f}" for figure in (fmean(runs), stdev(runs), max(runs))]
        where = column_title(norm, radius)
        rows.append([classifier, "yes" if defended else "no", attack, where, *figures, str(len(runs))])
    return heading, rows


def markdown(found: Results, layout: Layout = rows_of) -> str:
    """Return a table in Markdown; `layout` is `rows_of` or `attacks_of`."""
    return markdown_table(*layout(found)) + "\n\n" + caption(found)


def chosen_layout(options: Any) -> Layout:
    """Return the layout that the options of a command name."""
    return LAYOUTS["changes" if options.changes else "attacks" if options.attacks else "table"]


def renewed(document: str, root: Path) -> str:
    """A document whose every `<!-- table FOLDER -->` … `<!-- end -->` block holds that evaluation's table.

    A block that begins with `attacks` in place of `table` has a row for each attack. A `headline` block names several
    evaluations, each as `FOLDER#CLASSIFIER`.

    Args:
        document: Markdown.
        root: where the folders' names start.

    Raises:
        InputError: a folder holds no summary.
    """

    def block(found: re.Match[str]) -> str:
        kind, names = found["kind"], found["names"]
        if kind == "headline":
            table = headline(names.split(), root)
        else:
            table = markdown(results.load(root / names), LAYOUTS[kind])
        return f"<!-- {kind} {names} -->\n{table}\n<!-- end -->"

    pattern = r"<!-- (?P<kind>table|attacks|headline) (?P<names>\S.*?) -->\n.*?<!-- end -->"
    return re.sub(pattern, block, document, flags=re.DOTALL)


LAYOUTS: dict[str, Layout] = {"table": rows_of, "attacks": attacks_of, "changes": changes_of}


def headline(names: Sequence[str], root: Path) -> str:
    """A table with one classifier of each evaluation at its largest radius, without and with the defense.

    Args:
        names: each `FOLDER#CLASSIFIER`.
        root: where the folders' names start.

    Raises:
        InputError: a folder holds no summary, or no attack on that classifier.
    """
    rows = []
    for name in names:
        folder, _, classifier = name.partition("#")
        own = [c for c in results.load(root / folder) if c.classifier == classifier and c.norm]
        if not own:
            raise InputError(f"{root / folder} holds no attack on {classifier!r}: name a classifier of its table.")
        norm, radius = max((c.norm, c.radius) for c in own)
        attacks = dict.fromkeys(c.attack for c in own if c.attack != WORST)
        figures = [cell([c for c in own if c.defended == defended], norm, radius) for defended in (False, True)]
        role = "guide" if own[0].seen else "unseen"
        what = [
            f"[{Path(folder).name}]({folder})",
            f"{classifier} ({role})",
            column_title(norm, radius),
            ", ".join(attacks),
        ]
        rows.append([*what, *figures, str(own[0].seed)])
    heading = ["run", "classifier", "radius", "attacks", "without defense", "with defense", "seed"]
    note = "accuracy in %, [95% Wilson interval]; an image is robust only if every attack named fails on it"
    return markdown_table(heading, rows) + "\n\n" + note
