"""Where tasks are performed: in this process, in a few processes here, as Ray tasks, or as Slurm jobs.

Each context manager yields a function that takes a task and its place and returns a future of why the task failed, an
empty text if it did not. All machines must see the folder of the tasks under the same path.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch

from forefend.checks import InputError
from forefend.studies.tasks import Place, Task, perform

Submit = Callable[[Task, Place], "Future[str]"]
Workers = Callable[[], AbstractContextManager[Submit]]
HOURS = 24.0  # limit of one Slurm job; a job that reaches it is queued again and resumes


def attempt(task: Task, place: Place) -> str:
    """Perform a task whose needs are finished; return why it failed, or an empty text."""
    try:
        perform(task, place)
    except Exception as error:  # whatever it is, other cells do not depend on it
        reason = " ".join(str(error).split()) or type(error).__name__
        return reason if isinstance(error, ValueError) else f"{type(error).__name__}: {reason}"
    return ""


@contextmanager
def one_by_one() -> Iterator[Submit]:
    """Perform each task in this process, when it is submitted."""

    def submit(task: Task, place: Place) -> Future[str]:
        future: Future[str] = Future()
        future.set_result(attempt(task, place))
        return future

    yield submit


def processes(count: int) -> Workers:
    """Perform up to `count` tasks at once, each in a process of its own with one thread."""

    @contextmanager
    def started() -> Iterator[Submit]:
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        with ProcessPoolExecutor(count, context, torch.set_num_threads, (1,)) as pool:
            try:
                yield lambda task, place: pool.submit(attempt, task, place)
            except KeyboardInterrupt:
                for process in multiprocessing.active_children():
                    process.terminate()  # a training saves a checkpoint first
                raise

    return started


def on_ray(address: str | None = None) -> Workers:
    """Perform tasks on a Ray cluster, each with its CPUs and GPUs; Ray repeats one whose worker was lost.

    Args:
        address: of the cluster, such as `ray://host:10001` or `auto`; None starts a local one.

    Raises:
        InputError: Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise InputError("Ray is not installed: pip install 'forefend[cluster]'.") from None

    @contextmanager
    def started() -> Iterator[Submit]:
        given: dict[str, Any] = {"address": address} if address else {}
        with ray.init(**given, log_to_driver=False, ignore_reinit_error=True):
            remote = ray.remote(attempt)

            def submit(task: Task, place: Place) -> Future[str]:
                needs = {"num_cpus": task.cpus, "num_gpus": gpus(place)}
                return remote.options(**needs, max_retries=3, name=task.title()).remote(task, place).future()

            yield submit

    return started


def on_slurm(logs: Path, cluster: str | None = None) -> Workers:
    """Perform tasks as Slurm jobs; a preempted or timed-out job is queued again, and resumes.

    Args:
        logs: the folder of the jobs' files, which all machines see.
        cluster: `local` for processes here; None for Slurm.

    Raises:
        InputError: submitit is not installed.
    """
    try:
        import submitit
    except ImportError:
        raise InputError("submitit is not installed: pip install 'forefend[cluster]'.") from None

    @contextmanager
    def started() -> Iterator[Submit]:
        executor = submitit.AutoExecutor(folder=logs, cluster=cluster)
        jobs: list[Any] = []
        with ThreadPoolExecutor(max_workers=256) as waiting:

            def submit(task: Task, place: Place) -> Future[str]:
                resources = {"cpus_per_task": task.cpus, "gpus_per_node": gpus(place)}
                executor.update_parameters(name=task.title(), timeout_min=int(60 * HOURS), **resources)
                jobs.append(executor.submit(Requeued(), task, place))
                return waiting.submit(jobs[-1].result)

            try:
                yield submit
            except KeyboardInterrupt:
                for job in jobs:
                    job.cancel()
                raise

    return started


class Requeued:
    """`attempt` in a form that submitit calls again after a preemption."""

    def __call__(self, task: Task, place: Place) -> str:
        """Perform the task; return why it failed."""
        return attempt(task, place)

    def checkpoint(self, task: Task, place: Place) -> Any:
        """Return the same call, which resumes."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, task, place)


def gpus(place: Place) -> int:
    """The GPUs that a task needs: one where the device is CUDA."""
    return int(place.device == "cuda")
