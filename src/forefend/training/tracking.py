"""Trackers that follow a training: each is told the lines of its log once, and none can stop or delay it."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from accelerate.tracking import TensorBoardTracker

from forefend.checks import InputError
from forefend.runtime.files import complete_lines, read_versioned, write_versioned
from forefend.runtime.formatting import markdown_table
from forefend.runtime.run_folder import Run
from forefend.training.trackers import TRACKERS, name_of

STATE = "tracking.json"
NEW: dict[str, Any] = {"run": "", "step": 0}  # of a tracker that was told nothing
WAIT = 60.0  # seconds that the end of a training waits for its trackers
Pictures = Mapping[str, Any]  # by title, uint8 arrays `(B, H, W, 3)`


class Tracking:
    """Tells trackers the lines of a run's `train.jsonl`, once each, also when the training resumes.

    Args:
        run: the run.
        trackers: what `check_trackers` returns.
        config: the configuration of the training, for new runs of a tracker.
    """

    def __init__(self, run: Run, trackers: Sequence[Any], config: Mapping[str, Any]) -> None:
        self.run, self.trackers, self.config = run, trackers, config
        self.followers: list[_Follower] = []

    @contextmanager
    def started(self, step: int) -> Iterator[None]:
        """Start the trackers and tell them what they missed; finish them afterwards.

        Args:
            step: the step at which the training starts or resumes. A tracker that was told of later ones, as after a
                checkpoint was deleted, begins a new run.
        """
        notes = _Notes(self.run)
        for given in self.trackers:
            try:
                self.followers.append(_Follower(given, notes, self.config, step))
            except Exception as error:  # of any library
                _warn(name_of(given), self.run, _reason(error))
        self.tell(dict)
        try:
            yield
        finally:
            for follower in self.followers:
                follower.end()
            latest = time.monotonic() + WAIT
            for follower in self.followers:
                follower.leave(max(0.0, latest - time.monotonic()))

    def tell(self, pictures: Callable[[], Pictures]) -> None:
        """Tell each tracker the lines that it was not told yet; this only queues them.

        Args:
            pictures: makes pictures of the training, for the last line; called if a tracker takes pictures.
        """
        lines = [json.loads(line) for line in complete_lines(self.run.folder / "train.jsonl")]
        shown = pictures() if any(follower.takes_pictures for follower in self.followers) else {}
        for follower in self.followers:
            follower.tell(lines, shown)


class _Notes:
    """The run and the last step of each tracker, in `tracking.json`."""

    def __init__(self, run: Run) -> None:
        self.run, self.lock = run, threading.Lock()
        self.held: dict[str, dict[str, Any]] = {}
        with suppress(
            InputError, LookupError, TypeError, ValueError, AttributeError
        ):  # no file, or a damaged one: all runs are new
            held = read_versioned(run.folder / STATE)["trackers"]
            self.held = {name: {"run": str(one["run"]), "step": int(one["step"])} for name, one in held.items()}

    def write(self, name: str, identity: str, step: int) -> None:
        with self.lock:
            self.held[name] = {"run": identity, "step": step}
            write_versioned(self.run.folder / STATE, {"trackers": self.held})


class _Follower:
    """One tracker, in a thread of its own; one that fails is named, and told nothing more until training resumes."""

    def __init__(self, given: Any, notes: _Notes, config: Mapping[str, Any], step: int) -> None:
        self.name, self.notes, self.config = name_of(given), notes, config
        held = notes.held.get(self.name, NEW)
        self.new = held["step"] > step or held is NEW
        self.identity, self.step = (NEW if self.new else held).values()
        self.kind = TRACKERS.get(given) if isinstance(given, str) else None
        self.tracker = self.kind.make(notes.run, self.identity, self.step) if self.kind else given
        self.jobs: queue.SimpleQueue[tuple[Sequence[Mapping[str, Any]], Pictures] | None] = queue.SimpleQueue()
        self.left = False
        self.thread = threading.Thread(target=self._follow, name=f"tracker {self.name}", daemon=True)
        self.thread.start()

    @property
    def takes_pictures(self) -> bool:
        return self.thread.is_alive() and hasattr(self.tracker, "log_images")

    def tell(self, lines: Sequence[Mapping[str, Any]], pictures: Pictures) -> None:
        self.jobs.put((lines, pictures))

    def end(self) -> None:
        self.jobs.put(None)

    def leave(self, seconds: float) -> None:
        """Wait until all is told, at most some seconds."""
        self.thread.join(seconds)
        if self.thread.is_alive():
            self.left = True
            _warn(self.name, self.notes.run, f"it does not answer for {WAIT:.0f} seconds")

    def _follow(self) -> None:
        try:
            self._start()
            while job := self.jobs.get():
                self._tell(*job)
            self.tracker.finish()
        except Exception as error:  # of any library and any server
            if not self.left:
                _warn(self.name, self.notes.run, _reason(error))

    def _start(self) -> None:
        self.tracker.start()
        self.identity = str(self.kind.identity(self.tracker)) if self.kind else ""
        self._note(self.step)
        if self.new:
            _configure(self.tracker, dict(_flat(self.config)))

    def _tell(self, lines: Sequence[Mapping[str, Any]], pictures: Pictures) -> None:
        new = [line for line in lines if line["step"] > self.step]
        for line in new:
            values = {key: value for key, value in _flat(line) if key != "step" and _is_number(value)}
            self._note(line["step"])  # before, so that a killed training repeats none
            try:
                self.tracker.log(values, step=line["step"])
            except Exception:
                self._note(self.step)
                raise
            self.step = line["step"]
        if new and pictures and hasattr(self.tracker, "log_images"):
            # accelerate passes TensorBoard's arrays on as they are, whose axes it must be told
            options = {"dataformats": "NHWC"} if isinstance(self.tracker, TensorBoardTracker) else {}
            self.tracker.log_images(dict(pictures), step=self.step, **options)

    def _note(self, step: int) -> None:
        if not self.left:  # the training has ended, and another may have the folder
            self.notes.write(self.name, self.identity, step)


def _warn(name: str, run: Run, reason: str) -> None:
    print(
        f"WARNING: {name} is told nothing more of this training ({reason}), which goes on; "
        f"{run.folder / 'train.jsonl'} holds every value.",
        flush=True,
    )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0][:200]


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
