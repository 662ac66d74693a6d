"""How an evaluation of black boxes differs: its suite, what its attacks see, and its warnings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from forefend.checks import InputError
from forefend.evaluation.access import CraftedOn, GradientOf, Surrogate, queries, white_box
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.trial import Suite, Trial
from forefend.models.classifiers.black_box import black_box_in

TRANSFERRED = (Surrogate, CraftedOn)  # views of other networks, which need nothing of the model
DIFFERENTIABLE = (*TRANSFERRED, GradientOf)  # views with a gradient, whatever the model
SATURATED = 0.5  # share of probe images with one and the same margin from which scores have none


def any_of(models: Iterable[EvaluatedModel]) -> bool:
    """Whether a model is, or holds, a black box."""
    return any(black_box_in(model.network) for model in models)


def default_suite(models: Iterable[EvaluatedModel]) -> str:
    """Return the suite that is run where none is named: `black-box` for a black box, else `quick`."""
    return "black-box" if any_of(models) else "quick"


def gives_scores(models: Iterable[EvaluatedModel]) -> bool:
    """Whether a model gives more than labels."""
    found = [black_box_in(model.network) for model in models]
    return not all(box and box.outputs == "labels" for box in found)


def check_knowledge(models: Iterable[EvaluatedModel], suite: Suite) -> None:
    """Refuse trials that need the gradient of a black box; no query is made.

    Args:
        models: the models of an evaluation.
        suite: its trials.

    Raises:
        InputError: a trial needs a gradient or a copy of a black box.
    """
    for trial in suite:
        view = trial.access.view
        if isinstance(view, DIFFERENTIABLE) and black_box_in(view.network):
            raise InputError(
                f"The surrogate {view.name} is a black box, and {trial.name} needs its gradient: name another network."
            )
    for model in models:
        if not black_box_in(model.network):
            continue
        for trial in suite:
            if trial.gradients() and not isinstance(trial.access.view, DIFFERENTIABLE):
                raise InputError(
                    f"{model.name} is a black box, and {trial.name} needs its gradient: evaluate with --suite "
                    "black-box (suite='black-box'), and with --surrogates for transferred examples."
                )
            if trial.access.precision:
                raise InputError(f"{model.name} is a black box, which cannot be copied: leave out the precision.")


def as_seen(trial: Trial, model: EvaluatedModel) -> Trial:
    """Return the trial as it runs on a model: on a black box an attacker who may see all sees its answers."""
    if trial.access.view is white_box and black_box_in(model.network):
        return replace(trial, access=replace(trial.access, view=queries))
    return trial


def shown_name(model: EvaluatedModel, suite: Suite = ()) -> str:
    """Return the name of a model in tables, which says that the attacker of a black box is a black-box attacker.

    An attacker with the gradient of a network that stands for it is none.
    """
    return f"{model.name} (black box)" if black_box_in(model.network) and not _has_gradient(suite) else model.name


def _has_gradient(suite: Suite) -> bool:
    return any(isinstance(trial.access.view, GradientOf) for trial in suite)


def notes_on(model: EvaluatedModel, suite: Suite, images: int, same_margin: float) -> list[str]:
    """Return what must be told of a black box before it is attacked, a sentence each.

    Args:
        model: any model; there is nothing to tell of others.
        suite: the trials.
        images: the number of images.
        same_margin: the share of probe images with one and the same margin.
    """
    if not black_box_in(model.network) or _has_gradient(suite):
        return []
    own = [trial for trial in suite if not isinstance(trial.access.view, TRANSFERRED)]
    most = sum(trial.forwards() for trial in own)
    found = [
        f"{model.name} is a black box: its accuracies are against a black-box attacker, who sees its answers alone. "
        f"The attacks ask it at most {most:,} times for an image, {images * most:,} times in all."
    ]
    if same_margin >= SATURATED:
        found.append(
            f"{model.name} gives scores without a margin ({same_margin:.0%} of the probe images have the same one): "
            "Square has nothing to climb, and only attacks by labels and transferred examples say something."
        )
    return found
