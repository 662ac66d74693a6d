"""AutoAttack: the ensemble that robustness is reported with, run by pyautoattack as it is."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from forefend.checks import InputError, unknown_name
from forefend.models.freezing import eval_and_no_grad
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import L2, Linf

_LOGGER = "auto-attack"  # where pyautoattack reports
_STEPS, _TARGETS, _EOT = 100, 9, 20  # steps of each attack, most target classes, gradients averaged by `rand`


# Two classes leave DLR constant, both its differences being the one margin there is. Cross-entropy grows with that
# margin, so its gradient points the margin's own way; FAB takes over where it is too small for float32.
# Three classes lack the fourth logit of targeted DLR, so that its untargeted form takes its place.
_STANDARD = {2: ("apgd-ce", "fab-t", "square"), 3: ("apgd-ce", "apgd-dlr", "fab-t", "square")}
_STANDARD_4 = ("apgd-ce", "apgd-t", "fab-t", "square")
_RAND = {2: ("apgd-ce",)}
_RAND_3 = ("apgd-ce", "apgd-dlr")


@dataclass(frozen=True, repr=False)
class AutoAttack:
    """Auto-PGD on cross-entropy and on targeted DLR, FAB and Square, each on the images that still stand.

    A call is one `run_standard_evaluation` of pyautoattack on the whole batch, bit for bit. Its random numbers hang on
    who shares the batch, so that only whole batches can be repeated. Below 10 classes the list is shortened to what the
    classes allow: K − 1 targets, no targeted DLR below 4, no DLR at all for 2; `str` tells.

    Args:
        threat: `Linf` or `L2`, one radius for all images.
        classes: how many logits the classifier gives, at least 2.
        version: `standard`, or `rand` for randomized pipelines: 20 gradients averaged at each step, no FAB, no Square.
        queries: Square's budget for an image; 5000 is AutoAttack's own.

    Raises:
        InputError: another threat model, fewer than 2 classes, or pyautoattack is not installed.

    Source: Croce and Hein, 2003.01690.
    """

    threat: ThreatModel
    classes: int
    version: Literal["standard", "rand"] = "standard"
    queries: int = 5000

    def __post_init__(self) -> None:
        if not (isinstance(self.threat, Linf | L2) and isinstance(self.threat.radius, float)):
            raise InputError(
                f"AutoAttack cannot attack in {self.threat}: give Linf or L2 with one radius for all images."
            )
        if self.classes < 2:
            raise InputError(f"AutoAttack was given {self.classes} classes, expected at least 2.")
        if self.version not in ("standard", "rand"):
            raise unknown_name(self.version, ("standard", "rand"), "version of AutoAttack")
        if self.queries < 1:
            raise InputError(
                f"Square with {self.queries} queries does nothing: give at least 1, AutoAttack's own is 5000."
            )
        _library()

    def __str__(self) -> str:
        sizes = {"apgd-t": f" x{self.targets}", "fab-t": f" x{self.targets}", "square": f" {self.queries}"}
        listed = " + ".join(name + sizes.get(name, "") for name in self.attacks)
        eot = f", eot {_EOT}" if self.version == "rand" else ""
        return f"AutoAttack-{self.version}({self.threat}, {listed}{eot})"

    @property
    def attacks(self) -> tuple[str, ...]:
        """The attacks that this many classes allow, in their order, by pyautoattack's names."""
        if self.version == "rand":
            return _RAND.get(self.classes, _RAND_3)
        return _STANDARD.get(self.classes, _STANDARD_4)

    @property
    def targets(self) -> int:
        """How many classes the targeted attacks aim at: the likeliest 9, or all but the true one."""
        return min(_TARGETS, self.classes - 1)

    @property
    def averages(self) -> bool:
        """Whether it takes a pipeline that answers at random."""
        return self.version == "rand"

    @property
    def steps(self) -> int:
        """Gradient evaluations an image may cost at most."""
        once = (_STEPS + 1) * (_EOT if self.version == "rand" else 1)
        many = {"apgd-t": self.targets * (_STEPS + 1), "fab-t": self.targets * _STEPS, "square": 0}
        return sum(many.get(name, once) for name in self.attacks)

    @property
    def forwards(self) -> int:
        """Forward passes an image may cost at most: those of the gradients, the queries, and pyautoattack's checks."""
        again = {
            "apgd-t": 2 + self.targets,
            "fab-t": 2 + self.targets * (_STEPS + 3),
            "square": 4 + self.queries,
        }
        checks = 3 if self.version == "rand" else 8
        return checks + self.steps + sum(again.get(name, 2) for name in self.attacks)

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Tensor, *, rng: KeyedRNG) -> Tensor:
        """A breaking image for each x where one was found, else x itself.

        Args:
            f: what the attacker sees, images to logits `(B, classes)`; its modes are borrowed and given back.
            x: clean images, `(B, C, H, W)` in [0, 1], float32.
            target: labels, `(B,)`.
            rng: whose seed counts, one higher at each restart; torch's own generators are left as they were.

        Raises:
            InputError: images in another precision or of a size that pyautoattack cannot attack, or `f` gives another
                number of logits.
        """
        self._check(x)
        seed = rng.seed + int(rng.restart)
        with eval_and_no_grad(f), flags(), _undisturbed(seed):
            library = _library().AutoAttack(
                _asked(f, self.classes),
                norm=self.threat.norm,
                eps=self.threat.radius,
                seed=seed,
                device=x.device,
                version=self.version,
            )
            library.attacks_to_run = list(self.attacks)
            library.apgd_targeted.n_target_classes = library.fab.n_target_classes = self.targets
            library.square.n_queries = self.queries
            # Channels-last images would break its views.
            x_adv, _ = library.run_standard_evaluation(x.detach().contiguous(), target.long(), batch_size=len(x))
        return x_adv

    def _check(self, x: Tensor) -> None:
        """Refuse what would fail hours later, in pyautoattack's last attack."""
        if x.dtype != torch.float32:
            raise InputError(f"AutoAttack works in float32 and was handed {x.dtype} images: hand over x.float().")
        if self.threat.norm == "L2" and "square" in self.attacks and not _can_tile(*x.shape[-2:]):
            height, width = x.shape[-2:]
            raise InputError(
                f"AutoAttack's Square cannot tile {height} × {width} images in L2: pad them inside the classifier's "
                "wrapper to a square of at least 25 pixels a side, or attack in Linf."
            )


@contextmanager
def flags() -> Iterator[list[str]]:
    """Gather what AutoAttack's own checks find wrong while this is open; nothing is printed.

    The list holds each different sentence once: the pipeline seems randomized or dynamic, its output seems to be
    probabilities, gradients are zero, or Square still lowered the accuracy. May be nested: each list gets all.
    """
    logger = logging.getLogger(_LOGGER)
    level, propagate = logger.level, logger.propagate
    gathered = _Gathered()
    logger.addHandler(gathered)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield gathered.sentences
    finally:
        logger.removeHandler(gathered)
        logger.setLevel(level)
        logger.propagate = propagate


class _Gathered(logging.Handler):
    """Keeps each different sentence once, without the pointer to a file that nobody here has."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.sentences: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        sentence = record.getMessage().partition(" See flags_doc.md")[0]
        # For three classes it takes untargeted DLR for targeted; our lists hold nothing that the classes forbid.
        if sentence not in self.sentences and not sentence.startswith("with only"):
            self.sentences.append(sentence)


@contextmanager
def _undisturbed(seed: int) -> Iterator[None]:
    """Give torch's generators and the tracing of Python back, which pyautoattack seeds and switches off."""
    counts = _library().checks.funcs
    # It never forgets a dynamic pipeline, and would call every later one dynamic too.
    counts.update(dict.fromkeys(counts, 0))
    trace = sys.gettrace()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)  # a randomized pipeline is asked before the first attack seeds anything
            yield
    finally:
        sys.settrace(trace)


def _asked(f: Callable[[Tensor], Any], classes: int) -> Callable[[Tensor], Tensor]:
    """`f` as pyautoattack may ask it.

    FAB differentiates with `backward`, which would leave gradients in every parameter that `f` holds, and Square writes
    into the logits that it is given, and may ask about no image at all.
    """

    def model(x: Tensor) -> Tensor:
        if not len(x):
            return x.new_zeros(0, classes)
        if x.requires_grad and torch.is_grad_enabled():
            logits: Tensor = _ImageGradient.apply(x, f)  # type: ignore[no-untyped-call]
        else:
            logits = f(x).clone()
        if logits.shape != (len(x), classes):
            raise InputError(
                f"The classifier returns shape {tuple(logits.shape)}, expected {(len(x), classes)}: "
                "give AutoAttack the number of its logits as classes."
            )
        return logits

    return model


class _ImageGradient(torch.autograd.Function):
    """`f(x)`, through which a gradient reaches the images and nothing else."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.enable_grad():
            ctx.x = x.detach().requires_grad_()
            ctx.logits = f(ctx.x)
        return ctx.logits.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return torch.autograd.grad(ctx.logits, ctx.x, gradients)[0], None


def _can_tile(height: int, width: int) -> bool:
    """Whether Square's l2 start, 5 × 5 tiles of a fifth of the height, fits: it fails on tiles cut by the edge."""
    tile = height // 5
    margin = (height - 5 * tile) // 2
    return tile == 1 or (tile > 1 and all(margin + side // tile * tile <= side for side in (height, width)))


def _library() -> Any:
    try:
        import pyautoattack
    except ImportError:
        raise InputError("AutoAttack needs pyautoattack: pip install 'forefend[eval]'.") from None
    return pyautoattack
