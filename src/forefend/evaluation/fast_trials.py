"""Swift: trials whose attacker computes with a prepared copy, which proposes; the subject itself decides."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from forefend.attacks.autoattack import AutoAttack
from forefend.evaluation.attack_runner import stop_at_success
from forefend.evaluation.trial import Averaged, Cascade, Seen, Suite, Trial, View, white_box
from forefend.models.optimized_copy import optimized_copy
from forefend.runtime.labels import label_of
from forefend.runtime.precision import effective_precision


@dataclass(frozen=True)
class Swift:
    """The attacker computes with a prepared copy of what it sees: it proposes, and the subject decides.

    For trials that run until an image is lost, where the subject is asked about each proposal; in fp32, which is the
    same function, also for an attack that is judged at its end and asks for logits alone.

    Args:
        view: what is copied.
        precision: of the copy, `fp32` or `bf16`.
    """

    view: View = white_box
    precision: str = "bf16"
    proposes = True  # it takes the view's place: an image meets the same random starts (`trial.starts_of`)

    def __call__(self, model: nn.Module) -> Seen:
        """The copy, made when the first images come."""
        seen = self.view(model)
        return _Preparing(seen, self.precision) if isinstance(seen, nn.Module) else seen

    def __str__(self) -> str:
        return f"{label_of(self.view)} in {self.precision}"


class _Preparing(nn.Module):
    """A network that is prepared on the first images it is given."""

    def __init__(self, network: nn.Module, precision: str) -> None:
        super().__init__()
        self.network, self.precision = network, precision
        self.prepared: list[nn.Module] = []  # not a child: it must not follow this module's moves

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        if not self.prepared:
            self.prepared.append(optimized_copy(self.network, x.detach()[:8], precision=self.precision))
        logits: Tensor = self.prepared[0](x)
        return logits


def swiftly(suite: Suite, precision: str = "bf16") -> list[Trial]:
    """The same suite, prepared copies proposing in the trials that run until an image is lost.

    AutoAttack in its standard form, which is judged at its end, is handed a copy too where that is the same function:
    in `fp32`.

    Args:
        suite: a protocol; a trial that runs After others stays as it is, and they are made swift.
        precision: of the copies that propose, `fp32` or `bf16`.
    """
    return [_swift(trial, precision) for trial in suite]


def _swift(trial: Trial, precision: str) -> Trial:
    if trial.before:
        return replace(trial, run=Cascade(tuple(swiftly(trial.before, precision))))
    same = precision == "fp32" and isinstance(trial.attack, AutoAttack) and not trial.attack.averages
    if trial.run is not stop_at_success and not same:
        return trial
    view = trial.sees.view if isinstance(trial.sees, Swift) else trial.sees
    return replace(trial, sees=Swift(view, precision))


def settled(trial: Trial, device: torch.device) -> Trial:
    """The trial as it is carried out on this device: its copies in the precision that they are made in there.

    Args:
        trial: one that may ask for bf16 where a copy in it would only be slower.
        device: where the subject is.
    """
    run = Cascade(tuple(settled(stage, device) for stage in trial.before)) if trial.before else trial.run
    return replace(trial, sees=_settled(trial.sees, device), run=run)


def falls_back(suite: Suite, device: torch.device) -> bool:
    """Whether a copy that a suite asks for in bf16 is made in fp32 on this device."""
    return any(str(settled(trial, device)) != str(trial) for trial in suite)


def _settled(view: View, device: torch.device) -> View:
    if isinstance(view, Averaged):
        return replace(view, view=_settled(view.view, device))
    return replace(view, precision=effective_precision(view.precision, device)) if isinstance(view, Swift) else view
