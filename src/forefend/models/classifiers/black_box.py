"""Black boxes: classifiers that answer and give no gradient."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.models.classifiers.sources.child_process import ChildProcess
from forefend.models.classifiers.sources.local_server import LocalServer
from forefend.models.classifiers.sources.onnx_session import OnnxSession, file_digest

Score = Callable[[np.ndarray[Any, Any]], Any]  # images `(B, C, H, W)` float32 in [0, 1] to scores or labels
OUTPUTS: Final = ("logits", "probabilities", "labels")
LEAST: Final = float(np.finfo(np.float32).tiny)  # a probability of 0, whose logarithm would be infinite


class BlackBox(nn.Module):
    """A classifier of which only the answers are known: images in [0, 1] to logits, without a gradient.

    The images are given to `score` as a numpy array of its own, on the CPU. Copies of the module share `score`.

    Args:
        score: images `(B, C, H, W)`, float32 in [0, 1], to an array or tensor of `(B, K)` scores, or of `(B,)` class
            numbers for labels. An image's answer must not depend on the others of its batch.
        outputs: what `score` returns: `logits`, `probabilities` (their logarithms are the logits), or `labels` alone
            (the logits are 1 for the label and −1 for other classes).
        classes: the number of classes; needed for labels, otherwise checked where it is given.
        name: its name in messages, and where there is no digest a part of its identity in records.
        batch_size: the most images in one call of `score`; None for no limit.
        digest: digest of what answers, such as of a file, where there is one. It is held as a buffer, and so enters
            the fingerprint and the identity in records, beside what it answers.

    Raises:
        InputError: no function, an unknown kind of outputs, or labels without the number of classes.

    Example:
        >>> import torch
        >>> from forefend.models.classifiers.black_box import BlackBox
        >>> model = BlackBox(lambda x: x.mean((1, 2, 3)) > 0.5, outputs="labels", classes=2)
        >>> model(torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)]))
        tensor([[ 1., -1.],
                [-1.,  1.]])
    """

    def __init__(
        self,
        score: Score,
        *,
        outputs: str = "logits",
        classes: int | None = None,
        name: str = "black box",
        batch_size: int | None = None,
        digest: str = "",
    ) -> None:
        super().__init__()
        if not callable(score) or isinstance(score, nn.Module):
            raise InputError(
                f"A {type(score).__name__} was given as a black box, expected a function of numpy images: give a torch "
                "module as it is, or as lambda x: module(torch.from_numpy(x))."
            )
        if outputs not in OUTPUTS:
            raise InputError(f"A black box returns {outputs!r}, expected one of {', '.join(OUTPUTS)}: say which.")
        if outputs == "labels" and classes is None:
            raise InputError(f"Labels alone do not say how many classes {name} has: give classes.")
        for what, number, least in (("classes", classes, 2), ("batch size", batch_size, 1)):
            if number is not None and not (isinstance(number, int) and number >= least):
                raise InputError(f"The {what} of {name} is {number!r}, expected an integer of at least {least}.")
        self.outputs, self.classes, self.digest = outputs, classes, digest
        self._score, self._name, self._batch_size = score, name, batch_size
        self._answered = False
        # The fingerprint covers tensors alone, and two files or commands are two classifiers.
        text = (digest or name).encode()
        self.register_buffer("identity", torch.tensor(list(text), dtype=torch.uint8), persistent=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> BlackBox:
        """Return a module of its own that asks the same function, which may be a session or a process."""
        copied = BlackBox(
            self._score,
            outputs=self.outputs,
            classes=self.classes,
            name=self._name,
            batch_size=self._batch_size,
            digest=self.digest,
        )
        copied.training, copied._answered = self.training, self._answered
        copied.identity = copy.deepcopy(self.identity, memo)
        return copied

    @property
    def name(self) -> str:
        """Its name in messages."""
        return self._name

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, `(B, K)` float32 on the device of `x`, `(B, C, H, W)`.

        Raises:
            InputError: the function fails, or its answers are not what `outputs` says.
        """
        parts = x.detach().split(self._batch_size or max(1, len(x)))
        return torch.cat([self._logits(self._ask(part), len(part)) for part in parts]).to(x.device)

    def _ask(self, x: Tensor) -> Tensor:
        images = np.array(x.cpu().numpy(), dtype=np.float32, order="C")  # a copy, which the function may change
        try:
            with torch.no_grad():
                given = self._score(images)
        except (InputError, MemoryError):
            raise
        except Exception as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise InputError(
                f"{self.name} failed on images {tuple(images.shape)} ({reason}): it is given a float32 numpy array in "
                "[0, 1] and returns one row for each image."
            ) from error
        return self._as_tensor(given)

    def _as_tensor(self, given: Any) -> Tensor:
        values = given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
        if values.dtype.kind not in "fiub":
            raise InputError(f"{self.name} returns {values.dtype} values, expected numbers: convert them.")
        return torch.from_numpy(np.array(values, dtype=np.float64 if values.dtype.kind == "f" else np.int64))

    def _logits(self, values: Tensor, count: int) -> Tensor:
        if self.outputs == "labels":
            return self._of_labels(values, count)
        self._check_scores(values, count)
        if self.outputs == "probabilities":
            return values.clamp_min(LEAST).log().float()
        return values.float()

    def _of_labels(self, values: Tensor, count: int) -> Tensor:
        values = values.squeeze(1) if values.shape == (count, 1) else values
        classes = self.classes or 0
        if values.shape != (count,) or bool((values != values.round()).any()):
            raise InputError(
                f"{self.name} returns shape {tuple(values.shape)} for {count} images, expected one class number each: "
                "say outputs='logits' or 'probabilities' for scores."
            )
        if bool(((values < 0) | (values >= classes)).any()):
            raise InputError(
                f"{self.name} returns labels {int(values.min())} … {int(values.max())}, expected 0 … {classes - 1}: "
                "count classes from 0 and in the order of the data."
            )
        return 2 * nn.functional.one_hot(values.long(), classes).float() - 1

    def _check_scores(self, values: Tensor, count: int) -> None:
        if values.ndim == 1 and len(values) == count and not values.is_floating_point():
            raise InputError(f"{self.name} returns labels, not {self.outputs}: say outputs='labels', with classes.")
        if values.ndim != 2 or len(values) != count or self.classes not in (None, values.shape[1]):
            raise InputError(
                f"{self.name} returns shape {tuple(values.shape)} for {count} images, expected "
                f"({count}, {self.classes or 'classes'}): one row of {self.outputs} for each image."
            )
        if not bool(values.isfinite().all()):
            raise InputError(f"{self.name} returns NaN or infinite {self.outputs}, expected finite numbers.")
        normalized = bool(((values >= 0).all(1) & ((values.sum(1) - 1).abs() < 1e-3)).all())
        if self.outputs == "probabilities" and not normalized:
            raise InputError(
                f"{self.name} returns rows that do not sum to 1, expected probabilities: say outputs='logits'."
            )
        if self.outputs == "logits" and normalized and not self._answered:  # later batches may look so by chance
            raise InputError(
                f"{self.name} returns rows that sum to 1, expected logits: say outputs='probabilities', or 'labels' "
                "for class numbers."
            )
        self._answered = True


def black_box_in(network: object) -> BlackBox | None:
    """Return the black box inside a network, such as a defended one; None if there is none."""
    modules = network.modules() if isinstance(network, nn.Module) else ()
    return next((module for module in modules if isinstance(module, BlackBox)), None)


def onnx_classifier(
    path: str | Path,
    *,
    outputs: str = "logits",
    classes: int | None = None,
    output: str | None = None,
    batch_size: int | None = None,
) -> BlackBox:
    """Return the classifier in an ONNX file, run by onnxruntime on the CPU.

    Args:
        path: the file, with one input of float32 images `(B, C, H, W)` in [0, 1], whatever its name.
        outputs: what it returns: `logits`, `probabilities` or `labels`.
        classes: the number of classes; needed for labels.
        output: the name of the output to read, where several could be meant.
        batch_size: the most images in one call; a fixed batch in the file takes precedence.

    Raises:
        InputError: onnxruntime is missing, or the file cannot be used.
    """
    path = Path(path)
    session = OnnxSession(path, labels=outputs == "labels", output=output)
    return BlackBox(
        session,
        outputs=outputs,
        classes=classes,
        name=path.name,
        batch_size=session.batch_size or batch_size,
        digest=file_digest(path),
    )


def process_classifier(
    command: str | Sequence[str],
    *,
    outputs: str = "logits",
    classes: int | None = None,
    batch_size: int | None = 256,
    time_limit: float = 60,
) -> BlackBox:
    """Return the classifier that a child process computes; `ChildProcess` describes the protocol.

    Args:
        command: the program and its arguments; no shell reads them.
        outputs: what it answers: `logits`, `probabilities` or `labels`.
        classes: the number of classes; needed for labels.
        batch_size: the most images in one request.
        time_limit: seconds for one request.

    Raises:
        InputError: the command cannot be started.
    """
    child = ChildProcess(command, time_limit)
    return BlackBox(child, outputs=outputs, classes=classes, name=child.command, batch_size=batch_size)


def http_classifier(
    url: str,
    *,
    outputs: str = "logits",
    classes: int | None = None,
    batch_size: int | None = 256,
    time_limit: float = 60,
) -> BlackBox:
    """Return the classifier behind a server on this machine; `LocalServer` describes the protocol.

    Args:
        url: a loopback address, such as `http://127.0.0.1:8000/predict`.
        outputs: what it answers: `logits`, `probabilities` or `labels`.
        classes: the number of classes; needed for labels.
        batch_size: the most images in one request.
        time_limit: seconds for one request.

    Raises:
        InputError: the address is not of this machine.
    """
    server = LocalServer(url, time_limit)
    return BlackBox(server, outputs=outputs, classes=classes, name=url, batch_size=batch_size)
