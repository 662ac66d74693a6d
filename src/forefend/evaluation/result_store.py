"""Results of images: read from the files of a folder, computed by several processes, appended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from forefend.data import ImageDataset
from forefend.data.dataset import image_digests
from forefend.evaluation.records import Record
from forefend.models.output_checks import failure_in_network
from forefend.runtime import files
from forefend.runtime.distributed import ProcessGroup, process_group
from forefend.runtime.folders import locked
from forefend.runtime.formatting import duration
from forefend.runtime.progress import Progress

SECONDS = 5.0  # between two lines where results come one by one; a kill loses no more than these
Result = TypeVar("Result")
Reader = Callable[[Path, files.DamagedLines], Sequence[Any]]  # reads the results in a file


def key_of(network: str, images: ImageDataset) -> str:
    """Return what a verdict depends on besides trial, seed and image: the set and the network's identity."""
    return f"{images.name}/{images.split}:{network}"


class DigestedImages:
    """A dataset that keeps a digest of each image it has read, by dataset index."""

    def __init__(self, images: ImageDataset) -> None:
        self.images = images
        self.row_of = {number: row for row, number in enumerate(images.index.tolist())}
        self.in_work: set[int] = set()  # what was fetched since it was cleared
        self._digests: dict[int, str] = {}

    def fetch(self, rows: Tensor, device: torch.device | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return images, labels and dataset index of some rows, on `device`."""
        x, y, index = self.images.batch(rows)
        self.in_work.update(index.tolist())
        self._digests.update(zip(index.tolist(), image_digests(x, y), strict=True))
        return x.to(device), y.to(device), index.to(device)

    def rows(self, index: Sequence[int]) -> Tensor:
        """Return the row numbers of some images."""
        return torch.tensor([self.row_of[number] for number in index], dtype=torch.int64)

    def digest(self, number: int) -> str:
        """Return the digest of one image."""
        if number not in self._digests:
            self.fetch(self.rows([number]))
        return self._digests[number]

    def holds(self, number: int, digest: str) -> bool:
        """Whether the image of this index exists and still has this digest."""
        return number in self.row_of and self.digest(number) == digest


@dataclass(frozen=True)
class ResultStore:
    """The results in a folder, and the processes that compute the missing ones."""

    folder: Path | None  # None keeps results in memory alone
    stem: str  # `records` for `records.jsonl`
    lines: Sequence[Any]  # what the files held when the store was opened
    processes: ProcessGroup

    def complete(
        self,
        title: str,
        images: DigestedImages,
        index: Sequence[int],
        known: Mapping[int, Result],
        compute: Callable[[Tensor], Iterator[dict[int, Result]]],
        lines_of: Callable[[dict[int, Result]], Sequence[Any]],
        *,
        batch_size: int,
        summary: Callable[[dict[int, Result]], str],
    ) -> dict[int, Result]:
        """Return the result of each image, by dataset index; compute and append missing ones.

        Args:
            title: of the progress bar.
            images: the dataset.
            index: dataset index of the images.
            known: results that are not computed again.
            compute: from row numbers to results, in any order.
            lines_of: from results to the lines that record them.
            batch_size: images in a batch, as batches are dealt to processes.
            summary: from all results to the text printed at the end.

        Raises:
            InputError: a network raised an error, which is chained; what was found before is recorded.
        """
        missing = images.rows([number for number in index if number not in known])
        mine = self.processes.mine(missing, batch_size)
        found: dict[int, Result] = {}
        images.in_work.clear()
        with Progress(title, len(mine), unit="images", enabled=not self.processes.rank) as progress:
            try:
                for part in self._recorded(compute(mine), lines_of, batch_size) if len(mine) else ():
                    found |= part
                    progress.advance(len(part))
            except Exception as error:
                batch = sorted(images.in_work - found.keys())
                failure = failure_in_network(error, title, batch, kept=self.folder is not None)
                raise failure from (error if failure is not error else error.__cause__)
        everything = {**known, **self.processes.all_of(found)}
        results = {number: everything[number] for number in index}
        if len(missing):
            progress.print(f"{title}: {summary(results)}, {duration(progress.elapsed)}")
        return results

    def _recorded(
        self,
        parts: Iterator[dict[int, Result]],
        lines_of: Callable[[dict[int, Result]], Sequence[Any]],
        batch_size: int,
    ) -> Iterator[dict[int, Result]]:
        """Yield results and append them, several to a line where they come one by one."""
        pending: dict[int, Result] = {}
        written = time.monotonic()
        try:
            for part in parts:
                pending |= part
                yield part
                if len(pending) >= batch_size or time.monotonic() - written > SECONDS:
                    self._append(lines_of(pending))
                    pending, written = {}, time.monotonic()
        finally:
            if pending:
                self._append(lines_of(pending))

    def _append(self, lines: Sequence[Any]) -> None:
        if self.folder:
            files.append(part_of(self.folder, self.stem, self.processes.rank), *lines)

    def verdicts(self, key: str, trial: str, seed: int, images: DigestedImages) -> dict[int, bool]:
        """Return the recorded verdicts on images that have not changed since."""
        return self._recorded_values(key, trial, seed, images, lambda record: record.misclassified)

    def predictions(self, key: str, trial: str, seed: int, images: DigestedImages) -> dict[int, int]:
        """Return the recorded classes of images that have not changed since."""
        return self._recorded_values(key, trial, seed, images, lambda record: record.predicted)

    def moved(self, key: str, trial: str, seed: int, images: DigestedImages) -> dict[int, list[float]]:
        """Return how far images that have not changed since were moved."""
        return self._recorded_values(key, trial, seed, images, lambda record: record.moved)

    def _recorded_values(
        self,
        key: str,
        trial: str,
        seed: int,
        images: DigestedImages,
        values: Callable[[Record], Sequence[Result]],
    ) -> dict[int, Result]:
        found: dict[int, tuple[Result, str]] = {}
        for record in self.lines:
            if (record.model, record.trial, record.seed) == (key, trial, seed):
                found |= dict(zip(record.index, zip(values(record), record.images, strict=False), strict=False))
        return {number: value for number, (value, digest) in found.items() if images.holds(number, digest)}


def record_of(
    key: str,
    trial: str,
    seed: int,
    verdicts: Mapping[int, bool],
    images: DigestedImages,
    predicted: Iterable[int] = (),
    moved: Mapping[int, list[float]] | None = None,
) -> Record:
    """Return the line that records some verdicts, on clean images with the predicted classes.

    `moved` is how far each image was moved, where it is known of all.
    """
    digests = [images.digest(i) for i in verdicts]
    known = [moved[i] for i in verdicts] if moved and moved.keys() >= verdicts.keys() else []
    return Record(key, trial, seed, list(verdicts), list(verdicts.values()), digests, list(predicted), known)


def hold(folder: Path | None) -> AbstractContextManager[None]:
    """Hold a folder for the processes of this evaluation; the first one has the lock."""
    return locked(folder) if folder and not process_group().rank else nullcontext()


@contextmanager
def open_store(folder: Path | None, stem: str, read: Reader) -> Iterator[ResultStore]:
    """Open the results in a folder; at the end all processes' results are in one file.

    Damaged lines are set aside.

    Raises:
        InputError: another evaluation writes to the folder.
    """
    processes = process_group()
    with hold(folder):
        lines = _lines(folder, stem, processes, read) if folder else []
        yield ResultStore(folder, stem, lines, processes)
        if folder:
            processes.wait()
            if not processes.rank:
                _gather(folder, stem)
            processes.wait()


def _lines(folder: Path, stem: str, processes: ProcessGroup, read: Reader) -> Sequence[Any]:
    """Return the results in a folder, in every process."""
    whole = part_of(folder, stem, 0)
    lines: Sequence[Any] = []
    if not processes.rank:
        _gather(folder, stem)
        lines = read(whole, files.set_aside)
    processes.wait()
    if processes.rank:
        lines = read(whole, files.leave)
    processes.wait()  # no process appends before all have read
    return lines


def _gather(folder: Path, stem: str) -> None:
    """Put what several processes recorded into one file."""
    for path in sorted(folder.glob(f"{stem}-*.jsonl")):
        files.append_lines(part_of(folder, stem, 0), b"".join(line + b"\n" for line in files.complete_lines(path)))
        path.unlink()


def part_of(folder: Path, stem: str, rank: int) -> Path:
    """Return the file that one process appends to; process 0 has `records.jsonl` itself."""
    return folder / f"{stem}{f'-{rank}' if rank else ''}.jsonl"
