"""AutoAttack, run by pyautoattack."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor

from forefend.attacks.base import NO_EVIDENCE, ThreatField, attacking
from forefend.checks import InputError, check_finite, check_labels, unknown_name
from forefend.runtime.rng import KeyedRNG, as_rng
from forefend.threat_models.lp import L2, Linf

_LOGGER = "auto-attack"  # the logger of pyautoattack
_STEPS, _TARGETS, _EOT = 100, 9, 20  # steps of each attack, maximum of target classes, EOT samples of `rand`

# With two classes DLR is constant. Cross-entropy has the gradient direction of the margin there, and FAB covers margins
# too small for float32. Three classes lack the fourth logit of targeted DLR, so its untargeted form is used.
_STANDARD = {2: ("apgd-ce", "fab-t", "square"), 3: ("apgd-ce", "apgd-dlr", "fab-t", "square")}
_STANDARD_4 = ("apgd-ce", "apgd-t", "fab-t", "square")
_RAND = {2: ("apgd-ce",)}
_RAND_3 = ("apgd-ce", "apgd-dlr")


@dataclass(frozen=True, repr=False)
class AutoAttack:
    """APGD on cross-entropy and on targeted DLR, FAB and Square, each on the images that are still robust.

    A call is one `run_standard_evaluation` of pyautoattack on the whole batch. Its random numbers depend on the whole
    batch, so only whole batches can be repeated. Below 10 classes there are K − 1 targets, below 4 no targeted DLR,
    and for 2 no DLR; `str()` names the attacks that run.

    Args:
        threat: `Linf` or `L2` threat model with one radius, by name or as an object.
        classes: number of logits, at least 2.
        version: `standard`, or `rand` for randomized pipelines: 20 gradients averaged at each step, no FAB, no Square.
        queries: number of queries of Square for an image.

    Raises:
        InputError: another threat model, fewer than 2 classes, or pyautoattack is not installed.

    Source: Croce and Hein, 2003.01690.

    Example:
        >>> import torch, pytest
        >>> _ = pytest.importorskip("pyautoattack")
        >>> from forefend.attacks import AutoAttack
        >>> print(AutoAttack("Linf:8/255"))
        AutoAttack-standard(Linf:8/255, apgd-ce + apgd-t x9 + fab-t x9 + square 5000)
    """

    threat: ThreatField[Linf | L2] = ThreatField(Linf, L2)
    classes: int = 10
    version: Literal["standard", "rand"] = "standard"
    queries: int = 5000

    def __post_init__(self) -> None:
        if not isinstance(self.threat.radius, float):
            raise InputError(f"AutoAttack does not support {self.threat}: give one radius for all images.")
        if self.classes < 2:
            raise InputError(f"AutoAttack has {self.classes} classes: give at least 2.")
        if self.version not in ("standard", "rand"):
            raise unknown_name(self.version, ("standard", "rand"), "version of AutoAttack")
        if self.queries < 1:
            raise InputError(f"Square has {self.queries} queries: give at least 1.")
        _library()

    def __str__(self) -> str:
        sizes = {"apgd-t": f" x{self.targets}", "fab-t": f" x{self.targets}", "square": f" {self.queries}"}
        listed = " + ".join(name + sizes.get(name, "") for name in self.attacks)
        eot = f", eot {_EOT}" if self.version == "rand" else ""
        return f"AutoAttack-{self.version}({self.threat}, {listed}{eot})"

    @property
    def attacks(self) -> tuple[str, ...]:
        """The attacks that run for this number of classes, by pyautoattack's names."""
        if self.version == "rand":
            return _RAND.get(self.classes, _RAND_3)
        return _STANDARD.get(self.classes, _STANDARD_4)

    @property
    def targets(self) -> int:
        """Number of target classes: the 9 of highest logit, or all but the true class."""
        return min(_TARGETS, self.classes - 1)

    @property
    def averages(self) -> bool:
        """Whether the attack is valid for randomized pipelines."""
        return self.version == "rand"

    @property
    def steps(self) -> int:
        """Maximum number of gradient evaluations for an image."""
        once = (_STEPS + 1) * (_EOT if self.version == "rand" else 1)
        many = {"apgd-t": self.targets * (_STEPS + 1), "fab-t": self.targets * _STEPS, "square": 0}
        return sum(many.get(name, once) for name in self.attacks)

    @property
    def forwards(self) -> int:
        """Maximum number of forward passes for an image: gradients, queries and pyautoattack's checks."""
        again = {
            "apgd-t": 2 + self.targets,
            "fab-t": 2 + self.targets * (_STEPS + 3),
            "square": 4 + self.queries,
        }
        checks = 3 if self.version == "rand" else 8
        return checks + self.steps + sum(again.get(name, 2) for name in self.attacks)

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Tensor, *, rng: KeyedRNG | None = None) -> Tensor:
        """Attack a batch as `Iterative.__call__`, for logits and labels; without adversarial image, x is returned.

        The seed of `rng` plus the restart seeds pyautoattack; torch's generators are restored afterwards.

        Raises:
            InputError: images in another precision or of a size that pyautoattack does not support, or another number
                of logits.
        """
        rng = as_rng(rng, x, str(self))
        self._check(x)
        check_labels(target, self.classes, len(x))
        seed = rng.seed + int(rng.restart)
        with attacking(f, x, target, None) as (f, x, target), flags(), _isolated(seed):
            library = _library().AutoAttack(
                _Compatible(f, self, x, rng.index),
                norm=self.threat.norm,
                eps=self.threat.radius,
                seed=seed,
                device=x.device,
                version=self.version,
            )
            library.attacks_to_run = list(self.attacks)
            library.apgd_targeted.n_target_classes = library.fab.n_target_classes = self.targets
            library.square.n_queries = self.queries
            # pyautoattack's views need contiguous images.
            x_adv, _ = library.run_standard_evaluation(x.contiguous(), target.long(), batch_size=len(x))
        return x_adv

    def _check(self, x: Tensor) -> None:
        """Refuse what would fail only in pyautoattack's last attack."""
        if x.dtype != torch.float32:
            raise InputError(f"AutoAttack needs float32 images and received {x.dtype}: pass x.float().")
        if self.threat.norm == "L2" and "square" in self.attacks and not _can_tile(*x.shape[-2:]):
            height, width = x.shape[-2:]
            raise InputError(
                f"Square of AutoAttack does not support {height} × {width} images in L2: "
                "pad them inside the classifier to a square of at least 25 pixels a side, or use Linf."
            )


@contextmanager
def flags() -> Iterator[list[str]]:
    """Collect the warnings of AutoAttack's own checks in a list instead of logging them.

    The list holds each different sentence once: the pipeline seems randomized or dynamic, its output seems to be
    probabilities, gradients are zero, or Square still lowered the accuracy. In nested contexts each list gets all.
    """
    logger = logging.getLogger(_LOGGER)
    level, propagate = logger.level, logger.propagate
    warnings = _Warnings()
    logger.addHandler(warnings)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield warnings.sentences
    finally:
        logger.removeHandler(warnings)
        logger.setLevel(level)
        logger.propagate = propagate


class _Warnings(logging.Handler):
    """Collects each different sentence once, without the reference to a file of pyautoattack."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.sentences: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        sentence = record.getMessage().partition(" See flags_doc.md")[0]
        # A false alarm: our lists hold only attacks that the number of classes allows.
        if sentence not in self.sentences and not sentence.startswith("with only"):
            self.sentences.append(sentence)


@contextmanager
def _isolated(seed: int) -> Iterator[None]:
    """Restore torch's generators and Python's tracing, which pyautoattack seeds and switches off."""
    counts = _library().checks.funcs
    # Its counters persist: after one dynamic pipeline every later one would count as dynamic.
    counts.update(dict.fromkeys(counts, 0))
    trace = sys.gettrace()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)  # a randomized pipeline runs before the first attack seeds
            yield
    finally:
        sys.settrace(trace)


@final
class _Compatible:
    """A classifier for use by pyautoattack, with checks.

    FAB calls `backward`, which would leave gradients in the parameters of `f`. Square writes into the logits, and may
    pass an empty batch. Both need float32 logits, whatever the classifier computes in.

    Args:
        f: images to logits.
        attack: the attack, which knows the number of classes.
        x: the clean images, `(B, C, H, W)`.
        index: their dataset index, `(B,)`.
    """

    def __init__(self, f: Callable[[Tensor], Tensor], attack: AutoAttack, x: Tensor, index: Tensor) -> None:
        self.f, self.attack, self.x, self.index = f, attack, x, index

    def __call__(self, x: Tensor) -> Tensor:
        classes = self.attack.classes
        if not len(x):
            return x.new_zeros(0, classes)
        if x.requires_grad and torch.is_grad_enabled():
            logits: Tensor = _ImageGradient.apply(x, self)  # type: ignore[no-untyped-call]
        else:
            logits = self.f(x).float().clone()
        if logits.shape != (len(x), classes):
            raise InputError(
                f"The classifier returns shape {tuple(logits.shape)}, expected {(len(x), classes)}: "
                "pass its number of logits as classes."
            )
        self.check(logits, "The logits", x)
        return logits

    def check(self, values: Tensor, what: str, x: Tensor) -> None:
        """Refuse NaN and infinite values for adversarial images, each near the clean image that it belongs to."""
        if not math.isfinite(float(values.detach().sum())):
            nearest = torch.cdist(x.detach().flatten(1), self.x.flatten(1)).argmin(1).cpu()
            check_finite(values, what, NO_EVIDENCE, self.index.cpu()[nearest], self.attack)


class _ImageGradient(torch.autograd.Function):
    """`f(x)` whose backward pass reaches the images only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, model: _Compatible) -> Tensor:
        with torch.enable_grad():
            ctx.model, ctx.x = model, x.detach().requires_grad_()
            ctx.logits = model.f(ctx.x).float()
        return ctx.logits.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = torch.autograd.grad(ctx.logits, ctx.x, gradients)[0]
        ctx.model.check(gradient, "The gradient", ctx.x)
        return gradient, None


def _can_tile(height: int, width: int) -> bool:
    """Return whether the 5 × 5 tiles of Square's l2 start fit into the image."""
    tile = height // 5
    margin = (height - 5 * tile) // 2
    return tile == 1 or (tile > 1 and all(margin + side // tile * tile <= side for side in (height, width)))


def _library() -> Any:
    try:
        import pyautoattack
    except ImportError:
        raise InputError("AutoAttack needs pyautoattack: pip install 'forefend[eval]'.") from None
    return pyautoattack
