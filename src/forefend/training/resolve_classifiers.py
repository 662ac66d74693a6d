"""Classifiers by name: the run, card, weights or architecture that a text names."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from forefend.checks import InputError, choose
from forefend.data import ImageDataset
from forefend.models.classifiers import ARCHITECTURES
from forefend.models.classifiers.loading import CARD, load, needs_shape
from forefend.models.classifiers.model_card import NamedClassifier, save_classifier
from forefend.models.initialization import new_classifier
from forefend.recipes import RECIPES
from forefend.recipes.base import Networks, Recipe
from forefend.runtime import run_folder
from forefend.runtime.distributed import accelerator_on
from forefend.runtime.files import folder_name
from forefend.runtime.formatting import duration
from forefend.training.artifacts import training_config
from forefend.training.batches import Augment
from forefend.training.compute_budget import training_seconds
from forefend.training.trainer import fit

EPOCHS = 10  # of classifiers that are trained because they are missing


def resolve_classifier(
    spec: str,
    split: Callable[[str], ImageDataset],
    *,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    runs: str | Path = "runs",
    seed: int = 0,
    augment: Augment | None = None,
    device: str | None = None,
    download: bool = False,
    outputs: str = "logits",
    train_missing: bool = False,
    data: str | None = None,
) -> NamedClassifier:
    """Load the classifier that a text names; one that was not trained yet is only trained on request.

    Args:
        spec: what `forefend.classifiers.load` accepts, or an architecture, which stands for the classifier
            in `runs` that was trained on these images: naturally, or by the recipe after an @, as in
            `tinyresnet@trades`; `@random` is an untrained one.
        split: returns the images of `"train"` or `"test"`; it is only called where they are needed.
        mean: normalization of a source that does not name its own.
        std: likewise.
        runs: the folder of classifiers that were trained for their architecture.
        seed: of their training.
        augment: augmentation of their training.
        device: of their training, `cpu` or `cuda`; None for the fastest one available.
        download: fetch weights that are missing.
        outputs: what a black box returns: `logits`, `probabilities` or `labels`.
        train_missing: train an architecture that was not trained yet, after printing what it costs.
        data: the options that name the images on the command line, for the message; by default their name.

    Raises:
        InputError: the text names nothing, its files are damaged, or its classifier was not trained yet.
    """
    architecture, _, recipe = spec.partition("@")
    if architecture not in ARCHITECTURES or Path(spec).exists():
        shape = _shape(split) if needs_shape(spec) else {}
        return load(spec, mean=mean, std=std, download=download, outputs=outputs, **shape)
    images = split("train")
    if recipe == "random":
        return NamedClassifier(spec, spec, new_classifier(architecture, images, seed), architecture)
    recipe = recipe or "natural"
    folder = Path(runs) / folder_name(f"{recipe}-{images.name}-{architecture}-s{seed}")
    if not (folder / CARD).exists():
        chosen: Recipe = choose(recipe, RECIPES, "recipe")(epochs=EPOCHS)  # type: ignore[call-arg]
        networks = Networks(classifier=new_classifier(architecture, images, seed))
        chosen.configure_optimizers(networks)  # refuses a recipe of other networks
        if not train_missing:
            options = f"{data or f'--data {shlex.quote(images.name)}'} --classifier {architecture} --epochs {EPOCHS}"
            raise InputError(
                f"{spec} is an architecture, and none was trained on {images.name} yet: train it with `forefend train "
                f"{recipe} {options}{f' --seed {seed}' if seed else ''} --out {shlex.quote(str(folder))}`, or give "
                "train_missing=True."
            )
        seconds = training_seconds(chosen, images, networks, accelerator_on(device))
        about = f"{recipe}, {EPOCHS} epochs of {len(images)} images, about {duration(seconds)}"
        print(f"training {architecture} on {images.name} first ({about}), saved in {folder}", flush=True)
        train_classifier(folder, architecture, images, chosen, seed=seed, augment=augment, device=device)
    shown = architecture if recipe == "natural" else f"{architecture}@{recipe}"
    return NamedClassifier(shown, str(folder), load(str(folder)).network, architecture)


def train_classifier(
    folder: Path,
    architecture: str,
    images: ImageDataset,
    recipe: Recipe,
    *,
    seed: int = 0,
    augment: Augment | None = None,
    device: str | None = None,
) -> nn.Module:
    """Train a classifier, save it in the folder of its run, and return it in eval mode.

    Args:
        folder: the folder of the run; a training that it holds is resumed.
        architecture: a key of `ARCHITECTURES`.
        images: the training images.
        recipe: a recipe that trains a classifier alone.
        seed: of initialization and training.
        augment: augmentation of the images.
        device: `cpu` or `cuda`; None for the fastest one available.

    Raises:
        InputError: the recipe trains other networks, or the folder holds another training.
    """
    networks = Networks(classifier=new_classifier(architecture, images, seed))
    recipe.configure_optimizers(networks)  # refuses a recipe of other networks
    run = run_folder.start(folder, training_config(recipe, images, seed) | {"classifier": architecture})
    fit(recipe, images, networks, run=run, seed=seed, augment=augment, accelerator=accelerator_on(device))
    save_classifier(folder, networks.classifier, architecture, images)
    return networks.classifier.eval()


def _shape(split: Callable[[str], ImageDataset]) -> dict[str, Any]:
    images = split("test")
    return {"channels": images.shape[0], "size": images.shape[1], "classes": len(images.classes)}
