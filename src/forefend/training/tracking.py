"""Trackers that follow a training: each is told the lines of its log once, and none can stop it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from accelerate.tracking import TensorBoardTracker

from forefend.checks import InputError
from forefend.runtime.files import complete_lines, read_versioned, write_versioned
from forefend.runtime.formatting import markdown_table
from forefend.runtime.run_folder import Run
from forefend.training.trackers import TRACKERS, name_of

STATE = "tracking.json"
NEW: dict[str, Any] = {"run": "", "step": 0}  # of a tracker that was told nothing
Pictures = Mapping[str, Any]  # by title, uint8 arrays `(B, H, W, 3)`


@dataclass
class _Told:
    """A started tracker, its identity, and the last step that it was told."""

    tracker: Any
    identity: str
    step: int


class Tracking:
    """Tells trackers the lines of a run's `train.jsonl`, once each, also when the training resumes.

    The run and the last step of each tracker are in `tracking.json`. A tracker that fails is named once and told
    nothing more; when the training resumes, it is told what it missed.

    Args:
        run: the run.
        trackers: what `check_trackers` returns.
        config: the configuration of the training, for new runs of a tracker.
    """

    def __init__(self, run: Run, trackers: list[Any], config: Mapping[str, Any]) -> None:
        self.run, self.trackers, self.config = run, trackers, config
        self.following: dict[str, _Told] = {}
        self.state: dict[str, dict[str, Any]] = {}

    @contextmanager
    def started(self, step: int) -> Iterator[None]:
        """Start the trackers and tell them what they missed; finish them afterwards.

        Args:
            step: the step at which the training starts or resumes. A tracker that was told of later ones, as after a
                checkpoint was deleted, begins a new run.
        """
        with suppress(InputError, LookupError, TypeError, ValueError):  # no file, or a damaged one: all runs are new
            self.state = dict(read_versioned(self.run.folder / STATE)["trackers"])
        for given in self.trackers:
            with self._guarded(name_of(given)):
                self._start(given, step)
        self.tell(dict)
        try:
            yield
        finally:
            for name, told in list(self.following.items()):
                with self._guarded(name):
                    told.tracker.finish()

    def tell(self, pictures: Callable[[], Pictures]) -> None:
        """Tell each tracker the lines that it was not told yet.

        Args:
            pictures: makes pictures of the training for the last of them; called if a tracker takes pictures.
        """
        lines = [json.loads(line) for line in complete_lines(self.run.folder / "train.jsonl")]
        shown: Pictures | None = None
        for name, told in list(self.following.items()):
            with self._guarded(name):
                new = [line for line in lines if line["step"] > told.step]
                for line in new:
                    self._tell(name, told, line)
                if new and hasattr(told.tracker, "log_images"):
                    shown = pictures() if shown is None else shown
                    _show(told.tracker, shown, lines[-1]["step"])

    def _start(self, given: Any, step: int) -> None:
        name = name_of(given)
        held = self.state.get(name, NEW)
        held = NEW if held["step"] > step else held
        kind = TRACKERS.get(given) if isinstance(given, str) else None
        tracker = kind.make(self.run, held["run"], held["step"]) if kind else given
        tracker.start()
        told = _Told(tracker, str(kind.identity(tracker)) if kind else "", held["step"])
        self._note(name, told)
        self.following[name] = told
        if held is NEW:
            _configure(tracker, dict(_flat(self.config)))

    def _tell(self, name: str, told: _Told, line: Mapping[str, Any]) -> None:
        """Tell a tracker one line; it is noted before, so that a killed training repeats none."""
        before, told.step = told.step, line["step"]
        self._note(name, told)
        try:
            values = {key: value for key, value in _flat(line) if key != "step" and _is_number(value)}
            told.tracker.log(values, step=told.step)
        except Exception:
            told.step = before
            self._note(name, told)
            raise

    def _note(self, name: str, told: _Told) -> None:
        self.state[name] = {"run": told.identity, "step": told.step}
        write_versioned(self.run.folder / STATE, {"trackers": self.state})

    @contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        """Name a tracker that fails in any way, once, and tell it nothing more."""
        try:
            yield
        except Exception as error:  # of any library and any server
            self.following.pop(name, None)
            reason = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0][:200]
            print(
                f"WARNING: {name} is told nothing more of this training ({reason}), which goes on; "
                f"{self.run.folder / 'train.jsonl'} holds every value.",
                flush=True,
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested values by their path, such as `loss/preprocessor`; lists become text."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}/")
        else:
            yield f"{above}{key}", value if value is None or isinstance(value, str | int | float) else str(value)


def _configure(tracker: Any, config: Mapping[str, Any]) -> None:
    """Store the configuration of a new run; TensorBoard's own way would add a second run for it."""
    if isinstance(tracker, TensorBoardTracker):
        rows = [(key, str(value)) for key, value in config.items()]
        tracker.log({"configuration": markdown_table(("option", "value"), rows)}, step=0)
    else:
        tracker.store_init_configuration(dict(config))


def _show(tracker: Any, pictures: Pictures, step: int) -> None:
    """Show pictures; accelerate passes TensorBoard's arrays on as they are, whose axes it must be told."""
    options = {"dataformats": "NHWC"} if isinstance(tracker, TensorBoardTracker) else {}
    if pictures:
        tracker.log_images(dict(pictures), step=step, **options)
