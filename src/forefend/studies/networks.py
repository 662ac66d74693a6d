"""Where the networks of a study come from: published weights, or a training."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from torch import nn

from forefend.checks import choose
from forefend.data import ImageDataset, augmentation, sample
from forefend.models import discriminators
from forefend.models.classifiers.model_card import NamedClassifier, load_card, save_classifier
from forefend.models.classifiers.pretrained import load_weights
from forefend.models.defense import Defense, load
from forefend.models.guide import Guide
from forefend.models.initialization import initialized, new_classifier, new_preprocessor
from forefend.recipes import RECIPES
from forefend.recipes.base import Networks, Recipe
from forefend.recipes.hyperparameters import build
from forefend.recipes.transfer import with_new_head
from forefend.runtime import run_folder
from forefend.runtime.distributed import accelerator_on
from forefend.studies.tasks import Place, Task, as_json
from forefend.training.artifacts import training_config
from forefend.training.compute_budget import allowance, flops_per_image
from forefend.training.config import TrainingConfig
from forefend.training.run_guides import guide_entries
from forefend.training.trainer import fit


@dataclass(frozen=True)
class Published:
    """A classifier that others trained.

    Args:
        architecture: a key of `ARCHITECTURES`.
        file: its weights, below the folder of the data sets.
        channels: of its images.
        size: of its images, in pixels.
        mean: its normalization; 0 for none.
        std: likewise; 1 for none.
    """

    architecture: str
    file: str
    channels: int = 1
    size: int = 28
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)

    def config(self) -> dict[str, Any]:
        """Everything that identifies it."""
        return {"architecture": self.architecture, "file": self.file, "mean": [*self.mean], "std": [*self.std]}

    def name(self) -> str:
        """Its name in folders."""
        return Path(self.file).stem

    def named(self, place: Place) -> NamedClassifier:
        """Load it."""
        path = Path(place.data_dir or os.environ.get("FOREFEND_DATA", ".data")) / self.file
        mean, std, shape = list(self.mean), list(self.std), {"channels": self.channels, "size": self.size}
        network = load_weights(self.architecture, path, mean=mean, std=std, **shape)
        return NamedClassifier(path.stem, f"{self.architecture}:{path}", network, self.architecture, mean, std)


@dataclass(frozen=True)
class Trained(Task):
    """A training run.

    Args:
        recipe: a key of `RECIPES`.
        data: the name of the data set.
        images: size of the stratified sample of training images; None for all.
        architecture: of the preprocessor that is trained; where none is, of the classifier.
        settings: hyper-parameters that differ from the recipe's defaults, as plain values.
        guides: the frozen classifiers.
        start: the classifier whose training continues, or the source of transfer learning.
        joint: architecture of the classifier that is trained with the preprocessor, from scratch.
        training: options that do not depend on the recipe.
        flops: the operations that it may take, which decide its epochs; 0 for those of the recipe.
        seed: of initialization, order, augmentation and attacks; the sample has seed 0.
    """

    recipe: str
    data: str
    images: int | None
    architecture: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    guides: Sequence[Published | Trained] = ()
    start: Published | Trained | None = None
    joint: str = ""
    training: TrainingConfig = TrainingConfig()  # noqa: RUF009 (frozen)
    flops: float = 0.0
    seed: int = 0

    def title(self) -> str:
        """Recipe, data and architecture."""
        return f"{self.recipe}-{self.data}-{self.architecture}"

    def name(self) -> str:
        """Its name in folders."""
        return f"{self.architecture}-{self.recipe}"

    def config(self) -> dict[str, Any]:
        """Everything that the weights depend on, with all hyper-parameters."""
        own: dict[str, Any] = {"recipe": self.recipe, "settings": self.built.settings(), "training": self._training()}
        own |= {name: getattr(self, name) for name in ("data", "images", "architecture", "joint", "seed")}
        if self.flops:
            own["flops"] = self.flops
        return own | {"guides": as_json(list(self.guides)), "start": as_json(self.start)}

    def needs(self) -> Sequence[Task]:
        """The classifiers that are trained first."""
        return [source for source in (*self.guides, self.start) if isinstance(source, Task)]

    @cached_property
    def built(self) -> Recipe:
        """The recipe with its hyper-parameters."""
        return _built(self.recipe, json.dumps(as_json(self.settings), sort_keys=True))

    def gradients(self, place: Place) -> float:
        """The gradients of all epochs: one of the weights and one for each step of the attack."""
        recipe = self.built
        attack = recipe.inner_attack()
        images = self.images or len(place.images(self.data, "train"))
        return recipe.epochs * images * (1 + (attack.steps if attack else 0))

    def compute(self, place: Place, folder: Path) -> None:
        """Train, or resume the training, and save the networks."""
        recipe, images = self.built, place.images(self.data, "train", self.images)
        guides = [guide.named(place) for guide in self.guides]
        networks = self._networks(recipe, images, guides, place)
        if self.flops:
            paid = allowance(self.flops, flops_per_image(recipe, images, networks), len(images))
            recipe = replace(recipe, epochs=paid.epochs)  # type: ignore[type-var]
            images = sample(images, paid.images, seed=0)
        config = training_config(recipe, images, self.seed) | {"guides": guide_entries(guides, folder)}
        config |= {"data": self.data, "architecture": self.architecture, "joint": self.joint}
        config |= {"start": as_json(self.start), "training": self._training()}
        run = run_folder.start(folder, config)
        accelerator, augment = accelerator_on(place.device), augmentation(self.data)
        trained = fit(
            recipe,
            images,
            networks,
            run=run,
            seed=self.seed,
            augment=augment,
            accelerator=accelerator,
            config=self.training,
        )
        if isinstance(trained, Defense):
            trained.save(folder)
        if next(networks.classifier.parameters(), None) is not None:
            own = folder / "classifier" if isinstance(trained, Defense) else folder
            save_classifier(own, networks.classifier, self._classifier_architecture(place), images)

    def named(self, place: Place) -> NamedClassifier:
        """Load the classifier that was trained."""
        folder = self.folder(place)
        own = folder if (folder / "classifier.json").exists() else folder / "classifier"
        return NamedClassifier(
            self.name(), str(own), load_card(own / "classifier.json"), self._classifier_architecture(place)
        )

    def defense(self, place: Place) -> Defense:
        """Load the defense that was trained."""
        return load(self.folder(place))

    def _training(self) -> dict[str, Any]:
        """The training options that differ from the defaults, so that a new option does not change the key."""
        usual = TrainingConfig().settings()
        return {name: value for name, value in self.training.settings().items() if value != usual[name]}

    def _classifier_architecture(self, place: Place) -> str:
        if self.start is not None:
            return self.start.named(place).architecture
        return self.joint or self.architecture

    def _networks(
        self, recipe: Recipe, images: ImageDataset, guides: Sequence[NamedClassifier], place: Place
    ) -> Networks:
        found: dict[str, Any] = {"guides": [Guide(guide.network, guide.name) for guide in guides]}
        if "preprocessor" in recipe.roles:
            found["preprocessor"] = new_preprocessor(self.architecture, images, self.seed)
        if "discriminator" in recipe.roles:
            channels, size, _ = images.shape
            make = partial(discriminators.build, self.recipe, channels=channels, size=size)
            found["discriminator"] = initialized(make, self.seed)
        if {"source", "classifier"} & {*recipe.roles}:
            found["classifier"] = self._classifier(images, place)
        return Networks(**found)

    def _classifier(self, images: ImageDataset, place: Place) -> nn.Module:
        """The classifier to train: new, a copy of the one to continue from, or that one with a new head."""
        if self.start is None:
            return new_classifier(self.joint or self.architecture, images, self.seed)
        source = self.start.named(place).network
        if "source" in self.built.roles:
            return initialized(partial(with_new_head, source, len(images.classes)), self.seed)
        return copy.deepcopy(source)


@cache
def _built(recipe: str, settings: str) -> Recipe:
    """Build a recipe once for all trainings with the same hyper-parameters, given as JSON."""
    return build(choose(recipe, RECIPES, "recipe"), json.loads(settings))


Source = Published | Trained
