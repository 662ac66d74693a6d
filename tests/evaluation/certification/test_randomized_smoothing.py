"""Certify: a linear classifier's exact radius, noise by image and copy, records that resume, untouched networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.toy_networks import SIZE, classifier, held, preprocessor, toy_images, untouched
from scipy import stats
from torch import Tensor, nn

from forefend import data
from forefend.checks import InputError
from forefend.data import ImageDataset
from forefend.evaluation.certification import certificate
from forefend.evaluation.certification.certificate import Certificate, Certificates
from forefend.evaluation.certification.randomized_smoothing import SmoothedClassifier
from forefend.evaluation.certification.randomized_smoothing import certify as certify_images
from forefend.evaluation.certification.smoothing_config import SmoothingConfig
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.statistics import two_sided
from forefend.models.classifiers.pretrained import load_weights
from forefend.models.defended import Defended

QUICK = SmoothingConfig(0.25, n=60, n0=20, alpha=0.01)


def certify(models: Any, data: Any, smoothing: SmoothingConfig, **options: Any) -> Certificates:
    return certify_images(models, data, **asdict(smoothing), **options)


class Halfspace(nn.Module):
    """Class 1 above the plane w.x = 0.5 w.1, class 0 below it, with w = (1, 2, 3, …) / |w|."""

    def __init__(self) -> None:
        super().__init__()
        w = torch.arange(1.0, 17.0)
        self.register_buffer("w", w / w.norm())

    def forward(self, x: Tensor) -> Tensor:
        height = (x.flatten(1) - 0.5) @ self.w
        return torch.stack([torch.zeros_like(height), height], 1)


def at_distances(distances: list[float]) -> ImageDataset:
    """Images whose signed l2 distance from the plane is given; the label is their side."""
    far = torch.tensor(distances)
    x = 0.5 + far[:, None] * Halfspace().w
    return data.from_tensors("plane", x.view(-1, 1, 4, 4), (far > 0).long(), classes=("below", "above"))


class Listening(nn.Module):
    """Hears what it is asked; a frozen view of it writes to the same list."""

    heard: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        Listening.heard = []

    def forward(self, x: Tensor) -> Tensor:
        Listening.heard.append(x.clone())
        return x.flatten(1)[:, :2]


def heard(image: Tensor, index: int, count: int, purpose: str = "guess", batch_size: int = 50) -> Tensor:
    smoothed = SmoothedClassifier(Listening(), QUICK, batch_size)
    smoothed.votes(image, index, count, purpose)
    return torch.cat(Listening.heard)


def test_certify_linear_classifier_is_near_exact_radius() -> None:
    """The smoothed halfspace's radius is exactly the distance from the plane, whatever sigma is."""
    distances = [sign * d for d in (0.1, 0.2, 0.3, 0.4, 0.5) for sign in (1, -1)]
    for sigma in (0.25, 0.5):
        smoothing = SmoothingConfig(sigma, n=4000, n0=50, alpha=0.001)
        for exact, found in zip(distances, certify(Halfspace(), at_distances(distances), smoothing), strict=True):
            true = stats.norm.cdf(abs(exact) / sigma)
            share = found.votes[found.label] / 4000
            assert sum(found.votes) == 4000
            assert abs(share - true) < 4 * math.sqrt(true * (1 - true) / 4000)
            assert 0 < found.proven <= abs(exact)
            # the bound gives away 3.1 standard errors of the share, and the share itself strays by up to 4
            lost = 8 * math.sqrt(true * (1 - true) / 4000) + 8 / 4000
            assert found.proven >= sigma * stats.norm.ppf(true - lost)
            assert found.radius == pytest.approx(
                sigma * stats.norm.ppf(stats.beta.ppf(0.001, max(found.votes), 4001 - max(found.votes)))
            )


def test_certify_on_the_boundary_abstains_at_rate_alpha() -> None:
    """At p = 1/2 a certificate is always wrong: it is given with probability at most alpha."""
    count, alpha, n = 500, 0.2, 101
    smoothing = SmoothingConfig(0.25, n=n, n0=5, alpha=alpha)
    found = certify(Halfspace(), at_distances([0.0] * count), smoothing)
    least = next(votes for votes in range(n + 1) if smoothing.radius(votes) is not None)
    for expected, seen in (
        (stats.binom.sf(least - 1, n, 0.5), count - certificate.abstained(found)),
        (2 * sum(stats.binom.pmf(k, n, 0.5) for k in range(51, n + 1) if two_sided(k, n - k) <= alpha),
         sum(c.predicted is not None for c in found)),
    ):  # fmt: skip
        assert 0.1 < expected <= alpha
        assert abs(seen - count * expected) < 3 * math.sqrt(count * expected * (1 - expected))


def test_votes_of_guess_and_estimate_have_independent_noise() -> None:
    image = torch.full((1, 16, 16), 0.5)
    guess, estimate = heard(image, 3, 20), heard(image, 3, 20, "estimate")
    assert torch.corrcoef(torch.stack([guess.flatten(), estimate.flatten()]))[0, 1].abs() < 0.05
    other = heard(image, 4, 20)
    assert torch.corrcoef(torch.stack([guess.flatten(), other.flatten()]))[0, 1].abs() < 0.05
    copies = torch.corrcoef(guess.flatten(1)) - torch.eye(20)
    assert copies.abs().max() < 0.3


def test_certify_does_not_reuse_the_first_votes() -> None:
    smoothed = SmoothedClassifier(Halfspace(), QUICK)
    x = at_distances([0.05]).batch(torch.tensor([0]))[0][0]
    guess, votes, _ = smoothed.certify(x, 7)
    assert votes == smoothed.votes(x, 7, 60, "estimate") != smoothed.votes(x, 7, 60, "guess")
    first = smoothed.votes(x, 7, 20, "guess")
    assert guess == first.index(max(first))
    assert smoothed.predict(x, 7) == QUICK.winner(smoothed.votes(x, 7, 60, "predict"))


def test_votes_noise_is_gaussian_and_not_clipped() -> None:
    image = torch.linspace(0, 1, 256).view(1, 16, 16)
    noise = (heard(image, 3, 400) - image) / 0.25
    assert stats.kstest(noise.flatten().numpy(), "norm").pvalue > 0.01
    assert float(noise[:, 0, 0, 0].min()) < -2  # black pixels go below 0, white ones above 1
    assert float(noise[:, 0, -1, -1].max()) > 2


def test_votes_do_not_depend_on_batch_size() -> None:
    image = torch.rand(1, 4, 4)
    alone = heard(image, 5, 60, batch_size=60)
    assert torch.equal(alone, heard(image, 5, 60, batch_size=7))
    assert torch.equal(alone[:25], heard(image, 5, 25))


def without_keys(certificates: Sequence[Certificate]) -> list[Certificate]:
    """Keys depend on the images that a folder's first evaluation probed."""
    return [replace(certificate, model="") for certificate in certificates]


def test_certify_does_not_depend_on_batch_or_other_images() -> None:
    images, network = toy_images(12, split="test"), classifier()
    whole = certify(network, images, QUICK)
    assert len({tuple(c.votes) for c in whole}) > 3
    assert certify(network, images, QUICK, batch_size=13) == whole
    some = torch.tensor([9, 2, 4])
    assert without_keys(certify(network, images.subset(some), QUICK)) == without_keys([whole[row] for row in some])


def test_certify_interrupted_resumes_each_image_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, network, asked = toy_images(10, split="test"), classifier(), []
    certify_one = SmoothedClassifier.certify

    def dying(self: SmoothedClassifier, x: Tensor, index: int) -> Any:
        asked.append(index)
        if len(asked) == 5:
            raise KeyboardInterrupt
        return certify_one(self, x, index)

    monkeypatch.setattr(SmoothedClassifier, "certify", dying)
    with pytest.raises(KeyboardInterrupt):
        certify(network, images, QUICK, folder=tmp_path)
    with (tmp_path / "certificates.jsonl").open("a") as file:
        file.write('{"name":"torn')
    found = certify(network, images, QUICK, folder=tmp_path)
    assert asked == [*range(5), *range(4, 10)]
    assert certify(network, images, QUICK, folder=tmp_path) == found
    assert len(asked) == 11
    assert certificate.read(tmp_path / "certificates.jsonl") == found == certify(network, images, QUICK)


def others() -> dict[str, tuple[nn.Module, ImageDataset, SmoothingConfig]]:
    """Certifications that differ from the first in one thing each."""
    network, images = classifier(), toy_images(4, split="test")
    brighter = data.from_tensors("toy", images.batch(torch.arange(4))[0] * 0.9, images.labels, classes=images.classes)
    relabeled = replace(images, labels=images.labels.flip(0))  # type: ignore[type-var]
    return {
        "weights": (classifier(1), images, QUICK),
        "form": (Defended(nn.Identity(), network), images, QUICK),
        "pixels": (network, brighter, QUICK),
        "labels": (network, relabeled, QUICK),
        "split": (network, toy_images(4, split="train"), QUICK),
        "sigma": (network, images, replace(QUICK, sigma=0.3)),
        "samples": (network, images, replace(QUICK, n=61)),
        "first": (network, images, replace(QUICK, n0=21)),
        "alpha": (network, images, replace(QUICK, alpha=0.02)),
        "seed": (network, images, replace(QUICK, seed=1)),
    }


@pytest.mark.parametrize("name", others())
def test_certify_never_reuses_another_certificate(tmp_path: Path, name: str) -> None:
    network, images, smoothing = others()[name]
    certify(classifier(), toy_images(4, split="test"), QUICK, folder=tmp_path)
    found = certify(network, images, smoothing, folder=tmp_path)
    assert without_keys(found) == without_keys(certify(network, images, smoothing))
    assert len(certificate.read(tmp_path / "certificates.jsonl")) == 8


def test_certify_distinguishes_preprocessors_without_weights(tmp_path: Path) -> None:
    images, network = toy_images(4, split="test"), classifier()
    plain = certify(Defended(nn.Hardtanh(-9, 9), network), images, QUICK, folder=tmp_path)
    darkened = certify(Defended(nn.Hardtanh(0, 0.5), network), images, QUICK, folder=tmp_path)
    assert {c.model for c in plain}.isdisjoint(c.model for c in darkened)
    assert len(certificate.read(tmp_path / "certificates.jsonl")) == 8


def test_certify_leaves_the_network_unchanged() -> None:
    network, front = classifier().train(), preprocessor()
    network[0].requires_grad_(False)
    pipeline = Defended(front, network)
    before = held(network), held(front), held(pipeline)
    certify(pipeline, toy_images(4, split="test"), QUICK)
    certify(network, toy_images(4, split="test"), QUICK)
    assert untouched(network, before[0])
    assert untouched(front, before[1])
    assert untouched(pipeline, before[2])


def test_certify_network_that_changes_raises() -> None:
    class Counting(Halfspace):
        def forward(self, x: Tensor) -> Tensor:
            self.w += 0.001
            return super().forward(x)

    with pytest.raises(InputError, match="changes its own buffers or weights"):
        certify(Counting(), at_distances([0.1]), QUICK)


def bad(network: Any = None, images: ImageDataset | None = None, **options: Any) -> Callable[[], object]:
    return lambda: certify(network or classifier(), images or toy_images(4), QUICK, **options)


REFUSED = {
    "batch_size is 0, expected at least 1": bad(batch_size=0),
    "returns shape (2, 3), expected (2, 4)": bad(nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, 3))),
    "do not fit net": bad(EvaluatedModel("net", nn.Conv2d(3, 1, 1))),
    "returns probabilities": bad(nn.Sequential(classifier(), nn.Softmax(1))),
    "the same image twice": bad(images=toy_images(4).subset(torch.tensor([0, 1, 1]))),
}


@pytest.mark.parametrize("words", REFUSED)
def test_certify_refuses_unusable_input(words: str) -> None:
    with pytest.raises(InputError) as error:
        REFUSED[words]()
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_certify_published_mnist_classifier(real_data: Path) -> None:
    weights = real_data / "classifiers" / "secml-mnist-smallcnn.pth"
    network = load_weights("smallcnn", weights, mean=[0.0], std=[1.0], channels=1, size=28)
    images = data.sample(data.load("mnist", "test", real_data), 20, seed=0)
    found: list[Certificate] = certify(network, images, SmoothingConfig(0.25, n=200, n0=20))
    assert certificate.predicted(found) == 20
    assert certificate.certified(found, 0.25) >= 19
    assert 0.43 < certificate.average_radius(found) < SmoothingConfig(0.25, n=200).largest_radius
