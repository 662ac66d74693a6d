"""Let one peer attack the comparisons' images, and append what our judge says to `OUT/COMPARISON/PEER.jsonl`.

usage: PYTHONPATH=src:. python -m benchmarks.peers.measure PEER [COMPARISON ...]

It runs in the environment that has the peer, which needs torch, numpy and safetensors beside it.
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

from forefend.attacks.pgd import PGD, from_x, random_start
from forefend.data import ImageDataset
from forefend.evaluation import records
from forefend.models.fingerprint import fingerprint
from forefend.runtime import files
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel

from .comparisons import COMPARISONS, Comparison
from .peers import CRAFTS, Craft
from .verdicts import DISTRIBUTIONS

BATCH = 50  # stays in a processor's cache
SEED = 0


@dataclass
class Toll:
    """What one trial cost, and how often it left its threat model.

    Args:
        wall_seconds: spent in the peer, judging excluded.
        cpu_seconds: likewise, of this process.
        outside: images further outside than `ThreatModel.allows` forgives as rounding.
        furthest: by how much the worst of them, in the norm's units.
    """

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    outside: int = 0
    furthest: float = 0.0


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=CRAFTS)
    parser.add_argument("comparisons", nargs="*", help=", ".join(COMPARISONS))
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("results/peers"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.comparisons or COMPARISONS:
        measure(given.peer, COMPARISONS[name], given.out / name, given.images)


def measure(peer: str, comparison: Comparison, folder: Path, count: int) -> None:
    """Run a peer with and without a random start, and write its records and what they cost anew.

    Args:
        peer: its name in `CRAFTS`.
        comparison: what is attacked.
        folder: where `PEER.jsonl` and `PEER.json` go.
        count: how many images.
    """
    network, images = comparison.classifier(), comparison.sample(count)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{peer}.jsonl"
    path.unlink(missing_ok=True)
    x, y, index = images.batch(torch.arange(1))
    CRAFTS[peer](network, x, y, comparison.attack(from_x), KeyedRNG(index))  # imports the library, which is not timed
    tolls = {}
    for start in (from_x, random_start):
        pgd = comparison.attack(start)
        tolls[start.__name__] = attack(peer, network, images, pgd, path)
        print(f"{folder.name}, {peer}, {start.__name__}: {tolls[start.__name__]}", flush=True)
    about = files.provenance()
    versions = {**about["versions"], DISTRIBUTIONS[peer]: metadata.version(DISTRIBUTIONS[peer])}
    trials = {start: asdict(toll) for start, toll in tolls.items()}
    written = {"versions": versions, "machine": about["machine"], "time": about["time"], "trials": trials}
    files.write_json(folder / f"{peer}.json", written)


def attack(peer: str, network: nn.Module, images: ImageDataset, pgd: PGD, path: Path) -> Toll:
    """Run one trial and append its records to `path`, a batch a line."""
    toll = Toll()
    model = f"{images.name}/{images.split}:{fingerprint(network)}"
    for rows in torch.arange(len(images)).split(BATCH):
        x, y, index = images.batch(rows)
        rng = KeyedRNG(index, SEED, str(pgd))
        x_adv = crafted(CRAFTS[peer], network, (x, y), pgd, rng, toll)
        lost = judged(network, x_adv, x, y, pgd.threat, toll)
        pixels = digests(x, y)
        files.append(path, records.Record(model, f"{peer}: {pgd}", SEED, index.tolist(), lost.tolist(), pixels))
    return toll


def crafted(
    craft: Craft, network: nn.Module, batch: tuple[Tensor, Tensor], pgd: PGD, rng: KeyedRNG, toll: Toll
) -> Tensor:
    """A peer's adversarial images; the others draw from torch's and numpy's own generators, which are seeded here."""
    number = rng.fold_in(step=int(rng.index[0])).integer()  # each batch its own
    torch.manual_seed(number)
    np.random.seed(number % 2**32)
    wall, cpu = time.perf_counter(), time.process_time()
    x_adv = craft(network, *batch, pgd, rng)
    toll.wall_seconds += time.perf_counter() - wall
    toll.cpu_seconds += time.process_time() - cpu
    return x_adv.detach()


def judged(network: nn.Module, x_adv: Tensor, x: Tensor, y: Tensor, threat: ThreatModel, toll: Toll) -> Tensor:
    """Whether the classifier errs, `(B,)` bool; an image outside the threat model is counted, and projected first."""
    outside = ~threat.allows(x_adv, x)
    if bool(outside.any()):
        toll.outside += int(outside.sum())
        toll.furthest = max(toll.furthest, float(threat.excess(x_adv, x).max()))
        x_adv = torch.where(outside.view(-1, 1, 1, 1), threat.project(x_adv, x), x_adv)
    with torch.no_grad():
        lost: Tensor = network(x_adv).argmax(1) != y
    return lost


def digests(x: Tensor, y: Tensor) -> list[str]:
    """Eight hexadecimal digits over the pixels and label of each image, so that peers are compared on the same ones."""
    pairs = zip(x.contiguous(), y.tolist(), strict=True)
    return [hashlib.sha256(image.numpy().tobytes() + str(label).encode()).hexdigest()[:8] for image, label in pairs]


if __name__ == "__main__":
    main()
