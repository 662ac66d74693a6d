"""Docket: the verdicts of one subject on one set of images, read from disk where they stand there, and added to.

Each image is judged once under each trial, by one process, whatever was interrupted before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from forefend.data import ImageDataset
from forefend.data.dataset import image_digests
from forefend.evaluation import records
from forefend.evaluation.attack_runner import Verdicts
from forefend.evaluation.records import Record
from forefend.models.fingerprint import architecture_digest, fingerprint
from forefend.models.freezing import device_of
from forefend.runtime import files
from forefend.runtime.distributed import ProcessGroup
from forefend.runtime.progress import Progress

SECONDS = 5.0  # between two records, where verdicts fall one by one; else a kill costs the batch at hand


def key_of(network: nn.Module, images: ImageDataset) -> str:
    """What a verdict depends on beside trial, seed and image: the networks and the set."""
    return f"{images.name}/{images.split}:{fingerprint(network)}:{architecture_digest(network)}"


@dataclass(frozen=True)
class ResultStore:
    """One subject's verdicts.

    Args:
        network: the subject, an image batch to logits.
        images: what it is judged on.
        seed: of the evaluation.
        folder: where records lie; None keeps none.
        old: the records that were found there.
        processes: who shares the work.
        batch_size: images of a batch, as batches are dealt to processes.
        key: what a verdict depends on beside trial, seed and image; `key_of` the two before anyone asked the network.
    """

    network: nn.Module
    images: ImageDataset
    seed: int
    folder: Path | None
    old: Sequence[Record]
    processes: ProcessGroup
    batch_size: int
    key: str
    _digests: dict[int, str] = field(default_factory=dict)

    def fetch(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images, labels and dataset index of some rows, where the network lives; each is remembered by a digest."""
        x, y, index = self.images.batch(rows)
        self._digests.update(zip(index.tolist(), image_digests(x, y), strict=True))
        device = device_of(self.network)
        return x.to(device), y.to(device), index.to(device)

    def verdicts(
        self, trial: str, title: str, index: Sequence[int], judge: Callable[[Tensor], Iterator[Verdicts]]
    ) -> dict[int, bool]:
        """Whether each image is lost under a trial: from the records, or judged now and recorded as verdicts fall.

        Args:
            trial: its identity.
            title: how the progress bar calls it.
            index: dataset index of the images to be judged.
            judge: row numbers to verdicts, in any order.
        """
        rows = {number: row for row, number in enumerate(self.images.index.tolist())}
        known = self._known(trial, rows)
        todo = torch.tensor([rows[i] for i in index if i not in known], dtype=torch.int64)
        mine = self.processes.mine(todo, self.batch_size)
        found: dict[int, bool] = {}
        with Progress(title, len(mine), unit="images", enabled=not self.processes.rank) as progress:
            for part in self._recorded(trial, judge(mine)) if len(mine) else ():
                found |= part
                progress.advance(len(part))
        known |= self.processes.all_of(found)
        if len(todo):
            lost = sum(known[i] for i in index)
            progress.print(f"{title}: {lost} of {len(index)} lost, {progress.elapsed:.0f} s")
        return {i: known[i] for i in index}

    def _recorded(self, trial: str, verdicts: Iterator[Verdicts]) -> Iterator[dict[int, bool]]:
        """Hand verdicts on and write them down, several to a line where they fall one by one."""
        pending: dict[int, bool] = {}
        written = time.monotonic()
        try:
            for index, lost in verdicts:
                pending |= dict(zip(index, lost, strict=True))
                yield dict(zip(index, lost, strict=True))
                if len(pending) >= self.batch_size or time.monotonic() - written > SECONDS:
                    self._write(trial, pending)
                    pending, written = {}, time.monotonic()
        finally:
            self._write(trial, pending)

    def _write(self, trial: str, verdicts: dict[int, bool]) -> None:
        if self.folder and verdicts:
            index = list(verdicts)
            digests = [self._digests[i] for i in index]
            record = Record(self.key, trial, self.seed, index, list(verdicts.values()), digests)
            files.append(records.part(self.folder, self.processes.rank), record)

    def _known(self, trial: str, rows: dict[int, int]) -> dict[int, bool]:
        """The verdicts on record, of images that are still what they were when they were judged."""
        found: dict[int, list[Any]] = {}
        for record in self.old:
            if (record.model, record.trial, record.seed) == (self.key, trial, self.seed):
                found |= {i: pair for i, *pair in zip(record.index, record.lost, record.images, strict=False)}
        known: dict[int, bool] = {}
        for part in torch.tensor([rows[i] for i in found if i in rows], dtype=torch.int64).split(self.batch_size):
            x, y, numbers = self.images.batch(part)
            pairs = zip(numbers.tolist(), image_digests(x, y), strict=True)
            known |= {i: found[i][0] for i, digest in pairs if found[i][1] == digest}
        return known
