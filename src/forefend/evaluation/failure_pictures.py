"""Pictures of failures: some images that an attack misleads, kept beside the records of an evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from forefend.checks import InputError
from forefend.evaluation.model_run import Run, Target
from forefend.evaluation.moved_images import MovedImages
from forefend.evaluation.result_store import DigestedImages, ResultStore
from forefend.evaluation.trial import Trial
from forefend.models.defended import Defended
from forefend.runtime.distributed import process_group
from forefend.runtime.files import FORMAT, check_format, check_regular, write
from forefend.runtime.precision import full_float32
from forefend.runtime.rng import torch_seed

if TYPE_CHECKING:
    from forefend.evaluation.evaluate import Evaluation

PICTURES = "pictures.safetensors"
Pixels = NDArray[np.uint8]  # (B, C, H, W)


@dataclass(frozen=True)
class FailurePictures:
    """Images that one attack misleads.

    Args:
        model: the model, as tables call it.
        attack: the attack.
        threat: its threat model.
        index: dataset index of each image.
        labels: names of their classes.
        answered_clean: names of the classes that the model gives the clean images.
        answered: likewise of the attacked images.
        clean: the images in 8 bits, `(B, C, H, W)`.
        attacked: likewise, adversarial.
        processed: likewise, what the defense makes of the adversarial images; equal to them without a defense.
    """

    model: str
    attack: str
    threat: str
    index: Sequence[int]
    labels: Sequence[str]
    answered_clean: Sequence[str]
    answered: Sequence[str]
    clean: Pixels
    attacked: Pixels
    processed: Pixels

    @property
    def defended(self) -> bool:
        """Whether a defense processed the images."""
        return self.model.endswith(" defended")


def keep(evaluation: Evaluation, verdicts: Sequence[Sequence[Mapping[int, bool]]], count: int) -> bool:
    """Attack some images again that an attack misled, and write them beside the records.

    The attack gives the same images again, as its random numbers depend on the image alone. The model is the first that
    is defended, else the first; the attack the one of least radius that misled enough of its images.

    Args:
        evaluation: a finished evaluation with a folder.
        verdicts: for each model, the verdicts on clean images and under each trial.
        count: the largest number of images.

    Returns:
        Whether an attack misled any.
    """
    assert evaluation.folder is not None
    place = next((i for i, target in enumerate(evaluation.targets) if target.model.defended), 0)
    target, (clean, *attacked) = evaluation.targets[place], verdicts[place]
    misled = [[index for index, wrong in own.items() if wrong and not clean[index]] for own in attacked]
    ranks = [(-min(len(own), count), trial.threat.radius) for own, trial in zip(misled, target.trials, strict=True)]
    best = min(range(len(ranks)), key=ranks.__getitem__, default=None)
    if best is None or not misled[best]:
        return False
    found = _again(evaluation, target, target.trials[best], sorted(misled[best])[:count])
    if found:
        write(evaluation.folder / PICTURES, _bytes(found))
    return bool(found)


def _again(evaluation: Evaluation, target: Target, trial: Trial, index: Sequence[int]) -> FailurePictures | None:
    images, kept = DigestedImages(evaluation.images), dict[int, Tensor]()
    store = ResultStore(None, "records", (), process_group())
    run = Run(target, store, images, evaluation.seed, evaluation.batch_size)
    job = run.job(trial, MovedImages(target.model.network, images))

    def misclassified(x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        wrong = job.misclassified(x, y, rows)
        lost = zip(rows.tolist(), x.clone(), wrong.tolist(), strict=True)
        kept.update((number, image) for number, image, is_wrong in lost if is_wrong)
        return wrong

    with full_float32(), torch_seed(evaluation.seed):
        for _ in trial.run(replace(job, misclassified=misclassified), images.rows(index)):
            pass
    shown = [number for number in index if number in kept]
    return _pictures(target, trial, images, shown, kept) if shown else None


def _pictures(
    target: Target, trial: Trial, images: Any, shown: Sequence[int], kept: Mapping[int, Tensor]
) -> FailurePictures:
    network, classes = target.model.network, images.images.classes
    x_adv = torch.stack([kept[number] for number in shown])
    x, y, _ = images.fetch(images.rows(shown), x_adv.device)
    with torch.no_grad(), torch_seed(0):
        processed = network.defense(x_adv) if isinstance(network, Defended) else x_adv
        before, after = network(x).argmax(1).tolist(), network(x_adv).argmax(1).tolist()
    names = [[str(classes[number]) for number in row] for row in (y.tolist(), before, after)]
    pixels = [_bits(part) for part in (x, x_adv, processed if processed.shape == x.shape else x_adv)]
    about = (target.model.title, trial.name, str(trial.threat), list(shown))
    return FailurePictures(*about, names[0], names[1], names[2], pixels[0], pixels[1], pixels[2])


def _bits(x: Tensor) -> Pixels:
    return (x.detach().clamp(0, 1) * 255).round().byte().cpu().numpy()


def _bytes(found: FailurePictures) -> bytes:
    tensors = {name: torch.from_numpy(getattr(found, name)) for name in ("clean", "attacked", "processed")}
    told = {"format": FORMAT} | {name: value for name, value in vars(found).items() if name not in tensors}
    return save_tensors(tensors, metadata={"about": json.dumps(told)})  # one entry: several have no fixed order


def load(folder: Path) -> FailurePictures:
    """Read the pictures in the folder of an evaluation.

    Raises:
        InputError: there are none, or the file is damaged.
    """
    path = folder / PICTURES
    try:
        check_regular(path)
        with safe_open(path, framework="np") as held:
            told = json.loads((held.metadata() or {})["about"])
            check_format(told.pop("format"), path)
            pixels = {name: held.get_tensor(name) for name in ("clean", "attacked", "processed")}
        found = FailurePictures(**told, **pixels)
        sizes = {len(getattr(found, name)) for name in ("index", "labels", "answered_clean", "answered", *pixels)}
        if len(sizes) != 1 or len({part.shape for part in pixels.values()}) != 1 or pixels["clean"].ndim != 4:
            raise ValueError
        return found
    except FileNotFoundError:
        raise InputError(f"There is no {path}: evaluate with --pictures.") from None
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged: evaluate again with --pictures.") from None
