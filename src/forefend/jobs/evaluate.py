"""Measure a run, or bare classifiers, under a named suite of attacks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from .. import records, tables
from ..checks import InputError, choose
from ..cost import cost_of
from ..data import Images
from ..evaluation import check, evaluate
from ..launch import joined, may_start, ready
from ..modes import device_of
from ..processes import processes
from ..subject import Subject
from ..suites import SUITES, Suite, Surrogate, Swift, Terms, swiftly
from ..swift import falls_back
from ..threads import allowed, choose_threads, one_thread, processes_in_memory
from ..threat import ThreatModel
from ..wasserstein import Wasserstein, parse
from .subjects import images_for, measure_alone, placed, subjects_of, surrogates_of

WORTH_STARTING = 60.0  # seconds of work from which other processes are worth their start


def run(options: Any) -> str:
    """Evaluate, leave records and summary; returns the table.

    Raises:
        InputError: options that do not fit together, or subjects or images that cannot be used.
    """
    choose_threads()
    suite_of = choose(options.suite, SUITES, "suite")
    run = records.Run(Path(options.run)) if options.run else None
    images = images_for(options, run)
    subjects, threat = subjects_of(options, run)
    if not options.allow_weak_classifier:
        measure_alone(subjects, options)
    if not (options.threat or threat):
        raise InputError(
            "The run was trained under no threat model: say which to measure with --threat, as Linf:8/255."
        )
    if not subjects:
        raise InputError(f"{options.run} knows no classifier to stand behind it: name one with --classifiers.")
    threats = list(dict.fromkeys(parse(text) for text in options.threat or [threat]))
    surrogates = surrogates_of(options)
    placed([*(subject.network for subject in subjects), *surrogates.values()], options.device)
    suite = _suite(options, suite_of, Terms(threats, len(images.classes), surrogates))
    folder = Path(options.out) if options.out else _folder(options, run, subjects, threats, suite)
    check(subjects, images, suite, folder=folder, seed=options.seed)
    ready()
    with joined(_shared(options, subjects, images, suite, folder), options.words):
        cells = evaluate(
            subjects,
            images,
            suite,
            folder=folder,
            seed=options.seed,
            batch_size=options.batch_size,
            allow_weak=True,  # they were measured above, on more images than may be asked for here
        )
        return tables.text(cells) if not processes().rank else ""


def _shared(options: Any, subjects: Sequence[Subject], images: Images, suite: Suite, folder: Path) -> int:
    """Say what is done and what it costs; how many processes shall share it, each with a batch at least.

    Raises:
        InputError: more processes than GPUs, or than cores.
    """
    among = processes()
    if among.rank:
        return 1
    cost = cost_of(subjects, images, suite, batch_size=options.batch_size)
    count = options.processes or (_fitting(subjects, suite) if cost.seconds > WORTH_STARTING else 1)
    count = min(count, math.ceil(len(images) / options.batch_size)) if may_start() else 1
    if options.processes and may_start():
        _check_asked(options, subjects, count)
    if count > 1:
        with one_thread():
            cost = cost_of(subjects, images, suite, batch_size=options.batch_size)
    shared = f", shared by {count} processes" if count > 1 else ""
    print(f"{len(subjects)} subjects, {len(images)} images{shared} -> {folder}", flush=True)
    print(cost.among(max(count, among.count)), flush=True)
    return count


def _check_asked(options: Any, subjects: Sequence[Subject], count: int) -> None:
    """Refuse more processes than what they would run on; say where there are batches for `count` of them alone.

    Raises:
        InputError: more processes than GPUs, or than cores.
    """
    held, what = (torch.cuda.device_count(), "GPUs") if _on_gpu(subjects) else (math.ceil(allowed()), "cores")
    if count > held:
        raise InputError(f"{count} processes on {held} {what}: give --processes no more than those.")
    if count < options.processes:
        told = f"Batches of {options.batch_size} images keep {count} of {options.processes} processes busy"
        print(f"{told}: give a smaller --batch-size.", flush=True)


def _fitting(subjects: Sequence[Subject], suite: Suite) -> int:
    """How many processes suit this machine: as many as torch would take threads, and as memory holds.

    A GPU is kept busy by one. And where one trial hands on to another what it left, who shares a batch, and so
    AutoAttack's luck, hangs on how many there are: that is not for the machine to decide.
    """
    if _on_gpu(subjects) or any(trial.before for trial in suite):
        return 1
    return min(torch.get_num_threads(), processes_in_memory())


def _on_gpu(subjects: Sequence[Subject]) -> bool:
    return any(device_of(subject.network).type == "cuda" for subject in subjects)


def _suite(options: Any, suite_of: Callable[[Terms], Suite], terms: Terms) -> Suite:
    """The protocol, refused where it does not fit, or an option would change nothing in it."""
    _check_threats(options.suite, terms.threats)
    suite, name = suite_of(terms), f"The suite {options.suite}"
    if terms.surrogates and not any(isinstance(trial.sees, Surrogate) for trial in suite):
        raise InputError(f"{name} attacks no surrogates: leave --surrogates away, or take black-box.")
    if options.suite == "transfer" and not terms.surrogates:
        raise InputError(f"{name} attacks from other classifiers too: name one with --surrogates.")
    if not options.precision:
        return suite
    swift = swiftly(suite, options.precision)
    if not any(isinstance(trial.sees, Swift) or trial.before for trial in swift):
        raise InputError(
            f"{name} judges its attacks at their end, where {options.precision} is of no use: leave --precision away."
        )
    return swift


def _check_threats(suite: str, threats: Sequence[ThreatModel]) -> None:
    """Refuse a threat model that the suite has no attack for."""
    for threat in threats:
        if isinstance(threat, Wasserstein):
            raise InputError(
                f"The suite {suite} does not attack in {threat}: jatp attacks in Wasserstein at its l∞ radius, and "
                "forefend.attacks.wasserstein from Python at any."
            )
        if suite == "jatp" and threat.norm != "Linf":
            raise InputError(f"JATP's attacks are l∞, and {threat} is not: give --threat as Linf:8/255.")


def _folder(
    options: Any,
    run: records.Run | None,
    subjects: Sequence[Subject],
    threats: Sequence[ThreatModel],
    suite: Suite,
) -> Path:
    """Where an evaluation goes that was given no place: named after all that could make it another one."""
    names = "-".join(dict.fromkeys(subject.name.replace(" ", "-").replace("/", "-") for subject in subjects))
    spelled = "-".join(str(threat).replace("/", "_").replace(":", "") for threat in threats)
    parent = (run.folder if run else Path(options.runs)) / "evaluations"
    computed = options.precision
    if any(falls_back(suite, device_of(subject.network)) for subject in subjects):
        computed = "fp32"  # bf16 was asked for, if only by the suite
    protocol = [options.suite, *filter(None, [computed]), *(Path(word).stem for word in options.surrogates)]
    parts = [Path(options.data).stem, names[:80], *protocol, spelled, str(options.images or "all"), f"s{options.seed}"]
    return parent / "-".join(parts)
