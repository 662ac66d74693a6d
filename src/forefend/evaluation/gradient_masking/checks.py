"""The checks: each compares measurements with a bound. This module does not need torch.

A bound on a share of images is compared with the lower end of the 95 % interval of the measured
share. The checks attack few images, and must not fail by chance. Each result states the largest
count that it allows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

from forefend.evaluation.gradient_masking.check_report import FAILED, PASSED, SKIPPED, CheckResult
from forefend.evaluation.gradient_masking.evidence import (
    WHITE_BOX,
    Evidence,
    RecordedAccuracy,
    averages,
    largest_count,
    sees_defense,
)

Check = Callable[[Evidence], CheckResult]


def iterative_attacks_beat_a_single_step(evidence: Evidence) -> CheckResult:
    """If one step breaks more images than twenty, gradients do not lead to adversarial images."""
    one, many = (evidence.accuracy(name) for name in ("FGSM", "PGD-20"))
    return _bounded(
        "iterative attacks beat a single step",
        f"accuracy {_percent(one)} under FGSM, {_percent(many)} under PGD-20",
        (len(evidence.broken("FGSM")) - len(evidence.broken("PGD-20")), 0.02, evidence.n, _chance(evidence)),
        "the loss is not smooth along the steps: look for rounding in the defense, and attack it through BPDA",
    )


def more_steps_break_few_more(evidence: Evidence) -> CheckResult:
    """An attack that has not converged after twenty steps overestimates accuracy."""
    short, long = evidence.broken("PGD-20"), evidence.broken("PGD long")
    # With a random output, each attack breaks some images by chance: only counts can be compared.
    count = len(long) - len(short) if evidence.facts["random"] else len(long - short)
    more = _percent(count / evidence.n)
    return _bounded(
        "more steps and restarts break few more images",
        f"accuracy {_percent(evidence.accuracy('PGD-20'))} under PGD-20; more steps and restarts break {more} more",
        (count, 0.05, evidence.n, _chance(evidence)),
        "report the stronger attack, and add steps until the accuracy no longer falls",
    )


def accuracy_falls_to_chance(evidence: Evidence) -> CheckResult:
    """At a radius where any image may become gray, no classifier can do better than chance."""
    radius = max(evidence.curve)
    correct = evidence.n - len(evidence.curve[radius])
    at = f"{evidence.norm} {radius:g}, where any image may become gray"
    return _bounded(
        "accuracy falls to chance as the radius grows",
        f"accuracy {_percent(correct / evidence.n)} under PGD-20 at {at}",
        (correct, 1 / evidence.classes, evidence.n, 0),
        "the attack fails where every model must fail: look for gradients that are zero, wrong or noisy",
    )


def accuracy_does_not_rise_with_the_radius(evidence: Evidence) -> CheckResult:
    """Images that break inside a small ball break inside a larger one too."""
    points = sorted(evidence.curve.items())
    rise = max((len(before) - len(after) for (_, before), (_, after) in pairwise(points)), default=0)
    return _bounded(
        "accuracy does not rise with the radius",
        ", ".join(f"{_percent(1 - len(broken) / evidence.n)} at {radius:g}" for radius, broken in points),
        (rise, 0.02, evidence.n, _chance(evidence)),
        "use more steps at the larger radius: the attack did not explore the whole ball",
    )


def black_box_does_not_beat_white_box(evidence: Evidence) -> CheckResult:
    """An attack that uses less knowledge should not break more images."""
    return _bounded(
        "black-box attacks do not beat white-box attacks",
        *_beyond_white_box(evidence, "Square"),
        "the gradients are masked: report the black-box accuracy, and attack through BPDA or EOT",
    )


def transfer_does_not_beat_white_box(evidence: Evidence) -> CheckResult:
    """Adversarial images of another network should be weaker than those of the model."""
    names = [name for name in evidence.misclassified if name == "bypassed" or name.startswith("transfer")]
    return _bounded(
        "transfer attacks do not beat white-box attacks",
        *_beyond_white_box(evidence, *names),
        "gradients through the defense are worse than those around it: they are masked",
        skipped=not names,
    )


def bpda_does_not_beat_white_box(evidence: Evidence) -> CheckResult:
    """If the gradient of the identity works better than that of the defense, the latter is masked."""
    return _bounded(
        "BPDA does not beat white-box attacks",
        *_beyond_white_box(evidence, "BPDA"),
        "the defense hides its gradient: report the accuracy under BPDA",
        skipped="BPDA" not in evidence.misclassified,
    )


def noise_does_not_beat_attacks(evidence: Evidence) -> CheckResult:
    """Random search should break fewer images than an attack."""
    noise, attacks = _percent(evidence.accuracy("noise")), _percent(evidence.accuracy("none", *WHITE_BOX))
    beyond, count = _beyond_white_box(evidence, "noise")
    return _bounded(
        "random noise does not beat attacks",
        f"accuracy {noise} under noise, {attacks} under attacks; {beyond}",
        count,
        "the attacks do worse than random search: their gradients are wrong",
    )


def gradients_are_not_zero(evidence: Evidence) -> CheckResult:
    """Where the loss is constant in float32, an attack has no gradient to follow."""
    exists, probed = bool(evidence.facts["has_gradient"]), int(evidence.facts["probed"])
    zero = int(evidence.facts["zero"]) if exists else probed
    return _bounded(
        "input gradients are not zero",
        f"zero for {_percent(zero / probed)} of the images" if exists else "the output has no gradient",
        (zero, 0.05, probed, 0),
        "look for rounding, clamping or saturated logits; attack with the margin loss, through BPDA, or by queries",
    )


def autoattack_agrees(evidence: Evidence) -> CheckResult:
    """The reference attack should find little that the other attacks did not."""
    before, after = evidence.accuracy("none", *WHITE_BOX), evidence.accuracy("none", *WHITE_BOX, "AutoAttack")
    warnings = f"; its warnings: {' '.join(evidence.warnings)}" if evidence.warnings else ""
    return _bounded(
        "AutoAttack breaks few more images",
        f"accuracy {_percent(before)} under the white-box attacks, {_percent(after)} after AutoAttack{warnings}",
        (evidence.missed_by_white_box("AutoAttack"), 0.03, evidence.n, 0),
        "report the accuracy under AutoAttack",
    )


def recorded_accuracy_agrees(evidence: Evidence) -> CheckResult:
    """The attacks of these checks should not break many images that the records call robust."""
    recorded = evidence.recorded or RecordedAccuracy(())
    both = recorded.attacked & evidence.images
    robust = recorded.robust & both
    broken = robust & evidence.broken(*evidence.misclassified)
    measured = "not compared: " + ("the output is random" if both else "the records hold none of these images")
    if both and not evidence.facts["random"]:
        before, after = (_percent(len(part) / len(both)) for part in (robust, robust - broken))
        measured = f"on {len(both)} recorded images, accuracy {before} in the records, {after} after these attacks"
    if recorded.unidentified:
        measured += f"; {recorded.unidentified} older verdicts do not say what the network answered, and do not count"
    return _bounded(
        "the recorded accuracy agrees with these attacks",
        measured,
        (len(broken), 0.05, max(1, len(both)), 0),
        "the recorded attacks are too weak: evaluate with the suite standard",
        skipped=not both or bool(evidence.facts["random"]),
    )


def loss_rises_along_the_gradient(evidence: Evidence) -> CheckResult:
    """A small step along a correct gradient raises the loss, even if the defense rounds a little."""
    points = sorted(evidence.landscape.items())
    shares = [f"{_percent(up)} at {share:g} of the radius (random step: {_percent(r)})" for share, (up, r) in points]
    return CheckResult(
        "the loss rises along the gradient",
        f"share of images whose margin rises with one step: {', '.join(shares)}",
        "at least 80 %, and more than with a random step, at all distances but one",
        _status(sum(up >= 0.8 and up > random for _, (up, random) in points) >= len(points) - 1),
        "the gradient is not that of the model: check custom backward passes and random layers",
    )


def output_is_logits(evidence: Evidence) -> CheckResult:
    """A second softmax flattens the loss."""
    logits = bool(evidence.facts["logits"])
    return CheckResult(
        "the output is logits",
        "logits" if logits else "probabilities; no attack was run",
        "logits, or logarithms of probabilities",
        _status(logits),
        "give the network without its softmax",
    )


def output_is_deterministic_or_averaged(evidence: Evidence) -> CheckResult:
    """Attacks on a random model must average its output."""
    random, recorded = bool(evidence.facts["random"]), evidence.recorded
    averaged = not random or recorded is None or any(averages(trial) for trial in recorded.trials)
    return CheckResult(
        "the output is deterministic, or was attacked through EOT",
        ("random" if random else "deterministic")
        + (", and no records were given" if random and recorded is None else "")
        + ("" if averaged else ", and the records hold no attack through EOT"),
        "deterministic, or an attack through EOT in the records",
        SKIPPED if random and recorded is None else _status(averaged),
        "evaluate with the suite randomized",
    )


def no_optimization_inside(evidence: Evidence) -> CheckResult:
    """Plain attacks do not differentiate through a defense that computes gradients itself."""
    optimizes = bool(evidence.facts["optimizes"])
    return CheckResult(
        "no optimization runs in the forward pass",
        "the forward pass computes gradients" if optimizes else "none found",
        "none",
        _status(not optimizes),
        "use an adaptive attack that unrolls the optimization, and report it",
    )


def recorded_attacks_see_the_defense(evidence: Evidence) -> CheckResult:
    """An accuracy under attacks that ignore the defense says nothing about attacks that do not."""
    recorded = evidence.recorded
    seen = any(sees_defense(trial) for trial in recorded.trials) if recorded else False
    measured = f"{len(recorded.trials)} recorded attacks" if recorded else "no records were given"
    old = bool(recorded and recorded.unidentified and not recorded.trials)  # what is lost may have seen it
    return CheckResult(
        "recorded attacks follow gradients of the defense",
        measured + (", none of them through the defense" if recorded and not seen else ""),
        "at least one recorded attack that follows gradients through the defense, or through BPDA",
        _status(seen) if recorded and not old else SKIPPED,
        "evaluate with the suite standard",
    )


Bound = tuple[int, float, int, int]  # count, largest share, number of images, addition by chance


def _status(passed: bool) -> str:
    return PASSED if passed else FAILED


def _bounded(check: str, measured: str, bound: Bound, advice: str, *, skipped: bool = False) -> CheckResult:
    count, share, n, chance = bound
    limit = largest_count(n, share)
    text = f"at most {limit} of {n}, the largest count whose 95 % interval reaches {share:.0%}"
    text += f", and {chance} by chance, as the output is random" if chance else ""
    return CheckResult(check, measured, text, SKIPPED if skipped else _status(count <= limit + chance), advice)


def _beyond_white_box(evidence: Evidence, *names: str) -> tuple[str, Bound]:
    """Return in words and as a bound what trials break that no white-box attack broke."""
    n = evidence.n
    counts = {name: evidence.missed_by_white_box(name) for name in names if name in evidence.misclassified}
    parts = [f"{name} breaks {_percent(count / n)} that no gradient attack broke" for name, count in counts.items()]
    measured = "; ".join(parts) or "not run: there is no defense to bypass, and no surrogate"
    return measured, (max(counts.values(), default=0), 0.02, n, 0)


def _chance(evidence: Evidence) -> int:
    """Return two standard deviations of the difference of two random counts."""
    return math.isqrt(2 * evidence.n) if evidence.facts["random"] else 0


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


# Checks of any model, of a model that attacks can run on, and of a model that has a gradient.
GENERAL: tuple[Check, ...] = (
    recorded_attacks_see_the_defense,
    output_is_logits,
    output_is_deterministic_or_averaged,
    no_optimization_inside,
    gradients_are_not_zero,
)
WITH_ATTACKS: tuple[Check, ...] = (
    recorded_accuracy_agrees,
    noise_does_not_beat_attacks,
    black_box_does_not_beat_white_box,
    transfer_does_not_beat_white_box,
    bpda_does_not_beat_white_box,
)
WITH_GRADIENTS: tuple[Check, ...] = (
    loss_rises_along_the_gradient,
    iterative_attacks_beat_a_single_step,
    more_steps_break_few_more,
    accuracy_falls_to_chance,
    accuracy_does_not_rise_with_the_radius,
    autoattack_agrees,
)
