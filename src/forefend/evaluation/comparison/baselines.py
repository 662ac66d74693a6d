"""The baselines of a comparison: their training at equal compute, and their attacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from forefend.attacks.autoattack import AutoAttack
from forefend.checks import choose
from forefend.data import ImageDataset, augmentation, sample
from forefend.evaluation.access import through_bpda, white_box
from forefend.evaluation.attack_runner import run_all_steps
from forefend.evaluation.model_checks import has_gradient
from forefend.evaluation.trial import Suite
from forefend.models import preprocessors
from forefend.models.classifiers.model_card import NamedClassifier, load_card, save_classifier
from forefend.models.defended import Defended
from forefend.models.defense import Defense, DefenseCard, load
from forefend.models.freezing import deep_copy
from forefend.models.guide import Guide
from forefend.models.initialization import new_preprocessor
from forefend.models.noise_averaging import MeanOverNoise
from forefend.recipes import Adversarial, DenoisedSmoothing
from forefend.recipes.base import Networks, Recipe
from forefend.recipes.denoised_smoothing import stability
from forefend.runtime import run_folder
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.parsing import as_file_name
from forefend.training.artifacts import training_config
from forefend.training.compute_budget import allowance, flops_per_image
from forefend.training.config import TrainingConfig
from forefend.training.trainer import fit

AdaptSuite = Callable[[Suite], tuple[Suite, str]]  # returns trials and their description


@dataclass(frozen=True)
class ComparedModel:
    """One model of a comparison.

    Args:
        name: name in the table; settings follow in brackets.
        network: the whole model, images to logits.
        classifier: the classifier inside it.
        adapt: adapts the suite to the model.
        training_flops: operations of its training.
    """

    name: str
    network: nn.Module
    classifier: nn.Module
    adapt: AdaptSuite
    training_flops: float = 0.0


@dataclass(frozen=True)
class BaselineTraining:
    """How baselines are trained.

    Args:
        classifier: the frozen classifier that is defended.
        threat: threat model of adversarial training.
        images: training images.
        budget: largest number of operations of each training.
        seed: seed of initialization, order and attacks.
        data: name of the training data, which decides how images are augmented.
        folder: folder of the runs.
        accelerator: device and processes of the training.
    """

    classifier: NamedClassifier
    threat: ThreatModel
    images: ImageDataset
    budget: float
    seed: int
    data: str
    folder: Path
    accelerator: Accelerator


def white_box_suite(suite: Suite) -> tuple[Suite, str]:
    """Return the suite unchanged."""
    return suite, "white box"


def with_bpda(suite: Suite) -> tuple[Suite, str]:
    """Add each gradient attack once more through BPDA."""
    return [*suite, *_through_bpda(suite)], "white box and BPDA"


def bpda_only(suite: Suite) -> tuple[Suite, str]:
    """Run gradient attacks through BPDA only; attacks without gradients are unchanged."""
    others = [trial for trial in suite if not (trial.gradients() and trial.access.view is white_box)]
    return [*others, *_through_bpda(suite)], "BPDA, as it has no gradient"


def with_eot(suite: Suite) -> tuple[Suite, str]:
    """Average the random output in each attack, and count only its last iterate."""
    trials = []
    for trial in suite:
        attack = replace(trial.attack, version="rand") if isinstance(trial.attack, AutoAttack) else trial.attack
        trials.append(replace(trial, attack=attack, access=replace(trial.access, eot_samples=1), run=run_all_steps))
    return trials, "EOT over its noisy copies"


def _through_bpda(suite: Suite) -> Suite:
    seen = [trial for trial in suite if trial.gradients() and trial.access.view is white_box]
    return [
        replace(trial, name=f"{trial.name} BPDA", access=replace(trial.access, view=through_bpda)) for trial in seen
    ]


def transformed(classifier: nn.Module, images: ImageDataset) -> list[ComparedModel]:
    """Return the classifier behind JPEG, reduced bit depth and total variation."""
    x, _, _ = images.batch(torch.arange(1))
    found = []
    for name in ("jpeg", "bit-depth", "total-variation"):
        transform = preprocessors.build(name, channels=images.shape[0])
        card = DefenseCard(name, dict(transform.settings))  # type: ignore[arg-type]
        settings = ", ".join(f"{key} {value}" for key, value in card.settings.items() if key != "channels")
        adapt = with_bpda if has_gradient(transform, x) else bpda_only
        found.append(
            ComparedModel(f"{name} ({settings})", Defended(Defense(transform, card), classifier), classifier, adapt)
        )
    return found


def denoised_smoothing(training: BaselineTraining, architecture: str, *, sigma: float, copies: int) -> ComparedModel:
    """Train a denoiser with the stability loss; average the logits of noisy copies.

    Args:
        training: how it is trained.
        architecture: preprocessor architecture of the denoiser.
        sigma: standard deviation of the noise, for images in [0, 1].
        copies: noisy copies of each image.
    """
    classifier = training.classifier
    networks = Networks(
        new_preprocessor(architecture, training.images, training.seed), [Guide(classifier.network, classifier.name)]
    )
    folder = training.folder / f"denoised-smoothing-{architecture}-sigma{sigma:g}"
    recipe = DenoisedSmoothing(sigma=sigma, objective=stability)
    flops = _train(training, folder, recipe, networks, {"preprocessor": architecture})
    network = MeanOverNoise(Defended(load(folder), classifier.network), sigma, copies).eval()
    name = f"denoised smoothing ({architecture}, sigma {sigma:g}, {copies} copies)"
    return ComparedModel(name, network, classifier.network, with_eot, flops)


def fine_tuned(training: BaselineTraining, lr: float, like: Recipe) -> ComparedModel:
    """Continue the training of the classifier itself, on adversarial images.

    Args:
        training: how it is trained.
        lr: learning rate of SGD.
        like: recipe of the run, whose inner attack is used where it has one.
    """
    classifier = training.classifier
    inner: dict[str, Any] = {key: getattr(like, key) for key in ("steps", "relative_step") if getattr(like, key, 0)}
    recipe = Adversarial(threat=training.threat, lr=lr, **inner)
    networks = Networks(classifier=deep_copy(classifier.network))
    folder = training.folder / f"adversarial-fine-tuning-{as_file_name(training.threat)}-lr{lr:g}"
    flops = _train(training, folder, recipe, networks, {"classifier": classifier.architecture})
    own = load_card(folder / "classifier.json")
    return ComparedModel(f"adversarial fine-tuning (lr {lr:g})", own, own, white_box_suite, flops)


def check_settings(architecture: str, *, sigma: float, copies: int, lr: float) -> None:
    """Refuse settings of the trained baselines before anything is trained.

    Raises:
        InputError: no such denoiser with weights, or a number out of range.
    """
    choose(architecture, preprocessors.ARCHITECTURES, "preprocessor architecture")
    MeanOverNoise(nn.Identity(), sigma, copies)
    Adversarial(lr=lr).check()


def _train(training: BaselineTraining, folder: Path, recipe: Recipe, networks: Networks, nets: dict[str, str]) -> float:
    """Train for as many epochs as the budget allows, or resume the run; return the operations."""
    recipe.check()
    images = training.images
    paid = allowance(training.budget, flops_per_image(recipe, images, networks), len(images))
    recipe = replace(recipe, epochs=paid.epochs)  # type: ignore[type-var]
    if paid.images < len(images):
        images = sample(images, paid.images, training.seed)
    config = training_config(recipe, images, training.seed) | nets
    config |= {"data": training.data, "guides": [], "from": training.classifier.config() | {"spec": ""}}
    config |= {"budget_flops": training.budget, "training_flops": paid.flops}
    run = run_folder.start(folder, config)
    done = "defense.json" if "preprocessor" in nets else "classifier.json"
    if not (folder / done).exists():
        print(f"{folder.name}: {paid.epochs} epochs of {paid.images} images, {paid.flops / 1e9:.1f} GFLOP", flush=True)
        trained = fit(
            recipe,
            images,
            networks,
            run=run,
            seed=training.seed,
            augment=augmentation(training.data),
            accelerator=training.accelerator,
            # Monitoring is not in the budget; catastrophic overfitting is a result too.
            config=TrainingConfig(monitor=None),
        )
        if isinstance(trained, Defense):
            trained.save(folder)
        else:
            save_classifier(folder, networks.classifier, nets["classifier"], images)
    return paid.flops
