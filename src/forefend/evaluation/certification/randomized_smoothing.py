"""Certify an l2 radius by randomized smoothing, for any network from images to logits.

The proof is for the smoothed classifier (the class that the network gives most often to noisy
copies of the image), in l2, with probability at least 1 - alpha for each image. It certifies nothing
about the network itself or other norms. As usual, pseudo-random float32 numbers stand for Gaussian
noise, and arithmetic is taken to be exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from forefend.checks import check_numbers, predictions
from forefend.evaluation.certification import certificate
from forefend.evaluation.certification.certificate import Certificate, Certificates
from forefend.evaluation.certification.smoothing_config import SmoothingConfig
from forefend.evaluation.evaluated_model import EvaluatedModel, as_models
from forefend.evaluation.given_images import images_for
from forefend.evaluation.identification import KnownModels, examine
from forefend.evaluation.model_checks import unchanged
from forefend.evaluation.output_stability import StableOutputs
from forefend.evaluation.result_store import DigestedImages, key_of, open_store
from forefend.models.freezing import channels_last_copy, device_of, gradients_enabled
from forefend.runtime.batch_size import AdaptiveBatchSize
from forefend.runtime.precision import full_float32
from forefend.runtime.rng import KeyedRNG, torch_seed


@final
class SmoothedClassifier:
    """A network smoothed with Gaussian noise.

    The noise of a copy depends only on the seed, the purpose, the image's index and the copy's
    number. Votes therefore do not depend on the batch size or on earlier calls. The network is
    copied, frozen and in eval mode.

    Args:
        network: images in [0, 1] to logits: a bare classifier, a `Defended`, or any pipeline.
        smoothing: noise, samples and alpha.
        batch_size: noisy copies in a batch, halved when memory runs out.

    Raises:
        InputError: the batch size is below 1.
    """

    def __init__(self, network: nn.Module, smoothing: SmoothingConfig, batch_size: int = 250) -> None:
        check_numbers({"batch_size": batch_size})
        self.network = channels_last_copy(network)
        self.smoothing = smoothing
        self.batch_size = AdaptiveBatchSize(batch_size)

    def votes(self, x: Tensor, index: int, count: int, purpose: str) -> list[int]:
        """Return how many noisy copies of one image each of the K classes is given to.

        Args:
            x: the image, `(C, H, W)`; its noisy copies are not clipped.
            index: its dataset index.
            count: the number of copies.
            purpose: the purpose of the votes; another one has independent noise.
        """

        def classify(numbers: Tensor) -> Tensor:
            copies = x.expand(len(numbers), *x.shape)
            rng = KeyedRNG(numbers, self.smoothing.seed, f"smooth|{purpose}|{index}")
            logits = self.network(copies + self.smoothing.sigma * rng.normal(copies))
            classes = predictions(logits, torch.full((len(numbers),), index))
            return classes.bincount(minlength=logits.shape[1]).cpu()

        with torch.no_grad():
            counts = list(self.batch_size.map(torch.arange(count), classify))
        return torch.stack(counts).sum(0).tolist()

    def predict(self, x: Tensor, index: int) -> int | None:
        """Return the class of one image, wrong with probability at most alpha; None to abstain.

        Source: Cohen et al., arXiv 1902.02918, PREDICT.

        Args:
            x: the image, `(C, H, W)`.
            index: its dataset index.
        """
        return self.smoothing.winner(self.votes(x, index, self.smoothing.n, "predict"))

    def certify(self, x: Tensor, index: int) -> tuple[int, list[int], float | None]:
        """Return the class selected for one image, the votes, and the l2 radius they prove.

        With probability at least 1 - alpha, the smoothed classifier gives that class to every image
        within the radius, in [0, 1]-pixel units. A radius of None is to abstain. Source: Cohen et
        al., arXiv 1902.02918, CERTIFY.

        Args:
            x: the image, `(C, H, W)`.
            index: its dataset index.
        """
        first = self.votes(x, index, self.smoothing.n0, "guess")
        guess = first.index(max(first))
        votes = self.votes(x, index, self.smoothing.n, "estimate")
        return guess, votes, self.smoothing.radius(votes[guess])


@gradients_enabled()
def certify(
    models: nn.Module | EvaluatedModel | Sequence[EvaluatedModel],
    data: Any,
    *,
    sigma: float = 0.25,
    n: int = 1000,
    n0: int = 100,
    alpha: float = 0.001,
    seed: int = 0,
    folder: str | Path | None = None,
    batch_size: int = 250,
) -> Certificates:
    """Certify an l2 radius of each image by randomized smoothing.

    Certificates in `folder` are appended to `certificates.jsonl`; an interrupted run resumes.

    Args:
        models: a network from images in [0, 1] to logits, or models with names.
        data: test images: a pair (x, y), a torch Dataset or DataLoader, a Hugging Face Dataset, or
            what `forefend.data.load` returns.
        sigma: standard deviation of the noise, in [0, 1]-pixel units.
        n: noisy copies of an image that prove its radius.
        n0: noisy copies that select the class beforehand.
        alpha: probability with which a certificate may be wrong.
        seed: the seed of the noise.
        folder: where the certificates go; None keeps nothing.
        batch_size: noisy copies in a batch.

    Returns:
        A list of `Certificate`, by model and image; `print` shows the certified accuracy.

    Raises:
        InputError: images, labels, models or numbers cannot be used.
        RuntimeError: a network changed meanwhile.
    """
    config = SmoothingConfig(sigma, n, n0, alpha, seed)
    models = as_models(models)
    images = DigestedImages(images_for(models, data))
    found = Certificates([], config)
    with (
        unchanged(models),
        full_float32(),
        torch_seed(0),
        open_store(Path(folder) if folder else None, "certificates", certificate.read) as store,
    ):
        smoothed = [SmoothedClassifier(model.network, config, batch_size) for model in models]
        known = KnownModels([store.folder])
        examined = [
            examine(each.network, images.images, model.name) for model, each in zip(models, smoothed, strict=True)
        ]
        keys = [
            key_of(known.identify(each, model.name), images.images)
            for model, each in zip(models, examined, strict=True)
        ]
        known.save(store.folder)
        for model, each, one, key in zip(models, smoothed, examined, keys, strict=True):
            outputs = StableOutputs(each.network, one.x, model.name)
            found += store.complete(
                f"{model.title}: certify",
                images,
                images.images.index.tolist(),
                _recorded(store.lines, key, config, images),
                partial(_certify, model.title, each, key, images),
                partial(_lines, outputs),
                batch_size=1,
                summary=lambda found: f"{len(found)} images certified",
            ).values()
    return found


def _lines(outputs: StableOutputs, found: dict[int, Certificate]) -> list[Certificate]:
    outputs.check()
    return list(found.values())


def _recorded(
    lines: Sequence[Certificate], key: str, config: SmoothingConfig, images: DigestedImages
) -> dict[int, Certificate]:
    own = [line for line in lines if (line.model, line.smoothing) == (key, str(config))]
    return {line.index: line for line in own if images.holds(line.index, line.image)}


def _certify(
    name: str, smoothed: SmoothedClassifier, key: str, images: DigestedImages, rows: Tensor
) -> Iterator[dict[int, Certificate]]:
    for row in rows:
        x, y, numbers = images.fetch(row[None], device_of(smoothed.network))
        index = int(numbers)
        guess, votes, radius = smoothed.certify(x[0], index)
        yield {
            index: Certificate(
                name=name,
                model=key,
                smoothing=str(smoothed.smoothing),
                index=index,
                image=images.digest(index),
                label=int(y),
                guess=guess,
                votes=votes,
                certified=None if radius is None else guess,
                radius=radius or 0.0,
                predicted=smoothed.smoothing.winner(votes),
            )
        }
