"""Export a defense, or a defended classifier, to ONNX or `torch.export`, and compare it with the original."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
from torch import Tensor, nn

from forefend.checks import InputError, import_extra
from forefend.models.classifiers.black_box import black_box_in
from forefend.models.classifiers.sources.onnx_session import OnnxSession
from forefend.models.classifiers.sources.preprocessing import PIXELS, UNIT
from forefend.models.freezing import frozen
from forefend.runtime.files import write

SUFFIXES: Final = (".onnx", ".pt2")
TOLERANCE: Final = 1e-4  # the largest difference of outputs, in units of the largest absolute output
INPUT: Final = "images"


@dataclass(frozen=True)
class Exported:
    """What was exported, and how it compares with the original on images; `print` shows it.

    Args:
        suffix: `.onnx` or `.pt2`.
        content: the bytes of the file.
        output: `logits`, or `processed` for images of a defense alone.
        shape: of one image, (channels, height, width).
        width: number of logits, or the channels of the images.
        images: how many images were compared, together and one alone.
        difference: the largest difference of outputs, in units of the largest absolute output.
        agreement: the share of these images for which the predictions are the same; below 1 for int8 alone.
    """

    suffix: str
    content: bytes
    output: str
    shape: tuple[int, int, int]
    width: int
    images: int
    difference: float
    agreement: float = 1.0

    def __str__(self) -> str:
        exact = self.difference <= TOLERANCE
        share = "" if self.agreement == 1 else f" for {self.agreement:.1%}"
        same = f"the same predictions{share}, and " if self.output == "logits" else ""
        return (
            f"{len(self.content) / 1e6:.1f} MB, any number of images of {' × '.join(map(str, self.shape))}; compared "
            f"with the original on {self.images} images: {same}outputs that differ by at most {self.difference:.1e} of "
            f"the largest{f' (tolerance {TOLERANCE:.0e})' if exact else ''}"
        )

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write(path, self.content)

    def save_triton(self, folder: Path, batch_size: int = 32) -> None:
        """Write an ONNX file as a model of the Triton inference server: `1/model.onnx` and `config.pbtxt`.

        Args:
            folder: the model's folder in the server's repository, whose name is the name of the model.
            batch_size: the most images in one request.
        """
        answer = [self.width] if self.output == "logits" else list(self.shape)
        write(folder / "1" / "model.onnx", self.content)
        config = _TRITON.format(
            name=folder.resolve().name, batch_size=batch_size, shape=list(self.shape), output=self.output, answer=answer
        )
        write(folder / "config.pbtxt", config.encode())


def exported(network: nn.Module, images: Tensor, suffix: str, *, logits: bool) -> Exported:
    """Export a network for any number of images, and compare its outputs with the original's.

    Args:
        network: images `(B, C, H, W)` in [0, 1] to logits, or to images; it is left unchanged.
        images: real images of that form, two or more.
        suffix: `.onnx` or `.pt2`.
        logits: whether it returns logits; predictions are then compared too.

    Raises:
        InputError: the network cannot be exported, is random, or what was exported answers otherwise.
    """
    if box := black_box_in(network):
        raise InputError(f"{box.name} is a black box, of which there is nothing to export: export the defense alone.")
    images = images.cpu()
    view = frozen(network).cpu()
    with torch.no_grad():
        expected = view(images)
        if not torch.equal(expected, view(images)):
            raise InputError("The network is random, and an exported one could not be compared: export it without.")
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch and onnxscript about their own code
        path = Path(folder) / f"model{suffix}"
        program = _program(view, images)
        answer = _onnx(program, path, logits) if suffix == ".onnx" else _pt2(program, path)
        difference = max(
            _difference(path.suffix, part, answer(part), expected[: len(part)], logits) for part in (images[:1], images)
        )
        content = path.read_bytes()
    shape = (images.shape[1], images.shape[2], images.shape[3])
    output = "logits" if logits else "processed"
    return Exported(suffix, content, output, shape, expected.shape[1], len(images), difference)


def _program(view: nn.Module, images: Tensor) -> Any:
    try:
        return torch.export.export(view, (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except Exception as error:  # of any type, from inside torch
        raise _no_export(error) from None


def _onnx(program: Any, path: Path, logits: bool) -> Callable[[Tensor], Tensor]:
    import_extra("onnxscript", "An ONNX file", "onnx")
    output = "logits" if logits else "processed"
    try:
        converted: Any = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=[INPUT], output_names=[output]
        )
        converted.model.metadata_props[PIXELS] = UNIT
        converted.save(path, external_data=False)
    except Exception as error:
        raise _no_export(error) from None
    session = OnnxSession(path)
    return lambda x: torch.from_numpy(session(x.numpy()))


def _pt2(program: Any, path: Path) -> Callable[[Tensor], Tensor]:
    torch.export.save(program, path, extra_files={PIXELS: UNIT})
    module = torch.export.load(path).module()

    def answer(x: Tensor) -> Tensor:
        with torch.no_grad():
            return module(x)

    return answer


def _no_export(error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:150] or type(error).__name__
    return InputError(
        f"The network cannot be exported for any number of images ({reason}): leave out steps that compute outside "
        "torch, such as JPEG."
    )


def _difference(suffix: str, x: Tensor, answers: Tensor, expected: Tensor, logits: bool) -> float:
    """Return the largest difference, in units of the largest absolute output.

    Raises:
        InputError: predictions differ, or outputs differ by more than the tolerance.
    """
    difference = float((answers - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    changed = int((answers.argmax(1) != expected.argmax(1)).sum()) if logits else 0
    if changed or not difference <= TOLERANCE:
        raise InputError(
            f"The exported {suffix} answers otherwise than the original on {len(x)} images ({changed} other "
            f"predictions, outputs that differ by {difference:.1e} of the largest, expected at most {TOLERANCE:.0e}): "
            "nothing is written."
        )
    return difference


_TRITON = """name: "{name}"
backend: "onnxruntime"
max_batch_size: {batch_size}
input [
  {{ name: "images", data_type: TYPE_FP32, dims: {shape} }}
]
output [
  {{ name: "{output}", data_type: TYPE_FP32, dims: {answer} }}
]
dynamic_batching {{ }}
"""
