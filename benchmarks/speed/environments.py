"""Start the process of each implementation in the environment that has its packages. No torch here."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, final

from benchmarks.speed.interleaving import BenchmarkError, BenchmarkProcess
from benchmarks.speed.results import Point

ROOT = Path(__file__).parents[2]

# Module in benchmarks/speed and environment of each baseline; "" for the environment of this process.
BASELINES: dict[str, tuple[str, str]] = {
    "torchattacks": ("torchattacks", "torchattacks"),
    "torchattacks, model prepared by us": ("torchattacks", "torchattacks"),
    "adv-lib": ("adv_lib", "adv-lib"),
    "foolbox": ("foolbox", ""),
    "foolbox, all images in every restart": ("foolbox", ""),
    "ART": ("art", "art"),
    "ART, all images in every restart": ("art", "art"),
    "AutoAttack": ("autoattack", ""),
    "plain loop": ("plain", ""),
}


class HasFiles(Protocol):
    """Anything that may miss a file."""

    def missing_file(self) -> str:
        """Return the first file that is missing, "" where none is."""


@final
class Environments:
    """The processes of all implementations; a context manager that ends them.

    Args:
        folder: contains the environments of the baselines, as `benchmarks/speed/environments.sh` creates them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: dict[str, BenchmarkProcess] = {}

    def __enter__(self) -> Environments:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._started.values():
            process.close()

    def process(self, implementation: str) -> BenchmarkProcess:
        """Return the process of an implementation; start it on the first call.

        Raises:
            BenchmarkError: its environment is missing, or it does not start.
        """
        if implementation not in self._started:
            self._started[implementation] = self._start(implementation)
        return self._started[implementation]

    def _start(self, implementation: str) -> BenchmarkProcess:
        module, name = BASELINES.get(implementation, ("worker", ""))
        python = self.folder / name / "bin" / "python" if name else Path(sys.executable)
        if not python.exists():
            raise BenchmarkError(f"there is no {python}: run benchmarks/speed/environments.sh {self.folder}")
        command = [str(python.absolute()), "-m", f"benchmarks.speed.{module}"]
        return BenchmarkProcess(command, {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])})


def missing_file(point: Point, models: Mapping[str, HasFiles]) -> str:
    """Return why a point cannot be measured because its model misses a file; "" where it can.

    Args:
        point: what to measure.
        models: by name; a case that names no model misses nothing.
    """
    named = [name for name in models if name in point.case]
    missing = models[max(named, key=len)].missing_file() if named else ""
    return missing and f"there is no {missing} (set FOREFEND_DATA or --data-dir)"


def machine() -> dict[str, Any]:
    """Describe the processor, its cores and its memory."""
    found: dict[str, Any] = {"system": platform.platform(), "cores": os.cpu_count(), "processor": platform.processor()}
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        entries = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in lines}
        found["processor"] = entries.get("model name", found["processor"])
        if "flags" in entries:  # x86 only
            found["bfloat16"] = bool({"avx512_bf16", "amx_bf16"} & set(entries["flags"].split()))
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        found["memory_gib"] = round(pages / 2**30, 1)
    except (OSError, ValueError):  # not Linux
        pass
    return found
