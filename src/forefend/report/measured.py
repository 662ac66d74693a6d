"""What the records of an evaluation say of a defense, for its model card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from forefend.checks import InputError
from forefend.evaluation.gradient_masking.check_report import CheckReport
from forefend.evaluation.identification import lines_on_noise
from forefend.evaluation.recount import Recount
from forefend.evaluation.results import CLEAN, WORST, Result, Results, column_title
from forefend.models.defense import Defense
from forefend.models.defense_readme import Measured
from forefend.report.evidence.evaluations import FoundEvaluation, read_evaluation
from forefend.report.evidence.masking import counts
from forefend.report.evidence.sources import Sources, read_run
from forefend.report.evidence.untested import gaps
from forefend.report.tables import attacks_of, markdown
from forefend.runtime.formatting import markdown_table


def measured(defense: Defense, folder: str | Path) -> Measured:
    """Read an evaluation for the model card of a defense; every number is counted again from its records.

    The numbers and what was not tested are those of the evidence page.

    Args:
        defense: the defense.
        folder: the folder of an evaluation, which `evaluate` wrote.

    Returns:
        What `Defense.save_pretrained` takes as `measured`.

    Raises:
        InputError: there is no evaluation, it is of another defense, or its records are missing or were edited.
    """
    return _measured(defense, read_evaluation(Path(folder)), _sources(defense, _run_of(Path(folder))))


def measured_in(defense: Defense, run: Path) -> list[Measured]:
    """Return what the evaluations of a run say of its defense; one that does not count is named with the reason."""
    found, folders = list[Measured](), evaluations_in(run)
    sources = _sources(defense, run) if folders else Sources(run)
    for folder in folders:
        try:
            found.append(_measured(defense, read_evaluation(folder), sources))
        except InputError as reason:
            print(f"not on the model card: {reason}", flush=True)
    return found


def _measured(defense: Defense, found_again: FoundEvaluation, sources: Sources) -> Measured:
    folder, identity = found_again.folder, defense.identity()
    if reason := next(iter(found_again.faults), found_again.uncounted):
        raise InputError(reason)
    models = found_again.models
    defended = [one for one in models if one.model.defended]
    if not defended or any(one.model.defense != identity for one in defended):
        raise InputError(f"{folder} measured another defense than this one: evaluate this defense.")
    data = defended[0].data
    return Measured(
        defense=identity,
        source=str(folder),
        data=data,
        table=counted_tables(models),
        accuracies=[(_name(result), _percent(result)) for one in defended for result in one.results],
        pipelines=[one.identity for one in defended for _ in one.results],
        answers=lines_on_noise(folder, {one.identity for one in defended}),
        models=[_entry(defense, data, one) for one in defended],
        untested=[f"{what}: {why}" for what, why, _ in gaps(sources)],
        checks=[_checked(report) for report in sources.checks],
    )


def evaluations_in(run: Path) -> list[Path]:
    """Return the folders of a run's evaluations, its own folder first."""
    own = [run] if (run / "evaluation.json").exists() else []
    return [*own, *sorted(path.parent for path in run.glob("evaluations/*/evaluation.json"))]


def _run_of(folder: Path) -> Path:
    """Return the run that an evaluation lies in, else the folder itself."""
    return folder.parent.parent if folder.parent.name == "evaluations" else folder


def _sources(defense: Defense, run: Path) -> Sources:
    """Return what a run holds, without the checks that do not name its defense."""
    found, own = read_run(run), defense.identity()
    return replace(found, checks=[report for report in found.checks if report.defense == own])


def _checked(report: CheckReport) -> str:
    """Return the checks of a model in Markdown."""
    cells = [[result.check, result.status, result.measured, result.bound] for result in report]
    rows = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in cells]
    title = f"### Gradient-masking checks: {report.model} behind the defense"
    about = f"{counts(report)}; {report.threat}, {report.images} images. A failed check shows that an accuracy is not "
    about += "to be trusted; passed checks show that no sign was found."
    return f"{title}\n\n{about}\n\n{markdown_table(['check', '', 'measured', 'required'], rows)}"


def counted_tables(models: Sequence[Recount]) -> str:
    """Return the tables of an evaluation and the identities of its trials, in Markdown."""
    found = Results(result for one in models for result in one.results)
    trials = dict.fromkeys((name, identity) for one in models for name, *_, identity in one.model.trials)
    protocol = "\n".join(f"- {name}: `{identity}`" for name, identity in trials)
    return f"{markdown(found)}\n\n{markdown(found, attacks_of)}\n\n{protocol}"


def _name(result: Result) -> str:
    role = "guide" if result.seen else "unseen"
    attack = "clean" if result.attack == CLEAN else f"{result.attack}, {column_title(result.norm, result.radius)}"
    return f"{result.classifier} ({role}) behind the defense, {attack}, n={result.n}, seed {result.seed}"


def _percent(result: Result) -> float:
    return round(100 * result.accuracy, 2)


def _entry(defense: Defense, data: str, one: Recount) -> dict[str, Any]:
    """Return the keys of RobustBench's model files; `attacks` has the accuracy under each attack by its identity."""
    card = defense.card
    entry: dict[str, Any] = {"name": f"{one.model.classifier} behind {card.recipe or card.architecture}"}
    entry |= {"dataset": data.partition("/")[0], "architecture": one.model.classifier}
    entry |= {"preprocessor": card.architecture, "recipe": card.recipe, "attacks": dict[str, str]()}
    by_label = {(result.attack, result.norm, result.radius): result for result in one.results}
    entry["clean_acc"] = f"{_percent(by_label[CLEAN, '', 0.0]):.2f}"
    for name, norm, radius, identity in one.model.trials:
        entry["attacks"][identity] = f"{_percent(by_label[name, norm, radius]):.2f}"
    radii = sorted({(result.norm, result.radius) for result in one.results if result.attack != CLEAN})
    if len(radii) == 1:
        norm, radius = radii[0]
        shown = by_label.get((WORST, norm, radius)) or by_label[one.model.trials[0][0], norm, radius]
        entry |= {"norm": norm, "eps": str(radius), "worst_acc": f"{_percent(shown):.2f}"}
    return entry
