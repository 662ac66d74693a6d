"""ONNX files: their sessions, and the digest of all that they hold."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from forefend.checks import InputError, import_extra
from forefend.runtime.files import check_regular

Array = np.ndarray[Any, Any]
_WHAT = "A classifier in an ONNX file"


class OnnxSession:
    """A function of images that an ONNX file computes, on the CPU with torch's number of threads.

    A batch smaller than one that the file fixes is filled up with its last image.

    Args:
        path: the file, with one input, float32 `(B, C, H, W)`.
        labels: whether to read class numbers, where the file has several outputs.
        output: the name of the output to read; by default the only one, or the first that fits `labels`.

    Raises:
        InputError: onnxruntime is missing, the file cannot be read, or it has other inputs or outputs.
    """

    def __init__(self, path: Path, *, labels: bool = False, output: str | None = None) -> None:
        self.path = path
        self._session = _session(path)
        self.input = self._the_input()
        self.output = self._the_output(labels, output)
        first = self.input.shape[0]
        self.batch_size = first if isinstance(first, int) and first > 0 else None

    def __call__(self, x: Array) -> Array:
        """Return the output for images, `(B, C, H, W)` float32.

        Raises:
            InputError: images of another size.
        """
        wanted = self.input.shape[1:]
        if any(isinstance(n, int) and n > 0 and n != m for n, m in zip(wanted, x.shape[1:], strict=True)):
            shown = " × ".join(map(str, wanted))
            raise InputError(
                f"{self.path.name} takes images of {shown}, and these are {' × '.join(map(str, x.shape[1:]))}: resize "
                "them to it, or export the classifier for their size."
            )
        missing = (self.batch_size or len(x)) - len(x)
        filled = np.concatenate([x, np.repeat(x[-1:], missing, 0)]) if missing > 0 else x
        found: Array = np.asarray(self._session.run([self.output], {self.input.name: filled})[0])
        return found[: len(x)] if found.ndim else found

    def _the_input(self) -> Any:
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 4:
            shown = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
            raise InputError(
                f"{self.path.name} has the inputs {shown}, expected one of float32 images (B, C, H, W): export it so."
            )
        return inputs[0]

    def _the_output(self, labels: bool, name: str | None) -> str:
        outputs = {one.name: one.type for one in self._session.get_outputs()}
        wanted = (
            ("tensor(int64)", "tensor(int32)") if labels else ("tensor(float)", "tensor(double)", "tensor(float16)")
        )
        fitting = [each for each, kind in outputs.items() if kind in wanted]
        if name is None and (len(outputs) == 1 or fitting):
            return [*fitting, *outputs][0]
        if name is None or name not in outputs:
            raise InputError(
                f"{self.path.name} has the outputs {', '.join(outputs)}, and {name or 'none of them'} "
                f"{'is not one' if name else 'holds ' + ('labels' if labels else 'scores')}: name one as output."
            )
        return name


def _session(path: Path) -> Any:
    onnxruntime = import_extra("onnxruntime", _WHAT, "onnx")
    if not path.exists():
        raise InputError(f"There is no file {path}: check the path.")
    check_regular(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.log_severity_level = 4  # errors are raised too
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave the cores to others
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own exceptions have no common base
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is no ONNX file that onnxruntime can run ({reason}): export it again.") from None


def file_digest(path: Path) -> str:
    """Return sixteen hexadecimal digits over an ONNX file and the files of weights beside it."""
    onnx = import_extra("onnx", _WHAT, "onnx")
    digest = hashlib.sha256(path.read_bytes())
    tensors = onnx.load(str(path), load_external_data=False).graph.initializer
    beside = {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
    for name in sorted(beside):
        digest.update((path.parent / name).read_bytes())
    return digest.hexdigest()[:16]


def metadata_of(path: Path) -> dict[str, str]:
    """Return what an ONNX file says of itself, by name."""
    onnx = import_extra("onnx", _WHAT, "onnx")
    return {entry.key: entry.value for entry in onnx.load(str(path), load_external_data=False).metadata_props}
