"""Certify: an l2 radius proved by randomized smoothing, for any network from images to logits.

Only this proves, and only for the *smoothed* classifier (the class that the network gives most often to noisy copies of
the image), in l2, with probability at least 1 - alpha for each image. It says nothing of the network itself, nor of any
other norm. As everywhere, pseudo-random float32 numbers stand for Gaussian noise, and arithmetic is taken to be exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn

from forefend.checks import check_numbers
from forefend.data import ImageDataset
from forefend.data.dataset import image_digests
from forefend.evaluation.certification import certificate
from forefend.evaluation.certification.certificate import Certificate, SmoothingConfig
from forefend.evaluation.model_checks import check_model
from forefend.models.fingerprint import architecture_digest, fingerprint, state_digest
from forefend.models.freezing import channels_last_copy, device_of
from forefend.runtime import files
from forefend.runtime.precision import full_float32
from forefend.runtime.progress import Progress
from forefend.runtime.rng import KeyedRNG, torch_seed


@final
class SmoothedClassifier:
    """The smoothed classifier: asked for an image's class, it counts what the network says of noisy copies.

    The noise of each copy depends on the seed, the purpose, the image's index and the copy's number alone, so neither
    the batch size nor what was asked before changes a vote. The network is held as a frozen view in eval mode.

    Args:
        network: images in [0, 1] to logits: a bare classifier, a `Defended`, or any pipeline.
        smoothing: the noise, the samples and alpha.
        batch_size: noisy copies handed to the network at once.

    Raises:
        InputError: the batch size is below 1.
    """

    def __init__(self, network: nn.Module, smoothing: SmoothingConfig, batch_size: int = 250) -> None:
        check_numbers({"batch_size": batch_size})
        self.network = channels_last_copy(network)
        self.smoothing = smoothing
        self.batch_size = batch_size

    def votes(self, x: Tensor, index: int, count: int, purpose: str) -> list[int]:
        """How often each of the K classes is given to noisy copies of one image.

        Args:
            x: the image, `(C, H, W)`; noisy copies of it are not clipped.
            index: its dataset index.
            count: how many copies.
            purpose: what the votes are for: another word is another, independent stream of noise.
        """
        source = KeyedRNG(torch.empty(0), self.smoothing.seed, f"smooth|{purpose}|{index}")
        found = torch.zeros((), dtype=torch.int64)
        with torch.no_grad():
            for numbers in torch.arange(count).split(self.batch_size):
                copies = x.expand(len(numbers), *x.shape)
                noise = KeyedRNG(numbers, source.seed, source.purpose).normal(copies)
                logits = self.network(copies + self.smoothing.sigma * noise)
                found = found + logits.argmax(1).bincount(minlength=logits.shape[1]).cpu()
        return found.tolist()

    def predict(self, x: Tensor, index: int) -> int | None:
        """The smoothed classifier's class for one image, wrong with probability at most alpha; None is to abstain.

        Source: Cohen et al., arXiv 1902.02918, PREDICT.

        Args:
            x: the image, `(C, H, W)`.
            index: its dataset index.
        """
        return self.smoothing.winner(self.votes(x, index, self.smoothing.samples, "predict"))

    def certify(self, x: Tensor, index: int) -> tuple[int, list[int], float | None]:
        """What CERTIFY finds for one image: the class guessed, the votes of each class, and the radius they prove.

        With probability at least 1 - alpha the smoothed classifier gives the guessed class to every image nearer than
        the radius in l2, in [0, 1]-pixel units. A radius of None is to abstain: nothing is proved.
        Source: Cohen et al., arXiv 1902.02918, CERTIFY.

        Args:
            x: the image, `(C, H, W)`.
            index: its dataset index.
        """
        first = self.votes(x, index, self.smoothing.first, "guess")
        guess = first.index(max(first))
        votes = self.votes(x, index, self.smoothing.samples, "estimate")
        return guess, votes, self.smoothing.radius(votes[guess])


def certify(
    network: nn.Module,
    images: ImageDataset,
    smoothing: SmoothingConfig,
    *,
    folder: str | Path | None = None,
    name: str = "classifier",
    batch_size: int = 250,
) -> list[Certificate]:
    """Certify each image; count them with `radii.certified`, print them with `radii.text`.

    With a folder, certificates are appended to `certificates.jsonl` as they are found, an interrupted certification
    goes on where it stopped, and no image is certified or counted twice.

    Args:
        network: images in [0, 1] to logits; it is not touched.
        images: test images.
        smoothing: the noise, the samples and alpha.
        folder: where the certificates go; None keeps nothing.
        name: what tables call the network.
        batch_size: noisy copies handed to the network at once.

    Raises:
        InputError: images, labels or what the network returns cannot be used.
        RuntimeError: the network changed meanwhile.
    """
    before = state_digest(network)
    smoothed = SmoothedClassifier(network, smoothing, batch_size)
    path = Path(folder) / "certificates.jsonl" if folder else None
    with full_float32(), torch_seed(0):  # the caller's own stay as they are
        check_model(smoothed.network, images, name)
        clerk = _Clerk(smoothed, images, name, path)
        known = clerk.known()
        if path:
            files.make_folder(path.parent)
        found = clerk.certify(known)
    if before != state_digest(network):
        raise RuntimeError(f"{name} changed while it was certified: its certificates must not be trusted.")
    return found


@final
@dataclass(frozen=True)
class _Clerk:
    """One network's certification: reads what is on record, certifies the rest and records it."""

    smoothed: SmoothedClassifier
    images: ImageDataset
    name: str
    path: Path | None

    def known(self) -> dict[int, Certificate]:
        """The certificates on record for this network and smoothing, by index."""
        key = (self._subject(), str(self.smoothed.smoothing))
        done = certificate.read(self.path) if self.path else []
        return {c.index: c for c in done if (c.model, c.smoothing) == key}

    def certify(self, known: dict[int, Certificate]) -> list[Certificate]:
        model, found, new = self._subject(), [], 0
        with Progress(f"{self.name}: certify", len(self.images), unit="images") as progress:
            for row in range(len(self.images)):
                batch = self.images.batch(torch.tensor([row]))
                x, y, index = (t[0] for t in batch)
                (image,) = image_digests(batch[0], batch[1])
                certificate = known.get(int(index))
                if certificate is None or certificate.image != image:
                    certificate = self._certificate((model, image), x, int(y), int(index))
                    new += 1
                    if self.path:
                        files.append(self.path, certificate)
                found.append(certificate)
                progress.advance()
        if new:
            progress.print(f"{self.name}: {new} images certified, {progress.elapsed:.0f} s")
        return found

    def _certificate(self, of: tuple[str, str], x: Tensor, y: int, index: int) -> Certificate:
        guess, votes, radius = self.smoothed.certify(x.to(device_of(self.smoothed.network)), index)
        return Certificate(
            name=self.name,
            model=of[0],
            smoothing=str(self.smoothed.smoothing),
            index=index,
            image=of[1],
            label=y,
            guess=guess,
            votes=votes,
            certified=None if radius is None else guess,
            radius=radius or 0.0,
            predicted=self.smoothed.smoothing.winner(votes),
        )

    def _subject(self) -> str:
        """What votes depend on beside noise and image: the data, the weights, and the modules that hold them."""
        network = self.smoothed.network
        return f"{self.images.name}/{self.images.split}:{fingerprint(network)}:{architecture_digest(network)}"
