"""Perform the tasks of a study in the order of their needs, here in one or a few processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait

import torch

from forefend.runtime.formatting import duration
from forefend.studies.tasks import Place, Task, perform, with_needs


def perform_all(tasks: Sequence[Task], place: Place, processes: int = 1) -> dict[str, str]:
    """Perform tasks and all that they need; a task that fails stops only those that need it.

    Args:
        tasks: the tasks.
        place: where they keep their results.
        processes: how many tasks are performed at once, each in one process.

    Returns:
        By key of a failed task, why it failed.
    """
    every = with_needs(tasks)
    todo = {key: task for key, task in every.items() if task.seconds(place) is None}
    print(f"{len(every) - len(todo)} of {len(every)} tasks are finished in {place.runs}", flush=True)
    failures: dict[str, str] = {}
    if processes > 1:
        waiting = dict(todo)
        while waiting:  # again with new processes if one ended
            _share(todo, waiting, place, failures, processes)
        return failures
    for key, task in todo.items():
        if _is_ready(key, task, (), failures):  # they are in the order of their needs
            _note(key, task, place, failures, _attempt(task, place))
    return failures


def _share(
    todo: Mapping[str, Task], waiting: dict[str, Task], place: Place, failures: dict[str, str], processes: int
) -> None:
    """Give each waiting task to one of several processes as soon as its needs are finished."""
    running: dict[Future[str], str] = {}
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with ProcessPoolExecutor(processes, context, torch.set_num_threads, (1,)) as pool:
        try:
            while waiting or running:
                for key, task in list(waiting.items()):
                    if len(running) < processes and _is_ready(key, task, {*waiting, *running.values()}, failures):
                        running[pool.submit(_attempt, task, place)] = key
                    if key in failures or key in running.values():
                        del waiting[key]
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    key = running.pop(future)
                    _note(key, todo[key], place, failures, _reason(future))
        except BrokenExecutor:
            return
        except KeyboardInterrupt:
            for process in multiprocessing.active_children():
                process.terminate()  # a training saves a checkpoint first
            raise


def _reason(future: Future[str]) -> str:
    try:
        return future.result()
    except BrokenExecutor:
        return "its process ended, perhaps for want of memory: run the same command again"


def _is_ready(key: str, task: Task, unfinished: Collection[str], failures: dict[str, str]) -> bool:
    """Whether what a task needs is finished; where that failed, the task has failed too."""
    needs = {need.key: need for need in task.needs()}
    if failed := next((need for need in needs if need in failures), None):
        failures[key] = f"{needs[failed].title()} failed: {failures[failed]}"
    return needs.keys().isdisjoint({*unfinished, *failures})


def _attempt(task: Task, place: Place) -> str:
    """Perform a task; return why it failed, or an empty text."""
    try:
        perform(task, place)
    except Exception as error:  # whatever it is, other cells do not depend on it
        reason = " ".join(str(error).split()) or type(error).__name__
        return reason if isinstance(error, ValueError) else f"{type(error).__name__}: {reason}"
    return ""


def _note(key: str, task: Task, place: Place, failures: dict[str, str], reason: str) -> None:
    if reason:
        failures[key] = reason
        print(f"FAILED {task.title()}: {reason}", flush=True)
    else:
        print(f"finished {task.title()}, {duration(task.seconds(place) or 0)}", flush=True)
