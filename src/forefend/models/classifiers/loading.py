"""Load a classifier of any source; nothing is trained."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

from torch import nn

from forefend.checks import InputError, unknown_name
from forefend.models.classifiers.architectures import ARCHITECTURES
from forefend.models.classifiers.black_box import BlackBox, http_classifier, onnx_classifier, process_classifier
from forefend.models.classifiers.model_card import NamedClassifier, load_card, read_card
from forefend.models.classifiers.normalized import Normalized
from forefend.models.classifiers.pretrained import load_weights
from forefend.models.classifiers.sources.exported_program import exported_classifier
from forefend.models.classifiers.sources.factory import factory_classifier
from forefend.models.classifiers.sources.hugging_face import hugging_face_classifier
from forefend.models.classifiers.sources.onnx_session import metadata_of
from forefend.models.classifiers.sources.preprocessing import Numbers, told_by
from forefend.models.classifiers.sources.timm_models import timm_classifier
from forefend.models.classifiers.sources.torchvision_models import torchvision_classifier
from forefend.models.classifiers.sources.wanted import Wanted

CARD = "classifier.json"  # in the folder of a run
FORMS = (
    "a run's folder, a JSON card, architecture:weights, timm:NAME, torchvision:NAME, hf:ID, a .pt2 or .onnx file, "
    "module:factory, process:COMMAND or http://127.0.0.1:PORT/"
)
WEIGHTS = (".pth", ".pt", ".th", ".tar", ".ckpt", ".bin", ".safetensors", ".pkl", ".pickle", ".npz", ".h5")
_SCHEMES = ("timm", "torchvision", "hf", "process", "http")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*|.*\.py")
_FUNCTION = re.compile(r"[A-Za-z_]\w*")


def load(
    spec: str | PathLike[str] | nn.Module | Callable[..., Any],
    *,
    channels: int | None = None,
    size: int | None = None,
    classes: int | None = None,
    mean: Numbers | None = None,
    std: Numbers | None = None,
    download: bool = False,
    outputs: str = "logits",
) -> NamedClassifier:
    """Load a classifier with its preprocessing inside, in eval mode; nothing is trained.

    Normalization, size, interpolation and crop are read from the source. What it does not name must be given.

    Args:
        spec: one of

            - a run's folder, a JSON card, or `architecture:weights` with an architecture of forefend;
            - `timm:NAME`, `torchvision:NAME` or `hf:ID` with published weights, `timm:NAME:FILE` and
              `torchvision:NAME:FILE` with weights on disk, `…@random` without, `hf:FOLDER`. A `timm` name with a tag
              and a `torchvision` name with `@WEIGHTS` have the preprocessing of these published weights; a file without
              them is taken to be made for images of the data's size;
            - a `.pt2` file of `torch.export`, or a `.onnx` file, which is a black box;
            - `package.module:factory` or `path/to/file.py:factory`, a function without arguments that returns a
              network, or a function of numpy images; `…:factory:FILE` reads the network's weights;
            - `process:COMMAND` and `http://127.0.0.1:PORT/…`, which are black boxes;
            - in Python a network, used as it is, or a function of numpy images, which is a black box.
        channels: channels of the images; None for what the classifier names, else the architecture's default.
        size: height and width of the images; None likewise.
        classes: expected number of logits; None for that of the weights.
        mean: normalization of a source that does not name its own, in [0, 1] units; 0 for none.
        std: likewise; 1 for none.
        download: fetch published weights that are not in the cache.
        outputs: what a black box returns: `logits`, `probabilities` or `labels`.

    Returns:
        The classifier; its `network` maps images `(B, C, H, W)` of the data's size in [0, 1] to logits `(B, K)`.

    Raises:
        InputError: the text names nothing, a package or file is missing or damaged, or the classifier is for other
            images.
    """
    wanted = Wanted(channels, size, classes, mean, std, download, outputs)
    if not isinstance(spec, str | PathLike):
        return _given(spec, wanted)
    text = str(spec)
    path, (kind, colon, rest) = Path(text), text.partition(":")
    if path.suffix == ".json":
        return _from_card(path, text, wanted)
    if path.is_dir():
        return _from_run(path, wanted)
    if kind in _SCHEMES or rest.startswith("//"):
        return _of_scheme(kind, rest, text, wanted)
    if path.suffix == ".pt2":
        return NamedClassifier(path.stem, text, exported_classifier(path, wanted), path.name, mean, std)
    if path.suffix == ".onnx":
        return NamedClassifier(path.stem, text, _onnx(path, wanted), path.name, mean, std)
    if kind in ARCHITECTURES and colon:
        shape = {"channels": channels, "size": size, "classes": classes}
        return NamedClassifier(
            Path(rest).stem, text, load_weights(kind, rest, mean=mean, std=std, **shape), kind, mean, std
        )
    name, _, weights = rest.partition(":")
    if _MODULE.fullmatch(kind) and _FUNCTION.fullmatch(name) and not Path(rest).exists():
        network = factory_classifier(kind, name, weights, wanted)
        return NamedClassifier(Path(weights).stem or name, text, network, text, mean, std)
    raise _unknown(text, kind if colon else text)


def needs_shape(spec: str) -> bool:
    """Whether `load` must be told for which images the classifier is."""
    path = Path(spec)
    if path.is_dir():
        return False
    if path.suffix == ".json":
        return not {"channels", "size"} <= read_card(path).keys()
    return ":" in spec or path.suffix in (".pt2", ".onnx")


def _given(spec: Any, wanted: Wanted) -> NamedClassifier:
    """Return a network or function that was given itself; a network is left as it is."""
    name = getattr(spec, "__name__", type(spec).__name__)
    if not isinstance(spec, nn.Module):
        if isinstance(spec, type) or not callable(spec):
            raise InputError(
                f"A {type(spec).__name__} was given as a classifier, expected a network, a function or {FORMS}."
            )
        spec = BlackBox(spec, outputs=wanted.outputs, classes=wanted.classes, name=name)
    network = spec if wanted.mean is None and wanted.std is None else Normalized(spec, wanted.mean, wanted.std)
    return NamedClassifier(name, name, network, name, wanted.mean, wanted.std)


def _of_scheme(kind: str, rest: str, spec: str, wanted: Wanted) -> NamedClassifier:
    name, _, weights = rest.partition(":")
    network: nn.Module
    if kind == "timm":
        network = timm_classifier(name, weights, wanted)
    elif kind == "torchvision":
        network = torchvision_classifier(name, weights, wanted)
    elif kind == "hf":
        name, weights, network = Path(rest).name, "", hugging_face_classifier(rest, wanted)
    elif kind == "process":
        name, weights, network = rest, "", process_classifier(rest, outputs=wanted.outputs, classes=wanted.classes)
    else:
        suffix = Path(rest.partition("?")[0]).suffix
        if suffix in (*WEIGHTS, ".pt2", ".onnx"):
            form = "ARCHITECTURE:FILE" if suffix in WEIGHTS else "its path"
            raise InputError(f"{spec} is an address, expected a file on disk: download it, and give {form}.")
        name, weights, network = spec, "", http_classifier(spec, outputs=wanted.outputs, classes=wanted.classes)
    shown = Path(weights).stem if weights else name
    return NamedClassifier(shown, spec, network, spec, wanted.mean, wanted.std)


def _onnx(path: Path, wanted: Wanted) -> nn.Module:
    network = onnx_classifier(path, outputs=wanted.outputs, classes=wanted.classes)
    return wanted.preprocessing(told_by(metadata_of(path))).before(network)


def _unknown(spec: str, name: str) -> InputError:
    if Path(spec).is_file():
        return InputError(
            f"{spec} is a file of weights without an architecture: give ARCHITECTURE:{spec}, timm:NAME:{spec}, or "
            f"MODULE:FACTORY:{spec}."
        )
    if ":" not in spec and (os.sep in spec or Path(spec).suffix in WEIGHTS):
        return InputError(f"There is no file or folder {spec}: check the path.")
    bare = name.partition("@")[0]
    if bare in ARCHITECTURES:
        return InputError(f"{spec} is an architecture without weights: give {bare}:WEIGHTS, or train it first.")
    return unknown_name(name, [*ARCHITECTURES, *_SCHEMES], "run, JSON card, source or architecture")


def _from_run(folder: Path, wanted: Wanted) -> NamedClassifier:
    card = folder / CARD
    if not card.exists():
        raise InputError(f"{folder} holds no classifier: it has no {CARD}; finish its training first.")
    found = _from_card(card, str(folder), wanted)
    return NamedClassifier(folder.name, str(folder), found.network, found.architecture)


def _from_card(path: Path, spec: str, wanted: Wanted) -> NamedClassifier:
    card = read_card(path)
    given = {key: number for key in ("channels", "size", "classes") if (number := getattr(wanted, key)) is not None}
    return NamedClassifier(card["name"], spec, load_card(path, **given), card["architecture"])
