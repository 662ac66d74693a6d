"""The trackers of accelerate, by name, and how each continues the same run when a training resumes."""

from __future__ import annotations

import importlib.util
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from accelerate.tracking import (
    GeneralTracker,
    MLflowTracker,
    TensorBoardTracker,
    TrackioTracker,
    WandBTracker,
)

from forefend.checks import InputError, choose
from forefend.runtime.run_folder import Run

PROJECT = "forefend"  # of the runs of trackers that know projects


@dataclass(frozen=True)
class TrackerKind:
    """One tracker that has a name.

    Args:
        package: the Python package that it needs.
        install: what installs that.
        make: returns the tracker of a run. It receives the identity of the tracker's run to continue, empty for a new
            one, and the last step that it was told.
        identity: returns that identity from a started tracker.
    """

    package: str
    install: str
    make: Callable[[Run, str, int], Any]
    identity: Callable[[Any], Any]


def _tensorboard(run: Run, identity: str, step: int) -> Any:
    """Write `tensorboard/` in the run; what older files hold of later steps does not count."""
    return TensorBoardTracker("tensorboard", run.folder, purge_step=step + 1)


def _wandb(run: Run, identity: str, step: int) -> Any:
    return WandBTracker(PROJECT, name=run.folder.name, id=identity or None, resume="allow", dir=str(run.folder))


def _mlflow(run: Run, identity: str, step: int) -> Any:
    return MLflowTracker(PROJECT, run_name=run.folder.name, run_id=identity or None)


def _trackio(run: Run, identity: str, step: int) -> Any:
    """Name the run after the folder and a random part, as trackio knows runs by their names alone."""
    name = identity or f"{run.folder.name}-{uuid.uuid4().hex[:8]}"
    return TrackioTracker(PROJECT, name=name, resume="allow", embed=False)


TRACKERS: dict[str, TrackerKind] = {
    "tensorboard": TrackerKind("tensorboard", "'forefend[track]'", _tensorboard, lambda tracker: ""),
    "wandb": TrackerKind("wandb", "wandb", _wandb, lambda tracker: tracker.tracker.id),
    "mlflow": TrackerKind("mlflow", "mlflow", _mlflow, lambda tracker: tracker.tracker.info.run_id),
    "trackio": TrackerKind("trackio", "trackio", _trackio, lambda tracker: tracker.tracker.name),
}


def check_trackers(given: Any, run: object) -> list[Any]:
    """Return trackers as a list, each a name or a tracker of accelerate.

    Args:
        given: names of `TRACKERS`, or accelerate's `GeneralTracker` objects, one or several.
        run: the run whose log they receive.

    Raises:
        InputError: an unknown name, a package that is not installed, two trackers of one name, or no run.
    """
    found: list[Any] = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    for one in found:
        if isinstance(one, GeneralTracker):
            continue
        if not isinstance(one, str):
            raise InputError(f"A tracker is a {type(one).__name__}, expected a name or a GeneralTracker of accelerate.")
        kind = choose(one, TRACKERS, "tracker")
        if importlib.util.find_spec(kind.package) is None:
            raise InputError(f"Tracking with {one} needs {kind.package}: pip install {kind.install}.")
    names = [name_of(one) for one in found]
    if len(set(names)) < len(names):
        raise InputError(f"The trackers are {', '.join(names)}, expected each name once.")
    if found and not run:
        raise InputError(f"{names[0]} is told what the log of a run says: give a folder, as run='runs/mine'.")
    return found


def name_of(tracker: Any) -> str:
    """Return the name of a tracker that is given by name or as an object."""
    return tracker if isinstance(tracker, str) else str(tracker.name)
