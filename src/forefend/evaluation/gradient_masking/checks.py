"""The checks: each compares measurements with a bound. This module does not need torch.

A bound on a share of images is compared with the lower end of the 95 % interval of the measured
share. The checks attack few images, and must not fail by chance. Each result states the largest
count that it allows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise

from forefend.evaluation.gradient_masking.check_report import SKIPPED, CheckResult, percent_of, status_of
from forefend.evaluation.gradient_masking.evidence import (
    REFERENCES,
    WHITE_BOX,
    Evidence,
    RecordedAccuracy,
    largest_count,
)
from forefend.evaluation.gradient_masking.model_properties import (
    model_works_on_clean_images,
    no_optimization_inside,
    output_is_deterministic_or_averaged,
    output_is_logits,
    outputs_do_not_depend_on_the_batch,
    recorded_attacks_see_the_defense,
)

Check = Callable[[Evidence], CheckResult]


def iterative_attacks_beat_a_single_step(evidence: Evidence) -> CheckResult:
    """If one step breaks more images than twenty, gradients do not lead to adversarial images."""
    one, many = (evidence.accuracy(name) for name in ("FGSM", "PGD-20"))
    return _bounded(
        "iterative attacks beat a single step",
        f"accuracy {percent_of(one)} under FGSM, {percent_of(many)} under PGD-20",
        (len(evidence.broken("FGSM")) - len(evidence.broken("PGD-20")), 0.02, evidence.n, _chance(evidence)),
        "the loss is not smooth along the steps: look for rounding in the defense, and attack it through BPDA",
    )


def more_steps_break_few_more(evidence: Evidence) -> CheckResult:
    """An attack that has not converged after twenty steps overestimates accuracy."""
    short, long = evidence.broken("PGD-20"), evidence.broken("PGD long")
    # With a random output, each attack breaks some images by chance: only counts can be compared.
    count = len(long) - len(short) if evidence.facts["random"] else len(long - short)
    more = percent_of(count / evidence.n)
    return _bounded(
        "more steps and restarts break few more images",
        f"accuracy {percent_of(evidence.accuracy('PGD-20'))} under PGD-20; more steps and restarts break {more} more",
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
        f"accuracy {percent_of(correct / evidence.n)} under PGD-20 at {at}",
        (correct, 1 / evidence.classes, evidence.n, 0),
        "the attack fails where every model must fail: look for gradients that are zero, wrong or noisy",
    )


def accuracy_does_not_rise_with_the_radius(evidence: Evidence) -> CheckResult:
    """Images that break inside a small ball break inside a larger one too."""
    points = sorted(evidence.curve.items())
    rise = max((len(before) - len(after) for (_, before), (_, after) in pairwise(points)), default=0)
    return _bounded(
        "accuracy does not rise with the radius",
        ", ".join(f"{percent_of(1 - len(broken) / evidence.n)} at {radius:g}" for radius, broken in points),
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
    noise, attacks = percent_of(evidence.accuracy("noise")), percent_of(evidence.accuracy("none", *WHITE_BOX))
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
        f"zero for {percent_of(zero / probed)} of the images" if exists else "the output has no gradient",
        (zero, 0.05, probed, 0),
        "look for rounding, clamping or saturated logits; attack with the margin loss, through BPDA, or by queries",
    )


def stronger_attack_agrees(evidence: Evidence) -> CheckResult:
    """The attack that runs last should find little that the other attacks did not."""
    name = next((name for name in REFERENCES if name in evidence.misclassified), REFERENCES[0])
    before, after = evidence.accuracy("none", *WHITE_BOX), evidence.accuracy("none", *WHITE_BOX, name)
    warnings = f"; its warnings: {' '.join(evidence.warnings)}" if evidence.warnings else ""
    after_it = f"{percent_of(after)} after {name}{warnings}"
    publish = "" if name == "AutoAttack" else "; a number to publish needs AutoAttack, the suite standard"
    return _bounded(
        "a stronger attack breaks few more images",
        f"accuracy {percent_of(before)} under the white-box attacks, {after_it}{publish}",
        (evidence.missed_by_white_box(name), 0.03, evidence.n, 0),
        "report the accuracy under AutoAttack, the suite standard",
    )


def recorded_accuracy_agrees(evidence: Evidence) -> CheckResult:
    """The attacks of these checks should not break many images that the records call robust."""
    recorded = evidence.recorded or RecordedAccuracy(())
    both = recorded.attacked & evidence.images
    robust = recorded.robust & both
    broken = robust & evidence.broken(*evidence.misclassified)
    measured = "not compared: " + ("the output is random" if both else "the records hold none of these images")
    if both and not evidence.facts["random"]:
        before, after = (percent_of(len(part) / len(both)) for part in (robust, robust - broken))
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
    shares = [
        f"{percent_of(up)} at {share:g} of the radius (random step: {percent_of(r)})" for share, (up, r) in points
    ]
    return CheckResult(
        "the loss rises along the gradient",
        f"share of images whose margin rises with one step: {', '.join(shares)}",
        "at least 80 %, and more than with a random step, at all distances but one",
        status_of(sum(up >= 0.8 and up > random for _, (up, random) in points) >= len(points) - 1),
        "the gradient is not that of the model: check custom backward passes and random layers",
    )


Bound = tuple[int, float, int, int]  # count, largest share, number of images, addition by chance


def _bounded(check: str, measured: str, bound: Bound, advice: str, *, skipped: bool = False) -> CheckResult:
    count, share, n, chance = bound
    limit = largest_count(n, share)
    text = f"at most {limit} of {n}, the largest count whose 95 % interval reaches {share:.0%}"
    text += f", and {chance} by chance, as the output is random" if chance else ""
    return CheckResult(check, measured, text, SKIPPED if skipped else status_of(count <= limit + chance), advice)


def _beyond_white_box(evidence: Evidence, *names: str) -> tuple[str, Bound]:
    """Return in words and as a bound what trials break that no white-box attack broke."""
    n = evidence.n
    counts = {name: evidence.missed_by_white_box(name) for name in names if name in evidence.misclassified}
    parts = [f"{name} breaks {percent_of(count / n)} that no gradient attack broke" for name, count in counts.items()]
    measured = "; ".join(parts) or "not run: there is no defense to bypass, and no surrogate"
    return measured, (max(counts.values(), default=0), 0.02, n, 0)


def _chance(evidence: Evidence) -> int:
    """Return two standard deviations of the difference of two random counts."""
    return math.isqrt(2 * evidence.n) if evidence.facts["random"] else 0


def results_of(checks: Iterable[Check], evidence: Evidence) -> list[CheckResult]:
    """Return the results of some checks; without an image to attack, attacks prove nothing."""
    results = {check: check(evidence) for check in checks}
    if evidence.facts.get("black_box"):
        for check in (each for each in results if each in OF_GRADIENTS + WITH_GRADIENTS):
            measured = "not measured: a black box gives no gradient, and nothing is known of its inside"
            results[check] = replace(results[check], status=SKIPPED, measured=measured)
    if evidence.misclassified and evidence.broken("none") == evidence.images:
        for check in (each for each in results if each in WITH_ATTACKS + WITH_GRADIENTS and results[each].passed):
            measured = "not measured: no clean image is classified correctly"
            results[check] = replace(results[check], status=SKIPPED, measured=measured)
    return list(results.values())


# Checks of any model, of a model that attacks can run on, and of a model that has a gradient.
GENERAL: tuple[Check, ...] = (
    model_works_on_clean_images,
    outputs_do_not_depend_on_the_batch,
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
    stronger_attack_agrees,
)
# Those beside WITH_GRADIENTS that compare with attacks along gradients, or look inside.
OF_GRADIENTS: tuple[Check, ...] = (
    recorded_attacks_see_the_defense,
    no_optimization_inside,
    gradients_are_not_zero,
    noise_does_not_beat_attacks,
    black_box_does_not_beat_white_box,
    transfer_does_not_beat_white_box,
    bpda_does_not_beat_white_box,
)
