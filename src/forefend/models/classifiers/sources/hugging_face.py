"""Classifiers of transformers: `hf:FOLDER`, as `save_pretrained` writes it, or `hf:ID` on the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from forefend.checks import InputError
from forefend.models.classifiers.sources.adapted import Adapted
from forefend.models.classifiers.sources.hub import folder_of_repository
from forefend.models.classifiers.sources.preprocessing import (
    Preprocessing,
    as_pair,
    check_agreement,
    not_understood,
)
from forefend.models.classifiers.sources.vision_import import import_vision
from forefend.models.classifiers.sources.wanted import Wanted

FILES = ("config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json")
_INTERPOLATIONS = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def hugging_face_classifier(name: str, wanted: Wanted) -> nn.Module:
    """Return an image classifier of transformers, with the preprocessing of its image processor.

    Args:
        name: a folder, or the name of a repository on the hub.
        wanted: the images that it is for.

    Raises:
        InputError: transformers is missing, the files are not there, the network is no image classifier, weights are
            missing, or its preprocessing is not understood.
    """
    spec = f"hf:{name}"
    transformers = import_vision("transformers", spec)
    folder = Path(name) if Path(name).is_dir() else folder_of_repository(name, FILES, wanted.download)
    network = _network(transformers, folder, spec)
    channels = int(getattr(network.config, "num_channels", 3))
    wanted.check_channels(channels, spec)
    wanted.check_classes(network.config.num_labels, spec)
    if not (folder / "preprocessor_config.json").is_file():
        return wanted.preprocessing().before(Adapted(network, wanted.known_shape()))
    import_vision("torchvision", spec)  # of which image processors are made
    found = _preprocessing(transformers, folder, wanted, spec)
    height, width = found.crop or (found.resize if isinstance(found.resize, tuple) else (wanted.size or 224,) * 2)
    return wanted.preprocessing(found).before(Adapted(network, (channels, height, width)))


def _network(transformers: Any, folder: Path, spec: str) -> Any:
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} holds no config.json: give a folder that save_pretrained of transformers wrote.")
    if not any(folder.glob("*.safetensors")):
        raise InputError(f"{folder} holds no weights in safetensors: write them with save_pretrained of transformers.")
    bars, level = transformers.utils.logging, transformers.utils.logging.get_verbosity()
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    bars.set_verbosity_error()
    try:
        network, report = transformers.AutoModelForImageClassification.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=torch.float32
        )
    except (ValueError, OSError, RuntimeError, KeyError) as error:
        raise InputError(
            f"{spec} is no image classifier that transformers can load ({' '.join(str(error).split())[:200]})."
        ) from None
    finally:
        bars.set_verbosity(level)
        if shown:
            bars.enable_progress_bar()
    wrong = sorted([*report["missing_keys"], *map(str, report["mismatched_keys"])])
    if wrong:
        raise InputError(
            f"{spec} does not hold all weights of its classifier (missing: {', '.join(wrong[:3])}): fine-tune it "
            "first, or choose a checkpoint for image classification."
        )
    return network


def _preprocessing(transformers: Any, folder: Path, wanted: Wanted, spec: str) -> Preprocessing:
    processor = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    found = _steps(json.loads(processor.to_json_string()), spec)

    def theirs(image: Any) -> Any:
        return processor(image, return_tensors="pt")["pixel_values"][0]

    check_agreement(found, theirs, wanted.size or 256, spec)
    return found


def _steps(config: dict[str, Any], spec: str) -> Preprocessing:
    """Read the settings of an image processor; `check_agreement` shows where one means something else."""
    mean, std = (config[key] if config.get("do_normalize") else number for key, number in _NORMALIZATION.items())
    size, crop = config.get("size") or {}, config.get("crop_size") or {}
    resize: int | tuple[int, int] | None = None
    cut = as_pair([crop["height"], crop["width"]]) if config.get("do_center_crop") and crop else None
    if config.get("do_resize"):
        if {"height", "width"} <= size.keys():
            resize = (size["height"], size["width"])
        elif "shortest_edge" in size:
            resize = size["shortest_edge"]
        else:
            raise not_understood(spec, f"size {size}")
    part = config.get("crop_pct")
    if isinstance(resize, int) and part and cut is None:  # ConvNeXt crops a part of small images alone
        cut, resize = ((resize, resize), int(resize / part)) if resize < 384 else (None, (resize, resize))
    resample = config.get("resample", 2)
    return Preprocessing(mean, std, resize, cut, _INTERPOLATIONS.get(resample, f"number {resample}"))


_NORMALIZATION = {"image_mean": 0.0, "image_std": 1.0}
