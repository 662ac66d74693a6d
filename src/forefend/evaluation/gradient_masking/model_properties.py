"""Checks of the model itself and of earlier attacks. This module does not need torch."""

from __future__ import annotations

from forefend.evaluation.gradient_masking.check_report import FAILED, SKIPPED, CheckResult, percent_of, status_of
from forefend.evaluation.gradient_masking.evidence import Evidence, averages, sees_defense


def model_works_on_clean_images(evidence: Evidence) -> CheckResult:
    """Attacks measure nothing on a model that answers without regard to the image."""
    return CheckResult(
        "the model works on clean images",
        " ".join(evidence.faults) or f"accuracy {percent_of(evidence.clean)}",
        "well above chance, more than one class, and at most 20 points below the classifier without its defense",
        status_of(not evidence.faults),
        "repair the defense first: robust accuracy says nothing about a model that does not work",
    )


def outputs_do_not_depend_on_the_batch(evidence: Evidence) -> CheckResult:
    """A verdict on an image must not depend on the images that are attacked with it."""
    mixes = bool(evidence.facts["mixes"])
    return CheckResult(
        "outputs do not depend on the batch",
        "an image has other logits beside other images; no attack was run" if mixes else "they do not",
        "the logits of each image depend on that image alone",
        status_of(not mixes),
        "give BatchNorm running statistics, and remove from forward what mixes the images of a batch",
    )


def output_is_logits(evidence: Evidence) -> CheckResult:
    """A second softmax flattens the loss."""
    logits = bool(evidence.facts["logits"])
    return CheckResult(
        "the output is logits",
        "logits" if logits else "probabilities; no attack was run",
        "logits, or logarithms of probabilities",
        status_of(logits),
        "give the network without its softmax",
    )


def output_is_deterministic_or_averaged(evidence: Evidence) -> CheckResult:
    """Attacks on a random model must average its output."""
    random, recorded = bool(evidence.facts["random"]), evidence.recorded
    if not evidence.facts["repeats"]:
        return CheckResult(
            "the output is deterministic, or was attacked through EOT",
            "other outputs for equal images, under an equal seed of torch too",
            "outputs that an equal seed repeats",
            FAILED,
            "remove what forward changes from call to call, or draw from torch's generators",
        )
    averaged = not random or recorded is None or any(averages(trial) for trial in recorded.trials)
    return CheckResult(
        "the output is deterministic, or was attacked through EOT",
        ("random" if random else "deterministic")
        + (", and no records were given" if random and recorded is None else "")
        + ("" if averaged else ", and the records hold no attack through EOT"),
        "deterministic, or an attack through EOT in the records",
        SKIPPED if random and recorded is None else status_of(averaged),
        "evaluate with the suite randomized",
    )


def no_optimization_inside(evidence: Evidence) -> CheckResult:
    """Plain attacks do not differentiate through a defense that computes gradients itself."""
    optimizes = bool(evidence.facts["optimizes"])
    return CheckResult(
        "no optimization runs in the forward pass",
        "the forward pass computes gradients" if optimizes else "none found",
        "none",
        status_of(not optimizes),
        "use an adaptive attack that unrolls the optimization, and report it",
    )


def recorded_attacks_see_the_defense(evidence: Evidence) -> CheckResult:
    """An accuracy under attacks that ignore the defense is not evidence against attacks that do not."""
    recorded = evidence.recorded
    seen = any(sees_defense(trial) for trial in recorded.trials) if recorded else False
    measured = f"{len(recorded.trials)} recorded attacks" if recorded else "no records were given"
    old = bool(recorded and recorded.unidentified and not recorded.trials)  # what is lost may have seen it
    return CheckResult(
        "recorded attacks follow gradients of the defense",
        measured + (", none of them through the defense" if recorded and not seen else ""),
        "at least one recorded attack that follows gradients through the defense, or through BPDA",
        status_of(seen) if recorded and not old else SKIPPED,
        "evaluate with the suite standard",
    )
