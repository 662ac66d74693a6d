"""Exported networks in int8: smaller and faster on the CPU, without a gradient, and with answers of their own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from torch import Tensor

from forefend.checks import InputError, import_extra
from forefend.models.classifiers.sources.onnx_session import OnnxSession
from forefend.models.export import INPUT, Exported

LEAST_AGREEMENT: Final = 0.9  # share of images for which int8 must predict what the original predicts
BATCH: Final = 50


def quantized(original: Exported, x: Tensor, calibration: Tensor) -> Exported:
    """Return an exported classifier with int8 weights and uint8 activations, compared with the original on images.

    Scales are constants: an image's logits do not depend on its batch. Weights have one scale for each channel, and
    take 7 bits, so that processors without instructions for int8 compute without overflow too.

    Args:
        original: an ONNX file of logits.
        x: images to compare on, `(B, C, H, W)`.
        calibration: training images, on which the range of each activation is found.

    Raises:
        InputError: onnxruntime cannot quantize it, or it predicts otherwise for more than a tenth of the images.
    """
    tools = import_extra("onnxruntime.quantization", "An int8 file", "onnx")
    shapes = import_extra("onnxruntime.quantization.shape_inference", "An int8 file", "onnx")
    with TemporaryDirectory() as folder:
        before, prepared, after = (Path(folder) / f"{name}.onnx" for name in ("before", "prepared", "after"))
        before.write_bytes(original.content)
        try:
            with _quiet():
                shapes.quant_pre_process(before, prepared, skip_symbolic_shape=True)
                tools.quantize_static(
                    prepared,
                    after,
                    _Reader(calibration),
                    per_channel=True,
                    reduce_range=True,
                    activation_type=tools.QuantType.QUInt8,
                    weight_type=tools.QuantType.QInt8,
                )
        except Exception as error:  # of any type, from inside onnxruntime
            reason = " ".join(str(error).split())[:150] or type(error).__name__
            raise InputError(f"The network cannot be quantized to int8 ({reason}): export it in float32.") from None
        expected, found = OnnxSession(before)(x.numpy()), OnnxSession(after)(x.numpy())
        content = after.read_bytes()
    agreement = float(np.mean(found.argmax(1) == expected.argmax(1)))
    if agreement < LEAST_AGREEMENT:
        raise InputError(
            f"The int8 network predicts what the original does for {agreement:.0%} of {len(x)} images, expected at "
            f"least {LEAST_AGREEMENT:.0%}: export it in float32."
        )
    difference = float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-12))
    return replace(original, content=content, images=len(x), difference=difference, agreement=agreement)


class _Reader:
    """The calibration images, a batch at a time."""

    def __init__(self, images: Tensor) -> None:
        self.parts: Iterator[Tensor] = iter(images.split(BATCH))

    def get_next(self) -> dict[str, Any] | None:
        """Return the input of the next batch; None after the last one."""
        part = next(self.parts, None)
        return None if part is None else {INPUT: part.numpy()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out onnxruntime's advice, which it logs to the root."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
