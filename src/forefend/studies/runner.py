"""Perform the tasks of a study in the order of their needs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait

from forefend.runtime.formatting import duration
from forefend.studies.tasks import Place, Task, with_needs
from forefend.studies.workers import Submit, Workers, one_by_one


def perform_all(
    tasks: Sequence[Task], place: Place, workers: Workers = one_by_one, at_once: int | None = 1
) -> dict[str, str]:
    """Perform tasks and all that they need; a task that fails stops only those that need it.

    Args:
        tasks: the tasks.
        place: where they keep their results.
        workers: where they are performed.
        at_once: how many may be submitted and not ended; None for all whose needs are finished.

    Returns:
        By key of a failed task, why it failed.
    """
    every = with_needs(tasks)
    todo = {key: task for key, task in every.items() if task.seconds(place) is None}
    print(f"{len(every) - len(todo)} of {len(every)} tasks are finished in {place.runs}", flush=True)
    failures: dict[str, str] = {}
    waiting = dict(todo)
    while waiting:  # again with new workers if one was lost
        try:
            with workers() as submit:
                _share(todo, waiting, place, failures, submit, at_once or len(todo))
        except BrokenExecutor:
            continue
    return failures


def _share(
    todo: Mapping[str, Task],
    waiting: dict[str, Task],
    place: Place,
    failures: dict[str, str],
    submit: Submit,
    at_once: int,
) -> None:
    """Submit each waiting task as soon as its needs are finished."""
    running: dict[Future[str], str] = {}
    while waiting or running:
        for key, task in list(waiting.items()):
            ready = len(running) < at_once and _is_ready(key, task, {*waiting, *running.values()}, failures)
            if ready or key in failures:
                del waiting[key]
            if ready:
                running[submit(task, place)] = key
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            key = running.pop(future)
            _note(key, todo[key], place, failures, _reason(future))


def _reason(future: Future[str]) -> str:
    try:
        return future.result()
    except Exception as error:  # the worker itself
        return f"its worker was lost, perhaps for want of memory ({type(error).__name__}): run the same command again"


def _is_ready(key: str, task: Task, unfinished: Collection[str], failures: dict[str, str]) -> bool:
    """Whether what a task needs is finished; where that failed, the task has failed too."""
    needs = {need.key: need for need in task.needs()}
    if failed := next((need for need in needs if need in failures), None):
        failures[key] = f"{needs[failed].title()} failed: {failures[failed]}"
    return needs.keys().isdisjoint({*unfinished, *failures})


def _note(key: str, task: Task, place: Place, failures: dict[str, str], reason: str) -> None:
    if reason:
        failures[key] = reason
        print(f"FAILED {task.title()}: {reason}", flush=True)
    else:
        print(f"finished {task.title()}, {duration(task.seconds(place) or 0)}", flush=True)
