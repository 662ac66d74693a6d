"""The number of processes that share an evaluation."""

from __future__ import annotations

import math

import torch

from forefend.checks import InputError
from forefend.evaluation.cost_estimate import cost_of
from forefend.evaluation.evaluate import Evaluation
from forefend.models.freezing import device_of
from forefend.runtime.distributed import process_group
from forefend.runtime.formatting import counted
from forefend.runtime.launch import may_start
from forefend.runtime.threads import available_cores, processes_in_memory, torch_threads

WORTH_STARTING = 60.0  # seconds of work above which further processes are started by default


def processes_for(evaluation: Evaluation, processes: int | None = None) -> int:
    """Print the cost of an evaluation; return the number of processes.

    Args:
        evaluation: the evaluation to run.
        processes: the number requested; None for as many as this machine runs well.

    Raises:
        InputError: more processes were requested than there are GPUs, or cores.
    """
    group = process_group()
    if group.rank:
        return 1
    models, images, suite = evaluation.models, evaluation.images, evaluation.trials
    batch_size = evaluation.batch_size
    cost = cost_of(models, images, suite, batch_size=batch_size)
    on_gpu = any(device_of(model.network).type == "cuda" for model in models)
    count = processes or 1
    if not processes and cost.seconds > WORTH_STARTING:
        # One process uses a whole GPU. Where a trial cuts its batches from what another one leaves, the
        # number of processes changes them and so the results of AutoAttack: only the user may choose it.
        alone = on_gpu or any(trial.stages and not trial.until_success for trial in suite)
        count = 1 if alone else min(torch.get_num_threads(), processes_in_memory())
    count = min(count, math.ceil(len(images) / batch_size)) if may_start() else 1
    if processes and may_start():
        _check_processes(processes, count, batch_size, on_gpu)
    if count > 1:
        with torch_threads(1):
            cost = cost_of(models, images, suite, batch_size=batch_size)
    shared = f", shared by {count} processes" if count > 1 else ""
    sizes = f"{counted(len(models), 'model')}, {counted(len(images), 'image')}"
    print(f"{sizes}{shared} -> {evaluation.folder}", flush=True)
    print(cost.among(max(count, group.count)), flush=True)
    return count


def _check_processes(requested: int, count: int, batch_size: int, on_gpu: bool) -> None:
    available, unit = (torch.cuda.device_count(), "GPUs") if on_gpu else (math.ceil(available_cores()), "cores")
    if count > available:
        raise InputError(f"{count} processes on {available} {unit}: give --processes at most {available}.")
    if count < requested:
        print(f"Batches of {batch_size} images use {count} of {requested} processes: reduce --batch-size.", flush=True)
