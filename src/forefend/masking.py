"""Masking: the gate. Is a robust accuracy real, or do the gradients that the attacks followed lead nowhere?

After Carlini et al., On evaluating adversarial robustness (1902.06705), Athalye et al. (1802.00420) and appendix A of
RTFE (2209.06931). Nothing here proves robustness: a number that fails is not to be trusted, and one that passes has
only not been caught.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from . import probes
from .attacks.apgd import APGD
from .attacks.autoattack import AutoAttack, flags
from .attacks.noise import Noise
from .attacks.pgd import PGD, fgsm
from .attacks.square import Square
from .data import Images
from .docket import device_of
from .draw import Draw
from .evaluation import Subject, verdicts
from .findings import ALWAYS, CHECKS, Evidence, Finding
from .losses import dlr, margin
from .modes import frozen
from .running import to_the_end, until_lost
from .threat import L2, Linf, ThreatModel
from .trial import Averaged, Suite, Surrogate, Trial, View, oblivious, through_bpda, white_box

EOT = 8  # forward passes that an attacker of a randomised pipeline averages here


def check(
    subject: Subject,
    images: Images,
    threat: ThreatModel,
    *,
    recorded: Sequence[str] | None = None,
    surrogates: Mapping[str, nn.Module] | None = None,
    folder: Path | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> list[Finding]:
    """Try to catch masked gradients.

    Args:
        subject: whose robustness is in question.
        images: test images; a hundred or two will do.
        threat: the threat model of the number in question.
        recorded: identities of the trials that it comes from, as records hold them; None where there is no such number.
        surrogates: other classifiers, by name, that examples may transfer from.
        folder: where the verdicts are recorded, so that an interrupted check goes on.
        seed: of the attacks' random numbers.
        batch_size: images attacked at once.

    Raises:
        InputError: the images or the subject cannot be used.
    """
    network = frozen(subject.network)
    x, y, index = (t.to(device_of(network)) for t in images.batch(torch.arange(min(len(images), batch_size))))
    facts = _facts(network, x, y, threat, Draw(index, seed, "landscape"))
    view: View = Averaged(EOT) if facts["random"] else white_box
    suite = _black_box(threat, view, surrogates or {})
    if facts["flows"]:
        suite = [*_white_box(threat, len(images.classes), view), *suite, *_curve(threat, view, images.shape)]
    keep = {"folder": folder, "seed": seed, "batch_size": batch_size}
    found = verdicts(subject, images, suite, **keep)  # type: ignore[arg-type]
    lost = {v.attack: v.lost for v in found if v.radius in (0.0, threat.radius)}
    curve = {v.radius: v.lost for v in found if v.attack == "PGD-20"}
    evidence = Evidence(len(images), len(images.classes), threat.norm, lost, curve, recorded, facts)
    if facts["flows"]:
        evidence = _with_autoattack(evidence, threat, subject, images, **keep)  # type: ignore[arg-type]
    return [look(evidence) for look in CHECKS if look in ALWAYS or facts["flows"]]


def _facts(network: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: ThreatModel, draw: Draw) -> dict[str, float]:
    """What the probes find, in numbers."""
    with torch.enable_grad():
        flows = network(x[:2].detach().requires_grad_()).requires_grad
    facts = {
        "flows": float(flows),
        "random": float(probes.is_random(network, x)),
        "logits": float(probes.gives_logits(network, x)),
        "optimises": float(probes.optimises_inside(network, x[:2])),
    }
    if flows:
        facts["zero"] = float(probes.zero_gradients(network, x, y).double().mean())
        rising = probes.uphill(network, x, y, threat, draw, loss=margin)
        facts["uphill"], facts["random uphill"] = rising[min(rising)]
    return facts


def _white_box(threat: ThreatModel, classes: int, view: View) -> Suite:
    """Attacks by gradients of what is deployed."""
    run, loss = (to_the_end if isinstance(view, Averaged) else until_lost), (dlr if classes > 2 else margin)
    pgd, long = PGD(threat, 20, 2.5 * threat.radius / 20), PGD(threat, 100, 2.5 * threat.radius / 100)
    return [
        Trial("FGSM", fgsm(threat), threat, sees=view),
        Trial("PGD-20", pgd, threat, sees=view, run=run),
        Trial("PGD-20 margin", replace(pgd, loss=margin), threat, sees=view, run=run),
        Trial("PGD-100 x3", long, threat, restarts=3, sees=view, run=run),
        Trial("APGD-100", APGD(threat, 100, loss=loss), threat, restarts=2, sees=view, run=run),
    ]


def _black_box(threat: ThreatModel, view: View, surrogates: Mapping[str, nn.Module]) -> Suite:
    """Attacks that need no gradient of what is deployed, or take another one's."""
    run = to_the_end if isinstance(view, Averaged) else until_lost
    pgd = PGD(threat, 20, 2.5 * threat.radius / 20)
    return [
        Trial("noise", Noise(threat), threat, restarts=10),
        Trial("Square", Square(threat, 1000), threat, sees=view, run=run),
        Trial("bypassed", pgd, threat, sees=oblivious),
        Trial("BPDA", replace(pgd, loss=margin), threat, sees=through_bpda_of(view), run=to_the_end),
        *(
            Trial(f"transfer from {name}", pgd, threat, sees=Surrogate(other, name))
            for name, other in surrogates.items()
        ),
    ]


def through_bpda_of(view: View) -> View:
    """BPDA, averaged where the view is."""
    return Averaged(EOT, through_bpda) if isinstance(view, Averaged) else through_bpda


def _curve(threat: ThreatModel, view: View, shape: tuple[int, int, int]) -> Suite:
    """PGD at half the radius, at twice it, and at one where no image can be told from a grey one."""
    run = to_the_end if isinstance(view, Averaged) else until_lost
    kind, half_box = (Linf, 0.5) if isinstance(threat, Linf) else (L2, 0.5 * math.prod(shape) ** 0.5)
    radii = [threat.radius / 2, *(r for r in (2 * threat.radius,) if r < half_box), half_box]
    return [
        Trial("PGD-20", PGD(at, 20, 2.5 * at.radius / 20), at, sees=view, run=run)
        for at in (kind(radius) for radius in radii)
    ]


def _with_autoattack(
    evidence: Evidence,
    threat: ThreatModel,
    subject: Subject,
    images: Images,
    *,
    folder: Path | None,
    seed: int,
    batch_size: int,
) -> Evidence:
    """AutoAttack on what no white-box trial broke, and what its own checks say."""
    white = evidence.white()
    rows = torch.tensor([row for row, i in enumerate(images.index.tolist()) if i not in white], dtype=torch.int64)
    if not len(rows):
        return replace(evidence, lost={**evidence.lost, "AutoAttack": white})
    attack = AutoAttack(threat, evidence.classes, "rand" if evidence.facts["random"] else "standard")
    trial = Trial("AutoAttack", attack, threat)
    with flags() as flagged:
        found = verdicts(subject, images.subset(rows), [trial], folder=folder, seed=seed, batch_size=batch_size)
    return replace(
        evidence, lost={**evidence.lost, "AutoAttack": white | found[-1].lost}, flagged=tuple(dict.fromkeys(flagged))
    )
