"""Measurements of a classifier, alone or behind a defense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from forefend.data import corruptions as made
from forefend.evaluation import corruption_results, records
from forefend.evaluation.corruption_robustness import corruptions
from forefend.evaluation.evaluate import prepare
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.manifest import Manifest
from forefend.evaluation.records import Record
from forefend.evaluation.results import CLEAN
from forefend.evaluation.statistics import wilson
from forefend.models.defended import Defended
from forefend.models.defense import Defense
from forefend.models.freezing import frozen
from forefend.models.noise_averaging import MeanOverNoise
from forefend.runtime.distributed import accelerator_on
from forefend.runtime.files import read_versioned, write, write_versioned
from forefend.runtime.rng import KeyedRNG
from forefend.studies.attacks import AttackSpec
from forefend.studies.networks import Source
from forefend.studies.tasks import Place, Task, as_json
from forefend.studies.untrained import Preprocessor, trainings_of

COUNTS = "count.json"


@dataclass(frozen=True)
class Count:
    """How many images are classified correctly.

    Args:
        model: the key of the model in the records.
        trials: the identities of the trials that are added up.
        seed: of the evaluation.
        n: the number of verdicts.
        right: how many of them are correct.
        moved: the mean |Δ| of the attack, and behind the defense, where it was measured (see `Movement`).
    """

    model: str
    trials: Sequence[str]
    seed: int
    n: int
    right: int
    moved: Sequence[float] = ()

    def accuracy(self) -> float:
        """The share of correct verdicts in percent."""
        return 100 * self.right / self.n

    def interval(self) -> tuple[float, float]:
        """The 95% interval of the accuracy, in percent."""
        low, high = wilson(self.right, self.n)
        return 100 * low, 100 * high


@dataclass(frozen=True)
class Pipeline:
    """A classifier, behind a defense or alone, and the test images.

    Args:
        classifier: where it comes from.
        data: the name of the data set.
        images: size of the stratified sample of test images; None for all.
        defense: its preprocessor; None for the classifier alone.
        sigma: standard deviation of the noise on each copy of an image, whose predictions are averaged; 0 for none.
        copies: number of noisy copies.
    """

    classifier: Source
    data: str
    images: int | None
    defense: Preprocessor | None = None
    sigma: float = 0.0
    copies: int = 0

    def config(self) -> dict[str, Any]:
        """Everything that the verdicts depend on besides the attack."""
        own = {"classifier": self.classifier.config(), "data": self.data, "images": self.images}
        smoothed = {"sigma": self.sigma, "copies": self.copies} if self.copies else {}
        return own | {"defense": as_json(self.defense)} | smoothed

    def name(self) -> str:
        """Its name in folders."""
        return f"{self.defense.recipe}-{self.classifier.name()}" if self.defense else self.classifier.name()

    def needs(self) -> list[Task]:
        """The trainings of its networks."""
        return [*trainings_of(self.classifier), *trainings_of(self.defense)]

    def count(self, place: Place) -> int:
        """The number of test images."""
        return self.images or len(place.images(self.data, "test"))

    def model(self, place: Place) -> EvaluatedModel:
        """Load the networks."""
        named, device = self.classifier.named(place), accelerator_on(place.device).device
        if self.defense is None:
            return EvaluatedModel(named.name, named.network.to(device))
        defense = self.defense.defense(place)
        network = Defended(defense, named.network).to(device)
        if self.copies:
            return EvaluatedModel(f"{named.name} smoothed", MeanOverNoise(network, self.sigma, self.copies).eval())
        seen = isinstance(defense, Defense) and defense.has_seen(named.network)
        return EvaluatedModel(named.name, network, defended=True, seen=seen)


class Measurement(Task):
    """A task whose result is a count of verdicts in records."""

    def count(self, place: Place) -> Count:
        """Read the result."""
        return Count(**read_versioned(self.folder(place) / COUNTS)["count"])

    def verdicts(self, place: Place) -> list[Record]:
        """Return the verdicts that were counted, one record for each trial, the clean one first."""
        count = self.count(place)
        found = records.read(self.folder(place) / "records.jsonl")
        chosen = [(trial, [r for r in found if (r.trial, r.model) == (trial, count.model)]) for trial in count.trials]
        clean = [record for record in found if (record.trial, record.model) == (CLEAN, count.model)]
        return [_joined(count, *pair) for pair in dict([(CLEAN, clean), *chosen]).items()]


@dataclass(frozen=True)
class Accuracy(Measurement):
    """The accuracy under one attack, or on clean images.

    Args:
        pipeline: what is attacked.
        attack: None for clean images.
        others: further classifiers that the attack uses, by name.
        seed: of the attack.
    """

    pipeline: Pipeline
    attack: AttackSpec | None = None
    others: Mapping[str, Source] = field(default_factory=dict)
    seed: int = 0

    def title(self) -> str:
        """Attack and pipeline."""
        return f"{self.attack.name if self.attack else 'clean'}-{self.pipeline.data}-{self.pipeline.name()}"

    def config(self) -> dict[str, Any]:
        """Everything that the verdicts depend on."""
        own = {"pipeline": self.pipeline.config(), "attack": as_json(self.attack), "seed": self.seed}
        return own | {"others": as_json(self.others)}

    def needs(self) -> Sequence[Task]:
        """The trainings of all networks."""
        return self.pipeline.needs() + [source for source in self.others.values() if isinstance(source, Task)]

    def gradients(self, place: Place) -> float:
        """The largest number of gradients of the attack."""
        if self.attack is None:
            return 0.0
        others = {name: nn.Identity() for name in self.others}
        trial = self.attack.trial(others)
        return (trial.gradients() + trial.forwards() / 2) * self.pipeline.count(place)

    def compute(self, place: Place, folder: Path) -> None:
        """Attack every image, and count."""
        data = self.pipeline.data
        images = place.images(data, "test", self.pipeline.images)
        device = accelerator_on(place.device).device
        others = {name: source.named(place).network.to(device) for name, source in self.others.items()}
        pool = place.images(data, "train", 1000) if self.attack and self.attack.name == "adaptive" else None
        suite = [self.attack.trial(others, pool, len(images.classes))] if self.attack else []
        evaluation = prepare(self.pipeline.model(place), images, suite, folder=folder, seed=self.seed)
        found = evaluation.run(allow_weak=True)  # a low accuracy is a result here
        trial = str(evaluation.targets[0].trials[0]) if suite else CLEAN
        result = next(r for r in found if r.attack == (suite[0].name if suite else CLEAN))
        moved, right = found.moved(result), round(result.accuracy * result.n)
        means = [moved.attack, moved.output] if moved and suite else []
        _save(folder, Count(evaluation.targets[0].key, [trial], self.seed, result.n, right, means), found.warnings)


@dataclass(frozen=True)
class CorruptedAccuracy(Measurement):
    """The accuracy on images with one corruption, over its five severities.

    Args:
        pipeline: what is measured.
        corruption: a key of `CORRUPTIONS`.
        seed: of the corruption.
    """

    pipeline: Pipeline
    corruption: str
    seed: int = 0

    def title(self) -> str:
        """Corruption and pipeline."""
        return f"{self.corruption}-{self.pipeline.data}-{self.pipeline.name()}"

    def config(self) -> dict[str, Any]:
        """Everything that the verdicts depend on."""
        return {"pipeline": self.pipeline.config(), "corruption": self.corruption, "seed": self.seed}

    def needs(self) -> Sequence[Task]:
        """The trainings of all networks."""
        return self.pipeline.needs()

    def gradients(self, place: Place) -> float:
        """Forward passes, each as half a gradient."""
        return 0.5 * (1 + len(made.SEVERITIES)) * self.pipeline.count(place)

    def compute(self, place: Place, folder: Path) -> None:
        """Classify every corrupted image, and count."""
        images, model = place.images(self.pipeline.data, "test", self.pipeline.images), self.pipeline.model(place)
        found = corruptions(model, images, corruptions=[self.corruption], folder=folder, seed=self.seed)
        result = next(r for r in found if (r.corruption, r.severity) == (self.corruption, corruption_results.ALL))
        manifest = Manifest(**{k: v for k, v in read_versioned(folder / "evaluation.json").items() if k != "about"})
        trials = [trial for trial in manifest.trials if trial != CLEAN]
        n = result.n * len(trials)
        _save(folder, Count(manifest.models[model.title], trials, self.seed, n, round(result.accuracy * n)), [])


@dataclass(frozen=True)
class Outputs(Task):
    """A few images: as they are, attacked, and as the defense passes them on.

    Args:
        pipeline: the classifier and its defense; the first images of its sample are shown.
        attack: None for clean images alone.
        seed: of the attack.
    """

    pipeline: Pipeline
    attack: AttackSpec | None = None
    seed: int = 0

    def title(self) -> str:
        """Pipeline."""
        return f"images-{self.pipeline.data}-{self.pipeline.name()}"

    def config(self) -> dict[str, Any]:
        """Everything that the images depend on."""
        return {"images of": self.pipeline.config(), "attack": as_json(self.attack), "seed": self.seed}

    def needs(self) -> Sequence[Task]:
        """The trainings of the networks."""
        return self.pipeline.needs()

    def gradients(self, place: Place) -> float:
        """Those of the attack."""
        return self.attack.trial({}).gradients() * self.pipeline.count(place) if self.attack else 0.0

    def compute(self, place: Place, folder: Path) -> None:
        """Compute the images."""
        images = place.images(self.pipeline.data, "test", self.pipeline.images)
        network = frozen(self.pipeline.model(place).network)
        x, y, index = (
            tensor.to(next(network.parameters()).device) for tensor in images.batch(torch.arange(len(images)))
        )
        shown = {"x": x, "x_adv": x}
        if self.attack:
            trial = self.attack.trial({})
            rng = KeyedRNG(index, self.seed, trial.rng_key)
            shown["x_adv"] = trial.attack(trial.access(network), x, y, rng=rng)
        if isinstance(network, Defended):
            with torch.no_grad():
                shown |= {f"g({name})": network.defense(image).clamp(0, 1) for name, image in list(shown.items())}
        tensors = {name: image.detach().cpu().clone() for name, image in shown.items()}
        write(folder / "images.safetensors", save(tensors))

    def images(self, place: Place) -> dict[str, Tensor]:
        """Read the images, by name: x, x_adv, g(x), g(x_adv)."""
        from safetensors.torch import load_file

        return load_file(self.folder(place) / "images.safetensors")


def _save(folder: Path, count: Count, warnings: Sequence[str]) -> None:
    write_versioned(folder / COUNTS, {"count": asdict(count), "warnings": list(warnings)})


def _joined(count: Count, trial: str, found: Sequence[Record]) -> Record:
    """One record of all verdicts under a trial, by index, without digests."""
    verdicts, moved = dict[int, bool](), dict[int, list[float]]()
    for record in found:
        verdicts |= dict(zip(record.index, record.misclassified, strict=True))
        moved |= dict(zip(record.index, record.moved, strict=False))
    index = sorted(verdicts)
    kept = [moved[i] for i in index] if len(moved) == len(index) and trial != CLEAN else []
    return Record(count.model, trial, count.seed, index, [verdicts[i] for i in index], moved=kept)
