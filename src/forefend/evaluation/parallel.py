from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from forefend.checks import InputError
from forefend.data import ImageDataset
from forefend.evaluation.cost_estimate import cost_of
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.trial import Suite
from forefend.models.freezing import device_of
from forefend.runtime.distributed import process_group
from forefend.runtime.launch import may_start
from forefend.runtime.threads import available_cores, one_thread, processes_in_memory

WORTH_STARTING = 60.0  # seconds of work from which other processes are worth their start


def share(options: Any, models: Sequence[EvaluatedModel], images: ImageDataset, suite: Suite, folder: Path) -> int:
    """Say what is done and what it costs; how many processes shall share it, each with a batch at least.

    Raises:
        InputError: more processes than GPUs, or than cores.
    """
    among = process_group()
    if among.rank:
        return 1
    cost = cost_of(models, images, suite, batch_size=options.batch_size)
    count = options.processes or (_fitting(models, suite) if cost.seconds > WORTH_STARTING else 1)
    count = min(count, math.ceil(len(images) / options.batch_size)) if may_start() else 1
    if options.processes and may_start():
        _check_asked(options, models, count)
    if count > 1:
        with one_thread():
            cost = cost_of(models, images, suite, batch_size=options.batch_size)
    shared = f", shared by {count} processes" if count > 1 else ""
    print(f"{len(models)} subjects, {len(images)} images{shared} -> {folder}", flush=True)
    print(cost.among(max(count, among.count)), flush=True)
    return count


def _check_asked(options: Any, models: Sequence[EvaluatedModel], count: int) -> None:
    """Refuse more processes than what they would run on; say where there are batches for `count` of them alone.

    Raises:
        InputError: more processes than GPUs, or than cores.
    """
    held, what = (torch.cuda.device_count(), "GPUs") if _on_gpu(models) else (math.ceil(available_cores()), "cores")
    if count > held:
        raise InputError(f"{count} processes on {held} {what}: give --processes no more than those.")
    if count < options.processes:
        told = f"Batches of {options.batch_size} images keep {count} of {options.processes} processes busy"
        print(f"{told}: give a smaller --batch-size.", flush=True)


def _fitting(models: Sequence[EvaluatedModel], suite: Suite) -> int:
    """How many processes suit this machine: as many as torch would take threads, and as memory holds.

    A GPU is kept busy by one. And where one trial hands on to another what it left, who shares a batch, and so
    AutoAttack's luck, hangs on how many there are: that is not for the machine to decide.
    """
    if _on_gpu(models) or any(trial.before for trial in suite):
        return 1
    return min(torch.get_num_threads(), processes_in_memory())


def _on_gpu(models: Sequence[EvaluatedModel]) -> bool:
    return any(device_of(model.network).type == "cuda" for model in models)
