"""Manifest: what the summary in a folder counts, so that another evaluation does not replace it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from forefend.checks import InputError
from forefend.data import ImageDataset
from forefend.data.dataset import dataset_digest
from forefend.runtime.files import provenance, read_versioned, write_versioned


@dataclass(frozen=True)
class Counted:
    """What the rows of one model are counted from.

    Args:
        classifier: its name in tables.
        seen: whether it was a guide of the defense.
        defended: whether the defense was in front of it.
        key: the key of its records.
        defense: the identity of the defense; empty without one, and for a preprocessor without a card.
        trials: name, norm, radius and identity of each trial.
    """

    classifier: str
    seen: bool
    defended: bool
    key: str
    defense: str
    trials: Sequence[tuple[str, str, float, str]]


@dataclass(frozen=True)
class Manifest:
    """The models, trials, images and seed of an evaluation.

    Args:
        models: by name in tables, the key of each model's records.
        trials: identities of the trials.
        images: the number of images.
        index: their dataset index, as text.
        pixels: a digest of them.
        seed: the seed of the evaluation.
    """

    models: Mapping[str, str]
    trials: Sequence[str]
    images: int
    index: str
    pixels: str
    seed: int

    def check(self, folder: Path, summary: str = "summary.json") -> None:
        """Refuse to replace a summary by one that does not hold all of it.

        Args:
            folder: where the summary goes.
            summary: the name of its file.

        Raises:
            InputError: the folder's summary is of other networks, trials or images, or has another
                seed.
        """
        if not (folder / summary).exists() or not (folder / "evaluation.json").exists():
            return
        held = read_versioned(folder / "evaluation.json")
        try:
            old = Manifest(**{key: value for key, value in held.items() if key != "about"})
            missing = next(self._missing(old), None)
        except (TypeError, AttributeError):
            raise InputError(f"{folder}/evaluation.json is not of an evaluation: choose another folder.") from None
        if missing:
            raise InputError(
                f"{folder} holds the {summary} of another evaluation ({missing}), which this one would replace: choose "
                "another folder, or evaluate the same and more."
            )

    def save(self, folder: Path, counted: Sequence[Counted] = (), **more: Any) -> None:
        """Write `evaluation.json` into the folder, with what the rows of each model are counted from, and `more`."""
        about = provenance() | ({"counted": [asdict(model) for model in counted]} if counted else {}) | more
        write_versioned(folder / "evaluation.json", {**asdict(self), "about": about})

    def _missing(self, old: Manifest) -> Iterator[str]:
        """Yield what the old summary holds and the new one would not."""
        keys = set(self.models.values())  # names may change: of two models of one name, each gets a fingerprint
        for name, lost in ((name, key) for name, key in old.models.items() if key not in keys):
            if any(key.startswith(f"{lost}:") for key in keys):
                yield f"an older version evaluated its {name} and did not record what it answered"
            yield f"its {name} is another network or set" if name in self.models else f"it holds {name}"
        yield from (f"it holds the trial {trial}" for trial in old.trials if trial not in self.trials)
        if old.images > self.images:
            yield f"it holds {old.images} images, not {self.images}"
        same_index = old.index == self.index
        if not set(old.index.split()) <= set(self.index.split()) or (same_index and old.pixels != self.pixels):
            yield "it holds other images"
        if old.seed != self.seed:
            yield f"its seed is {old.seed}, not {self.seed}"


def manifest_of(keys: Mapping[str, str], images: ImageDataset, trials: Sequence[str], seed: int) -> Manifest:
    """Return the manifest of an evaluation.

    Args:
        keys: by name in tables, the key of each model's records.
        images: test images.
        trials: identities of the trials.
        seed: the seed of the evaluation.
    """
    index = " ".join(map(str, images.index.tolist()))
    return Manifest(keys, list(dict.fromkeys(trials)), len(images), index, dataset_digest(images), seed)
