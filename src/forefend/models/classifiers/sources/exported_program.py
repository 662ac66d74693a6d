"""Classifiers that `torch.export.save` wrote, in .pt2 files."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.models.classifiers.sources.adapted import Adapted, logits_in
from forefend.models.classifiers.sources.preprocessing import PIXELS, told_by
from forefend.models.classifiers.sources.wanted import Wanted

_PICKLED = ("custom_obj_", "opaque_obj_")  # objects in an archive that only pickled code restores


def exported_classifier(path: Path, wanted: Wanted) -> nn.Module:
    """Return the classifier in a .pt2 file. Such a file holds a program: load only those that you trust.

    Args:
        path: the file, with one input of float32 images `(B, C, H, W)`; a fixed batch is filled up.
        wanted: the images that it is for, with the normalization that the program does not do itself.

    Raises:
        InputError: the file is missing, damaged, needs pickled code, or takes other images.
    """
    said = {PIXELS: ""}  # torch fills it
    program = _load(path, said)
    shape = _input_shape(program, path, wanted)
    batch = shape[0] if isinstance(shape[0], int) else None
    images = tuple(number if isinstance(number, int) else None for number in shape[1:])
    fixed = images if None not in images else wanted.known_shape()
    adapted = Adapted(Exported(program.module(), batch), fixed)  # type: ignore[arg-type]
    return wanted.preprocessing(told_by(said)).before(adapted)


@final
class Exported(nn.Module):
    """A program for batches of a fixed or of any size; it has no modes.

    Args:
        program: images to logits.
        batch: the number of images that it takes; None for any.
    """

    def __init__(self, program: nn.Module, batch: int | None) -> None:
        super().__init__()
        self.program, self.batch = program, batch

    def train(self, mode: bool = True) -> Exported:
        """Set the flag alone: modes were fixed when the program was exported."""
        self.training = mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(B, K)`."""
        if self.batch is None:
            return logits_in(self.program(x))
        parts = []
        for part in x.split(self.batch):
            missing = self.batch - len(part)
            full = torch.cat([part, part[-1:].expand(missing, *part.shape[1:])]) if missing else part
            parts.append(logits_in(self.program(full))[: len(part)])
        return torch.cat(parts)


def _load(path: Path, said: dict[str, str]) -> Any:
    if not path.is_file():
        raise InputError(f"There is no file {path}: check the path.")
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.rpartition("/")[2] for name in archive.namelist()]
        if any(name.startswith(_PICKLED) for name in names):
            raise InputError(f"{path.name} holds objects that only pickled code restores: export a plain network.")
        if any(name.endswith((".so", ".cubin")) for name in names):
            raise InputError(
                f"{path.name} is compiled for inference and gives no gradient: give what torch.export.save wrote."
            )
        with _without_pickle(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about its own formats
            return torch.export.load(path, extra_files=said)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a damaged archive may raise any type
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise InputError(
            f"{path.name} is no program of torch.export.save that this torch can load ({reason}): export it again, on "
            "the CPU."
        ) from None


@contextmanager
def _without_pickle() -> Iterator[None]:
    """Keep torch from running pickled code in the archive, as it would do for tensors of its own kinds."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _input_shape(program: Any, path: Path, wanted: Wanted) -> tuple[Any, ...]:
    names = program.graph_signature.user_inputs
    inputs = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or inputs[0].ndim != 4:
        raise InputError(f"{path.name} takes {len(inputs)} inputs, expected one of images (B, C, H, W): export it so.")
    (images,) = inputs
    if images.dtype is not torch.float32:
        kind = str(images.dtype).removeprefix("torch.")
        raise InputError(f"{path.name} takes {kind} images, expected float32: export the network after .float().")
    given = (wanted.channels, wanted.size, wanted.size)
    if any(isinstance(n, int) and m is not None and n != m for n, m in zip(images.shape[1:], given, strict=True)):
        raise InputError(
            f"{path.name} takes images of {' × '.join(map(str, images.shape[1:]))}, and these are "
            f"{' × '.join(map(str, given))}: read them with size={images.shape[2]}, or resize inside the network and "
            "export it again."
        )
    return tuple(images.shape)
