"""Compare the defense of a run with baselines at equal training compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from forefend import data as datasets
from forefend.checks import InputError, choose, unknown_name
from forefend.data import ImageDataset, as_image_dataset, sample
from forefend.evaluation.clean_accuracy import clean_accuracy
from forefend.evaluation.comparison.baselines import (
    BaselineTraining,
    ComparedModel,
    check_settings,
    denoised_smoothing,
    fine_tuned,
    transformed,
    white_box_suite,
    with_bpda,
)
from forefend.evaluation.comparison.comparison import OURS, Comparison, Row
from forefend.evaluation.comparison.costs import prices
from forefend.evaluation.cost_estimate import cost_of
from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.result_store import hold
from forefend.evaluation.results import CLEAN, WORST, Result
from forefend.evaluation.suites import suite_named
from forefend.evaluation.trial import Suite, Terms, as_trials
from forefend.models import discriminators
from forefend.models.classifiers import ARCHITECTURES, Normalized
from forefend.models.classifiers.model_card import NamedClassifier, load_card
from forefend.models.defended import Defended
from forefend.models.defense import Defense, load
from forefend.models.fingerprint import fingerprint
from forefend.models.freezing import gradients_enabled
from forefend.models.given_images import images_for_network
from forefend.models.guide import Guide
from forefend.recipes import RECIPES, hyperparameters
from forefend.recipes.base import Networks, Recipe
from forefend.runtime.distributed import accelerator_of, process_group
from forefend.runtime.files import folder_name
from forefend.runtime.formatting import counted, duration
from forefend.runtime.run_folder import Run
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.parsing import as_file_name, as_threat_model
from forefend.training.compute_budget import training_flops
from forefend.training.run_guides import guides_of_run


@gradients_enabled()
def compare(
    run: str | Path,
    data: Any = None,
    *,
    suite: str | Suite = "quick",
    threat: ThreatModel | str | None = None,
    classifier: str | None = None,
    denoiser: str = "dncnn",
    sigma: float = 0.25,
    copies: int = 8,
    lr: float = 0.01,
    train_data: Any = None,
    folder: str | Path | None = None,
    seed: int = 0,
    batch_size: int = 250,
    device: str | None = None,
    allow_weak: bool = False,
    runs: str | Path = "runs",
    log: Callable[[str], None] | None = None,
) -> Comparison:
    """Compare the defense of a run with baselines at equal training compute.

    The baselines are the classifier alone, transformations without weights, denoised smoothing, and
    adversarial fine-tuning of the classifier. They are kept in the folder of the run, and an
    interrupted comparison resumes.

    Args:
        run: folder of a run that `forefend train` wrote.
        data: test images, in any form that `as_image_dataset` accepts; by default those of the run's data set.
        suite: name of a suite, or a list of trials; gradients of non-differentiable models are replaced by BPDA.
        threat: the threat model, or its name; by default that of the run.
        classifier: name of the guide that is defended; by default the first one of the run.
        denoiser: preprocessor architecture for denoised smoothing.
        sigma: standard deviation of its noise, for images in [0, 1].
        copies: noisy copies that it averages.
        lr: learning rate of adversarial fine-tuning.
        train_data: training images of the run; by default those of the run's data set.
        folder: where records, `compare.json` and `compare.md` are written; by default in the folder of the run.
        seed: seed of the attacks.
        batch_size: images attacked at once.
        device: `cpu` or `cuda`; by default the best available.
        allow_weak: accept a classifier that is near chance on clean images.
        runs: a folder of other runs, in which guides of a moved run may lie.
        log: receives lines about the progress and the estimated cost.

    Returns:
        One row for each model, and which one is the most robust.

    Raises:
        InputError: the run holds no defense with guides, or an argument cannot be used.
    """
    accelerator, log = accelerator_of(device), log or (lambda line: None)
    check_settings(denoiser, sigma=sigma, copies=copies, lr=lr)
    started, defense = _load_run(Path(run))
    images, train_images = _images(started, data, "test"), _images(started, train_data, "train")
    guides = guides_of_run(started.folder, {"train": train_images, "test": images}.__getitem__, runs=runs)
    if not guides:
        raise InputError(f"{started.folder} has no frozen guide: compare a run that was trained with guides.")
    chosen = _choose(guides, classifier)
    images, train_images = (images_for_network(chosen.network, each, chosen.name) for each in (images, train_images))
    if not (threat or defense.card.threat):
        raise InputError("The run was trained without a threat model: give one, such as Linf:8/255.")
    threat = as_threat_model(threat or defense.card.threat)
    suite_name, trials = _trials(suite, threat, len(images.classes))
    if not allow_weak:
        clean_accuracy(chosen.name, chosen.network, sample(train_images, min(500, len(train_images)), seed=0))
    training, recipe = _training(started, chosen, guides, threat, train_images, accelerator)
    log(f"{started.folder.name} took {training.budget / 1e9:.1f} GFLOP to train, the limit of each baseline")
    settings = f"{len(images)}-s{seed}-{denoiser}-sigma{sigma:g}-x{copies}-lr{lr:g}"
    folder = Path(folder) if folder else training.folder / f"{suite_name}-{as_file_name(threat)}-{settings}"
    about: dict[str, Any] = {"run": str(run), "classifier": chosen.config(), "threat": str(threat)}
    about |= {"suite": suite_name, "seed": seed, "budget_flops": training.budget}
    with hold(folder):  # raises before any training
        models = [
            ComparedModel("undefended", chosen.network, chosen.network, white_box_suite),
            *transformed(chosen.network, train_images),
            denoised_smoothing(training, denoiser, sigma=sigma, copies=copies),
            fine_tuned(training, lr, recipe),
            ComparedModel(OURS, Defended(defense, chosen.network), chosen.network, with_bpda, training.budget),
        ]
        for model in models:
            model.network.to(accelerator.device)
        log(f"{counted(len(models), 'model')}, {counted(len(images), 'image')} -> {folder}")
        log(_cost(models, images, trials, batch_size))
        outcomes = [_attack(model, images, trials, folder, seed=seed, batch_size=batch_size) for model in models]
        found = Comparison(_rows(models, outcomes, images, trials), _caption(about, images, guides), about)
        if not process_group().rank:
            found.save(folder)
    return found


def _load_run(folder: Path) -> tuple[Run, Defense]:
    defense = load(folder)
    if not (folder / "config.json").exists():
        raise InputError(
            f"{folder} was not trained by `forefend train`, so that its training compute is unknown: train it with "
            "that command."
        )
    return Run(folder), defense


def _images(run: Run, given: Any, split: str) -> ImageDataset:
    """Return the given images, or those of the run; as many training images as the run had."""
    config = run.config
    if given is None:
        images = datasets.load(config["data"], split, size=config.get("size"), channels=config.get("channels"))
    else:
        images = as_image_dataset(given)
    few = split == "train" and config["images"] < len(images)
    return sample(images, config["images"], config["seed"]) if few else images


def _choose(guides: Sequence[NamedClassifier], name: str | None) -> NamedClassifier:
    """Return the guide of this name, or the first one."""
    named = {guide.name: guide for guide in guides}
    if name is not None and name not in named:
        raise unknown_name(name, named, "guide of this run")
    chosen = guides[0] if name is None else named[name]
    if not isinstance(chosen.network, Normalized) or chosen.architecture not in ARCHITECTURES:
        raise InputError(f"{chosen.name} has no card, so it cannot be fine-tuned and saved: name another guide.")
    return chosen


def _trials(suite: str | Suite, threat: ThreatModel, classes: int) -> tuple[str, Suite]:
    if isinstance(suite, str):
        return suite, suite_named(suite)(Terms([threat], classes))
    return "custom", as_trials(suite)


def _training(
    run: Run,
    classifier: NamedClassifier,
    guides: Sequence[NamedClassifier],
    threat: ThreatModel,
    images: ImageDataset,
    accelerator: Accelerator,
) -> tuple[BaselineTraining, Recipe]:
    """Return how baselines are trained, and the recipe of the run."""
    config = run.config
    recipe = hyperparameters.build(choose(config["recipe"], RECIPES, "recipe"), config["settings"])
    networks: dict[str, Any] = {"guides": [Guide(guide.network, guide.name) for guide in guides]}
    networks["preprocessor"] = load(run.folder).preprocessor
    if "discriminator" in config:
        channels, size, _ = images.shape
        networks["discriminator"] = discriminators.build(config["discriminator"], channels=channels, size=size)
    if (run.folder / "classifier" / "classifier.json").exists():
        networks["classifier"] = load_card(run.folder / "classifier" / "classifier.json")
    budget = training_flops(recipe, images, Networks(**networks))
    folder = run.folder / "compare" / folder_name(classifier.name)
    return BaselineTraining(
        classifier, threat, images, budget, config["seed"], config["data"], folder, accelerator
    ), recipe


def _cost(models: Sequence[ComparedModel], images: ImageDataset, suite: Suite, batch_size: int) -> str:
    costs = [
        cost_of(
            [EvaluatedModel(model.name, model.network)], images, model.adapt(suite)[0], _batch_size(model, batch_size)
        )
        for model in models
    ]
    if any(cost.untimed for cost in costs):
        return str(max(costs, key=lambda cost: cost.forwards))
    seconds = sum(cost.seconds for cost in costs)
    return f"At most {duration(seconds)} of attacks, as measured on one batch each; images broken early cost less."


def _batch_size(model: ComparedModel, batch_size: int) -> int:
    """Return a smaller batch size for a model that copies its images."""
    return max(1, batch_size // int(getattr(model.network, "settings", {}).get("copies", 1)))


def _attack(
    model: ComparedModel, images: ImageDataset, suite: Suite, folder: Path, *, seed: int, batch_size: int
) -> tuple[Result, Result]:
    """Return clean accuracy, and accuracy under the worst attack on each image."""
    results = evaluate(
        [EvaluatedModel(model.name, model.network)],
        images,
        model.adapt(suite)[0],
        folder=folder / folder_name(model.name.partition(" (")[0]),
        seed=seed,
        batch_size=_batch_size(model, batch_size),
        allow_weak=True,
    )
    attacked = [result for result in results if result.attack != CLEAN]
    return results[0], next((result for result in attacked if result.attack == WORST), attacked[0])


def _rows(
    models: Sequence[ComparedModel], outcomes: Sequence[tuple[Result, Result]], images: ImageDataset, suite: Suite
) -> list[Row]:
    before = fingerprint(models[0].classifier)
    return [
        Row(model.name, model.adapt(suite)[1], clean, worst, price, fingerprint(model.classifier) != before)
        for model, (clean, worst), price in zip(models, outcomes, prices(models, images), strict=True)
    ]


def _caption(about: Mapping[str, Any], images: ImageDataset, guides: Sequence[NamedClassifier]) -> str:
    return (
        f"{about['classifier']['name']} on {images.name}, {about['threat']}, suite {about['suite']}, seed "
        f"{about['seed']}; accuracy in %, [95% Wilson interval], the worst attack image by image, an upper bound; each "
        f"trained baseline had at most the {about['budget_flops'] / 1e9:.1f} GFLOP of this defense's training, which "
        f"served {' and '.join(guide.name for guide in guides)}; milliseconds on this machine, one image alone and one "
        "of 64."
    )
