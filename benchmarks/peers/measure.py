"""Attack the images of the comparisons with one baseline, and write records to `OUT/COMPARISON/BASELINE.jsonl`.

usage: PYTHONPATH=src:. python -m benchmarks.peers.measure BASELINE [COMPARISON ...]

Run it in the environment of the baseline, which needs torch, numpy and safetensors too.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.peers.baselines import BASELINES, Baseline
from benchmarks.peers.comparisons import COMPARISONS, Comparison
from benchmarks.peers.verdicts import DISTRIBUTIONS
from forefend.attacks.pgd import PGD, from_x, random_start
from forefend.data import ImageDataset
from forefend.evaluation import records
from forefend.models.fingerprint import fingerprint
from forefend.runtime import files
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel

BATCH = 50  # fits in the cache of a processor
SEED = 0


@dataclass
class Cost:
    """The time of one trial, and how often it left its threat model.

    Args:
        wall_seconds: spent in the baseline; classification is excluded.
        cpu_seconds: the same as processor time of this process.
        outside: number of images further outside than the rounding that `ThreatModel.allows` tolerates.
        furthest: the largest distance outside, in the norm of the threat model.
    """

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    outside: int = 0
    furthest: float = 0.0


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("baseline", choices=BASELINES)
    parser.add_argument("comparisons", nargs="*", help=", ".join(COMPARISONS))
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("results/peers"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.comparisons or COMPARISONS:
        measure(given.baseline, COMPARISONS[name], given.out / name, given.images)


def measure(baseline: str, comparison: Comparison, folder: Path, count: int) -> None:
    """Run a baseline with and without a random start, and replace its records and costs.

    Args:
        baseline: its name in `BASELINES`.
        comparison: what is attacked.
        folder: for `BASELINE.jsonl` and `BASELINE.json`.
        count: number of images.
    """
    network, images = comparison.classifier(), comparison.sample(count)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{baseline}.jsonl"
    path.unlink(missing_ok=True)
    x, y, index = images.batch(torch.arange(1))
    # Imports the library, so that this is not timed.
    BASELINES[baseline](network, x, y, comparison.attack(from_x), KeyedRNG(index))
    costs = {}
    for start in (from_x, random_start):
        pgd = comparison.attack(start)
        costs[start.__name__] = attack(baseline, network, images, pgd, path)
        print(f"{folder.name}, {baseline}, {start.__name__}: {costs[start.__name__]}", flush=True)
    about = files.provenance()
    versions = {**about["versions"], DISTRIBUTIONS[baseline]: metadata.version(DISTRIBUTIONS[baseline])}
    trials = {start: asdict(cost) for start, cost in costs.items()}
    written = {"versions": versions, "machine": about["machine"], "time": about["time"], "trials": trials}
    files.write_json(folder / f"{baseline}.json", written)


def attack(baseline: str, network: nn.Module, images: ImageDataset, pgd: PGD, path: Path) -> Cost:
    """Run one trial and append its records to `path`, one line per batch."""
    cost = Cost()
    model = f"{images.name}/{images.split}:{fingerprint(network)}"
    for rows in torch.arange(len(images)).split(BATCH):
        x, y, index = images.batch(rows)
        rng = KeyedRNG(index, SEED, str(pgd))
        x_adv = attacked(BASELINES[baseline], network, (x, y), pgd, rng, cost)
        lost = misclassified(network, x_adv, x, y, pgd.threat, cost)
        pixels = digests(x, y)
        files.append(path, records.Record(model, f"{baseline}: {pgd}", SEED, index.tolist(), lost.tolist(), pixels))
    return cost


def attacked(
    baseline: Baseline, network: nn.Module, batch: tuple[Tensor, Tensor], pgd: PGD, rng: KeyedRNG, cost: Cost
) -> Tensor:
    """Return adversarial images of a baseline; the global generators of torch and numpy, which it uses, are seeded."""
    number = rng.fold_in(step=int(rng.index[0])).integer()  # another for each batch
    torch.manual_seed(number)
    np.random.seed(number % 2**32)
    wall, cpu = time.perf_counter(), time.process_time()
    x_adv = baseline(network, *batch, pgd, rng)
    cost.wall_seconds += time.perf_counter() - wall
    cost.cpu_seconds += time.process_time() - cpu
    return x_adv.detach()


def misclassified(network: nn.Module, x_adv: Tensor, x: Tensor, y: Tensor, threat: ThreatModel, cost: Cost) -> Tensor:
    """Return whether each image is misclassified, `(B,)` bool; count and project images outside the threat model."""
    outside = ~threat.allows(x_adv, x)
    if bool(outside.any()):
        cost.outside += int(outside.sum())
        cost.furthest = max(cost.furthest, float(threat.excess(x_adv, x).max()))
        x_adv = torch.where(outside.view(-1, 1, 1, 1), threat.project(x_adv, x), x_adv)
    with torch.no_grad():
        wrong: Tensor = network(x_adv).argmax(1) != y
    return wrong


def digests(x: Tensor, y: Tensor) -> list[str]:
    """Return eight hexadecimal digits for the pixels and label of each image."""
    pairs = zip(x.contiguous(), y.tolist(), strict=True)
    return [hashlib.sha256(image.numpy().tobytes() + str(label).encode()).hexdigest()[:8] for image, label in pairs]


if __name__ == "__main__":
    main()
