"""Hosts: where the bench's subjects live. Ours here; peers each in an environment that has them. No torch here."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, final

from benchmarks.speed.interleaving import BenchmarkError, BenchmarkProcess
from benchmarks.speed.results import Point

SOURCE = Path(__file__).parents[1]
BENCHMARKS = SOURCE.parent / "benchmarks" / "speed"  # of the source tree; an installed package has none


# Peers by subject: their module in benchmarks/speed, and the environment that has them; "" for our own.
PEERS: dict[str, tuple[str, str]] = {
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


class Needy(Protocol):
    """What may lack a file."""

    def lacks(self) -> str:
        """The file that is not there, "" where nothing is missing."""


@final
class Hosts:
    """The environments, and the processes that were started in them; used in a `with`, which ends them.

    Args:
        folder: in which each peer's environment lies, as `benchmarks/speed/environments.sh` makes them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: dict[str, BenchmarkProcess] = {}

    def __enter__(self) -> Hosts:
        return self

    def __exit__(self, *why: object) -> None:
        for subject in self._started.values():
            subject.close()

    def subject(self, name: str) -> BenchmarkProcess:
        """The subject's process, waiting to be asked: the one that was started before, if it was.

        Raises:
            SubjectError: its environment or its module is not there, or it does not start.
        """
        if name not in self._started:
            self._started[name] = self._start(name)
        return self._started[name]

    def _start(self, subject: str) -> BenchmarkProcess:
        environment = {"PYTHONPATH": os.pathsep.join([str(SOURCE), str(SOURCE.parent)])}
        if subject not in PEERS:
            return BenchmarkProcess([sys.executable, "-m", "benchmarks.speed.worker"], environment)
        module, name = PEERS[subject]
        if not (BENCHMARKS / f"{module}.py").exists():
            raise BenchmarkError("this is an installed package, and benchmarks/ is in the source tree alone")
        python = self.folder / name / "bin" / "python" if name else Path(sys.executable)
        if not python.exists():
            raise BenchmarkError(f"there is no {python}: benchmarks/speed/environments.sh {self.folder} makes it")
        return BenchmarkProcess([str(python.absolute()), "-m", f"benchmarks.speed.{module}"], environment)


def lacks(point: Point, targets: Mapping[str, Needy]) -> str:
    """Why a point cannot be measured here, "" where it can: its target's file is missing.

    Args:
        point: what is to be measured.
        targets: by name; a case that names none lacks nothing.
    """
    named = [name for name in targets if name in point.case]
    missing = targets[max(named, key=len)].lacks() if named else ""
    return missing and f"there is no {missing} (FOREFEND_DATA or --data-dir says where)"


def machine() -> dict[str, Any]:
    """The processor, as its maker calls it, and how much there is of it."""
    found: dict[str, Any] = {"system": platform.platform(), "cores": os.cpu_count(), "processor": platform.processor()}
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in lines}
        found["processor"] = flags.get("model name", found["processor"])
        if "flags" in flags:  # an x86 processor's
            found["bfloat16"] = bool({"avx512_bf16", "amx_bf16"} & set(flags["flags"].split()))
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        found["memory_gib"] = round(pages / 2**30, 1)
    except (OSError, ValueError):  # not Linux
        pass
    return found
