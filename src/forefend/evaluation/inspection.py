"""What forefend understands of a classifier, before anything is trained or attacked."""

from __future__ import annotations

import re
import time
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.data import ImageDataset
from forefend.evaluation.clean_accuracy import clean_predictions
from forefend.evaluation.model_checks import check_model, depends_on_batch, gradient_of, is_random
from forefend.evaluation.statistics import wilson
from forefend.models.classifiers.black_box import black_box_in
from forefend.models.classifiers.feature_layers import feature_layers_of
from forefend.models.classifiers.model_card import NamedClassifier
from forefend.models.classifiers.normalized import Normalized
from forefend.models.classifiers.resized import Resized
from forefend.models.classifiers.sources.adapted import Adapted
from forefend.models.fingerprint import fingerprint
from forefend.models.freezing import check_module, device_of, frozen
from forefend.models.given_images import images_for_network, kept_state
from forefend.models.output_checks import check_logits, output_of
from forefend.runtime.formatting import percent

FORMAT = 1
BATCHES = (1, 32)  # of which the latency is measured
REPEATS, SECONDS = 7, 2.0  # of one measurement, at most


@dataclass(frozen=True)
class Inspection:
    """What is known of a classifier; `print` shows it.

    Args:
        name: of the classifier.
        shape: of the images, (channels, height, width); pixels are in [0, 1].
        preprocessing: what is done to an image inside the network, a sentence each.
        classes: number of logits.
        taps: dotted names of the feature layers that recipes may read, by role; empty where there are none.
        clean: accuracy on clean images, and the bounds of its 95% Wilson interval, in [0, 1]; None without images.
        images: how many they were.
        gradient: whether gradients reach the images, and are not zero everywhere.
        deterministic: whether equal calls give equal logits.
        batch_independent: whether the logits of an image are the same beside other images.
        black_box: what receives the queries, where only outputs are known; empty for networks.
        dtype: of the parameters.
        parameters: how many numbers they hold.
        fingerprint: digest of the tensors.
        latency: milliseconds for one image, by size of the batch.
        device: where it was measured.
        notes: what to do before using it, a sentence each.
    """

    name: str
    shape: tuple[int, int, int]
    preprocessing: tuple[str, ...]
    classes: int
    taps: dict[str, Any]
    clean: tuple[float, float, float] | None
    images: int
    gradient: bool
    deterministic: bool
    batch_independent: bool
    black_box: str
    dtype: str
    parameters: int
    fingerprint: str
    latency: dict[str, float]
    device: str
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """JSON values, with the number of their format."""
        return {"format": FORMAT, **asdict(self)}

    def __str__(self) -> str:
        size = " × ".join(map(str, self.shape))
        latency = ", ".join(f"{ms:.3g} ms an image in batches of {batch}" for batch, ms in self.latency.items())
        taps = "; ".join(f"{role} {_listed(names)}" for role, names in self.taps.items())
        rows = [
            ("input", f"{size} pixels in [0, 1]"),
            ("inside", "; ".join(self.preprocessing)),
            ("classes", str(self.classes)),
            ("feature layers", taps or "none"),
            ("clean accuracy", f"{percent(*self.clean)} % of {self.images} images" if self.clean else "not measured"),
            ("gradient", "reaches the images" if self.gradient else "none"),
            ("deterministic", "yes" if self.deterministic else "no"),
            ("batch", "no effect on an image" if self.batch_independent else "changes the logits of an image"),
            ("parameters", f"{self.parameters:,} ({self.dtype}), fingerprint {self.fingerprint}"),
            ("latency", f"{latency} on {self.device}"),
        ]
        lines = [f"  {what:16}{text}" for what, text in rows]
        return "\n".join([self.name, *lines, *(f"note: {note}" for note in self.notes)])


def inspect(
    classifier: nn.Module | NamedClassifier,
    images: Any = None,
    *,
    shape: tuple[int, int, int] | None = None,
    name: str | None = None,
) -> Inspection:
    """Find out what a classifier takes and gives; nothing is trained or attacked, and it is left unchanged.

    Args:
        classifier: images `(B, C, H, W)` in [0, 1] to logits `(B, K)`, or what `classifiers.load` returned.
        images: labeled images, of any form that `evaluate` takes, for the clean accuracy.
        shape: (channels, height, width) of its images, where none are given and it does not say so itself.
        name: its name in the output.

    Raises:
        InputError: the shape is unknown, the classifier returns no logits for such images, or it changes its own
            tensors when it is called.

    Example:
        >>> import forefend as ff
        >>> network = ff.classifiers.build("mlp", channels=1, classes=3, size=8)
        >>> ff.inspect(network, shape=(1, 8, 8)).classes
        3
    """
    if isinstance(classifier, NamedClassifier):
        name, classifier = name or classifier.name, classifier.network
    check_module(classifier, "a classifier")
    name = name or type(classifier).__name__
    test_set = None if images is None else images_for_network(classifier, images, name)
    network = frozen(classifier)
    with kept_state(network, name):
        x = _examples(network, test_set, shape, name)
        return _inspection(network, x, test_set, name)


def _examples(network: nn.Module, images: ImageDataset | None, shape: tuple[int, ...] | None, name: str) -> Tensor:
    """Return eight images, of the data or random."""
    if images is not None:
        check_model(network, images, name)
        return images.batch(torch.arange(min(8, len(images))))[0].to(device_of(network))
    shape = shape or own_shape(network)
    if shape is None:
        raise InputError(f"{name} does not say for which images it is: give some, or their channels and size.")
    x = torch.rand(8, *shape, generator=torch.Generator().manual_seed(0)).to(device_of(network))
    with torch.no_grad():
        logits = output_of(network, x, name)
    check_logits(logits, len(x), logits.shape[-1] if isinstance(logits, Tensor) else 0)
    return x


def own_shape(network: nn.Module) -> tuple[int, int, int] | None:
    """Return channels, height and width of the images that an architecture names; None if it does not."""
    for module in network.modules():
        if isinstance(module, Adapted) and module.shape is not None:
            return module.shape
        settings = getattr(module, "settings", None)
        if isinstance(settings, dict) and {"channels", "size"} <= settings.keys():
            return settings["channels"], settings["size"], settings["size"]
    return None


def _inspection(network: nn.Module, x: Tensor, images: ImageDataset | None, name: str) -> Inspection:
    with torch.no_grad():
        classes = network(x).shape[1]
    clean, wrong = _clean(network, images, name)
    gradient = gradient_of(lambda x: network(x)[:, 0], x)  # that of all logits together may cancel
    box = black_box_in(network)
    taps, no_taps = _taps(network)
    found = Inspection(
        name=name,
        shape=(x.shape[1], x.shape[2], x.shape[3]),
        preprocessing=_preprocessing(network),
        classes=classes,
        taps=taps,
        clean=clean,
        images=0 if images is None else len(images),
        gradient=gradient is not None and bool(gradient.any()),
        deterministic=not is_random(network, x),
        batch_independent=not depends_on_batch(network, x),
        black_box=box.name if box else "",
        dtype=", ".join(sorted({str(p.dtype).removeprefix("torch.") for p in network.parameters()})) or "none",
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        fingerprint=fingerprint(network),
        latency={str(size): milliseconds(network, x, size) for size in BATCHES},
        device=str(x.device),
        notes=(),
    )
    return Inspection(**{**vars(found), "notes": (*wrong, *_notes(found, network), *no_taps)})


def _clean(
    network: nn.Module, images: ImageDataset | None, name: str
) -> tuple[tuple[float, float, float] | None, list[str]]:
    """Return the clean accuracy with its interval, and what in the predictions shows a fault."""
    if images is None:
        return None, []
    predicted = clean_predictions(network, images)
    right = sum(not wrong for wrong in predicted.misclassified().values())
    return (right / len(images), *wilson(right, len(images))), predicted.faults(name)


def _preprocessing(network: nn.Module) -> tuple[str, ...]:
    steps = []
    for module in network.modules():
        if isinstance(module, Resized):
            if module.resize is not None:
                side = "the shorter side to " if isinstance(module.resize, int) else ""
                steps.append(f"resizes {side}{_size(module.resize)} ({module.interpolation})")
            if module.crop is not None:
                steps.append(f"cuts the center {_size(module.crop)}")
        if isinstance(module, Normalized):
            mean, std = (_numbers(tensor) for tensor in (module.mean, module.std))
            steps.append("no normalization" if module.is_identity else f"subtracts the mean {mean}, divides by {std}")
    return tuple(steps) or ("not known: the network is used as it is",)


def _notes(found: Inspection, network: nn.Module) -> list[str]:
    notes = []
    if found.black_box:
        notes.append("Only its answers are known: judge it with the suite black-box, and train with other guides.")
    elif not found.gradient:
        notes.append(
            "No gradient reaches the images: use the suite black-box, or attacks through forefend.attacks.bpda; it "
            "cannot be a guide."
        )
    if not found.deterministic:
        notes.append("Its outputs are random: use the suite randomized.")
    if not found.batch_independent:
        notes.append("Its logits depend on the batch, which evaluations refuse: give BatchNorm running statistics.")
    resized = next((module for module in network.modules() if isinstance(module, Resized)), None)
    side = resized.resize if resized else None
    if isinstance(side, int) and side != min(found.shape[1:]):
        notes.append(
            f"Images of {_size(found.shape[1:])} are resized inside: read pictures at size {side} to avoid it."
        )
    return notes


def _taps(network: nn.Module) -> tuple[dict[str, Any], list[str]]:
    """Return the feature layers by role, and why there are none."""
    if black_box_in(network):
        return {}, []
    try:
        layers = feature_layers_of(network)
    except InputError as reason:
        return {}, [f"Recipes that read features cannot use it as a guide. {reason}"]
    return {role: _bare(names) for role, names in asdict(layers).items()}, []


def _bare(names: Any) -> Any:
    """Return names of modules without the wrappers, which recipes accept."""
    return re.sub(r"^(network\.)+", "", names) if isinstance(names, str) else tuple(map(_bare, names))


def milliseconds(network: nn.Module, x: Tensor, size: int) -> float:
    """Return the median time of one image in milliseconds, in batches of a size."""
    batch = x.repeat(size // len(x) + 1, 1, 1, 1)[:size]
    times: list[float] = []
    with torch.no_grad():
        network(batch)  # not measured
        while len(times) < REPEATS and sum(times) < SECONDS:
            _wait(x)
            start = time.perf_counter()
            network(batch)
            _wait(x)
            times.append(time.perf_counter() - start)
    return round(1000 * median(times) / size, 4)


def _wait(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)


def _numbers(tensor: Tensor) -> str:
    return " ".join(f"{number:.4g}" for number in dict.fromkeys(tensor.flatten().tolist()))


def _size(size: Any) -> str:
    return " × ".join(map(str, size)) if isinstance(size, tuple | torch.Size) else f"{size}"


def _listed(names: Any) -> str:
    return ", ".join(names) if isinstance(names, tuple | list) else str(names)
