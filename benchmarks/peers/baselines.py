"""PGD of four libraries, each with settings that make it the algorithm of `forefend.attacks.pgd.PGD`.

The algorithm starts at x or at a random image of the ball. It steps along the gradient of the summed cross-entropy, by
its sign (l∞) or its direction (l2), projects to the ball and clips to [0, 1]. It returns the last iterate. Each
function documents the settings that this requires, and the differences that no setting removes. The libraries are
imported where they are used, because they are installed in separate environments.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor, nn

from forefend.attacks.pgd import PGD, random_start
from forefend.runtime.rng import KeyedRNG

# (network, x, y, the attack whose settings to use, source of our own random start) -> x_adv
Baseline = Callable[[nn.Module, Tensor, Tensor, PGD, KeyedRNG], Tensor]


def ours(network: nn.Module, x: Tensor, y: Tensor, pgd: PGD, rng: KeyedRNG) -> Tensor:
    """Run our attack; in l2 a random start lies on the sphere, as in MadryLab's robustness library."""
    return pgd(network, x, y, rng=rng)


def foolbox(network: nn.Module, x: Tensor, y: Tensor, pgd: PGD, rng: KeyedRNG, restarts: int = 1) -> Tensor:
    """Run foolbox with `abs_stepsize`, because its default is relative to the radius.

    The unclipped result is the last iterate. Restarts use `repeat`, which attacks every image each time. In l2 a random
    start is uniform in the ball, and a gradient shorter than 1e-12 makes a shorter step.
    """
    library = import_module("foolbox")
    attacks = {"Linf": library.attacks.LinfPGD, "L2": library.attacks.L2PGD}
    attack = attacks[pgd.threat.norm](abs_stepsize=pgd.step_size, steps=pgd.steps, random_start=at_random(pgd))
    attack = attack.repeat(restarts) if restarts > 1 else attack
    model = library.PyTorchModel(network, bounds=(0, 1))
    last, _, _ = attack(model, x, library.criteria.Misclassification(y), epsilons=pgd.threat.radius)
    return last


def torchattacks(network: nn.Module, x: Tensor, y: Tensor, pgd: PGD, rng: KeyedRNG) -> Tensor:
    """Run torchattacks, whose loss is the mean over the batch; the factor changes neither sign nor direction.

    In l2 `eps_for_division` is added to the length of the gradient, so it is set to 1e-20 instead of 1e-10. Squares of
    smaller numbers vanish in float32 anyway. A random start has a random direction and a length uniform in [0, radius].
    """
    repair_torchvision()
    library = import_module("torchattacks")
    settings = {"eps": pgd.threat.radius, "alpha": pgd.step_size, "steps": pgd.steps, "random_start": at_random(pgd)}
    if pgd.threat.norm == "L2":
        settings |= {"eps_for_division": 1e-20}
        return library.PGDL2(network, **settings)(x, y)
    return library.PGD(network, **settings)(x, y)


def art(network: nn.Module, x: Tensor, y: Tensor, pgd: PGD, rng: KeyedRNG, restarts: int = 1) -> Tensor:
    """Run ART with true labels (else it attacks the predictions), one random start, and one batch at a time.

    Restarts use `num_random_init`, which attacks every image each time. ART clips to [0, 1] before it projects to the
    ball. In l∞ this gives the same image, in l2 another one inside both sets. In l2 a random start is uniform in the
    ball.
    """
    attacks, estimators = import_module("art.attacks.evasion"), import_module("art.estimators.classification")
    with torch.no_grad():
        classes = network(x[:1]).shape[1]
    loss = nn.CrossEntropyLoss(reduction="sum")
    shape = tuple(x.shape[1:])
    box = (0.0, 1.0)
    device = "gpu" if x.is_cuda else "cpu"
    estimator = estimators.PyTorchClassifier(network, loss, shape, classes, clip_values=box, device_type=device)
    attack = attacks.ProjectedGradientDescentPyTorch(
        estimator,
        norm={"Linf": "inf", "L2": 2}[pgd.threat.norm],
        eps=pgd.threat.radius,
        eps_step=pgd.step_size,
        max_iter=pgd.steps,
        num_random_init=restarts if at_random(pgd) else 0,
        batch_size=len(x),
        verbose=False,
    )
    return torch.from_numpy(attack.generate(x.cpu().numpy(), y.cpu().numpy())).to(x.device)


BASELINES: dict[str, Baseline] = {"ours": ours, "foolbox": foolbox, "torchattacks": torchattacks, "art": art}


def at_random(pgd: PGD) -> bool:
    """Return whether an attack has a random start."""
    return pgd.start is random_start


def repair_torchvision() -> None:
    """Make torchvision importable where its compiled operators do not load; torchattacks imports it.

    The published build requires the libraries of CUDA, which a CPU build of torch lacks. Its Python files can be
    imported once two of its operators are declared, though not defined.
    """
    try:
        import_module("torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        for operator in ("nms", "qnms"):
            _DECLARED.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import_module("torchvision")


_DECLARED = torch.library.Library("torchvision", "FRAGMENT")  # its operators exist as long as this object
