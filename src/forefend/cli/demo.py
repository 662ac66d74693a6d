"""`forefend demo`: train and attack a defense for handwritten digits, in about a minute."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forefend.cli.parser import Parser

if TYPE_CHECKING:
    from torch import nn

    from forefend.data import ImageDataset
    from forefend.evaluation.evaluated_model import EvaluatedModel
    from forefend.models.defense import Defense
    from forefend.runtime.run_folder import Run

GUIDES, UNSEEN = ("cnn", "tinyresnet"), "mlp"
RADII = (0.1, 0.15, 0.25)
NATURAL = {"epochs": 8, "batch_size": 64}
RTFE = {"threat": "Linf:0.2", "steps": 3, "relative_step": 0.5, "epochs": 40, "lr": 0.3}


def main(arguments: list[str]) -> int:
    """Run the demo and print three commands to try next."""
    parser = Parser("demo", "Train a defense for handwritten digits and attack three classifiers with and without it.")
    parser.add_argument("--out", type=str, default="runs/demo", help="folder of the run")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random numbers")
    options = parser.parse_args(arguments)
    started, folder = time.monotonic(), Path(options.out)
    _run(folder, options.seed)
    print(f"{time.monotonic() - started:.0f} s; picture: {folder}/picture.png, records: {folder}/records.jsonl\nnext:")
    word = sys.argv[0] if Path(sys.argv[0]).name == "forefend" else "python -m forefend"
    print(f"  {word} evaluate {folder} --suite quick --threat Linf:0.15")
    print(f"  {word} train rtfe --data digits --guides mlp resnet20 --threat Linf:0.15 --epochs 20")
    print(f"  {word} recipes")
    return 0


def _run(folder: Path, seed: int) -> None:
    import torch

    from forefend import data, recipes
    from forefend.evaluation import suites
    from forefend.evaluation.evaluate import evaluate
    from forefend.recipes.hyperparameters import build
    from forefend.report import plots
    from forefend.runtime import run_folder
    from forefend.threat_models.lp import Linf
    from forefend.training.artifacts import training_config

    torch.set_num_threads(1)  # a second thread gains nothing on 8x8 images
    train, test = data.load("digits", "train"), data.load("digits", "test")
    natural, rtfe = build(recipes.Natural, NATURAL), build(recipes.RTFE, RTFE)
    config = training_config("rtfe", rtfe, train, seed) | {
        "classifiers": [*GUIDES, UNSEEN],
        "natural": natural.settings(),
        "guides": [{"name": name, "spec": str(folder / name), "mean": None, "std": None} for name in GUIDES],
    }
    run = run_folder.start(folder, config)
    print(f"[1/3] {len(train)} handwritten digits: training {', '.join([*GUIDES, UNSEEN])} naturally", flush=True)
    networks = {name: _classifier(folder / name, natural, train, seed) for name in (*GUIDES, UNSEEN)}
    print(f"[2/3] training one preprocessor for {' and '.join(GUIDES)}, both frozen", flush=True)
    defense = _defense(run, rtfe, {name: networks[name] for name in GUIDES}, train, seed)
    print("[3/3] attacking all three, alone and defended: white-box PGD-20, 2 restarts", flush=True)
    suite = suites.curve([Linf(radius) for radius in RADII])
    results = evaluate(_models(networks, defense), test, suite, folder=folder, seed=seed)
    print("\n" + str(results) + "\n")
    x, _, _ = test.batch(torch.arange(10))
    with torch.no_grad():
        plots.picture(folder / "picture.png", x, defense(x), results)


def _classifier(folder: Path, recipe: Any, train: ImageDataset, seed: int) -> nn.Module:
    """Train a classifier and save it in a folder named after its architecture."""
    from forefend.models.classifiers.model_card import save_classifier
    from forefend.models.initialization import new_classifier
    from forefend.recipes.base import Networks
    from forefend.runtime import run_folder
    from forefend.runtime.distributed import accelerator_on
    from forefend.training.artifacts import training_config
    from forefend.training.trainer import fit

    network = new_classifier(folder.name, train, seed)
    run = run_folder.start(folder, training_config("natural", recipe, train, seed) | {"classifier": folder.name})
    fit(recipe, train, Networks(classifier=network), run=run, seed=seed, accelerator=accelerator_on("cpu"))
    save_classifier(folder, network, folder.name, train)
    return network.eval()


def _defense(run: Run, recipe: Any, guides: dict[str, nn.Module], train: ImageDataset, seed: int) -> Defense:
    """Train a preprocessor for the guides and save it."""
    from forefend.models.guide import Guide
    from forefend.models.initialization import new_preprocessor
    from forefend.recipes.base import Networks
    from forefend.runtime.distributed import accelerator_on
    from forefend.training.trainer import fit

    networks = Networks(
        new_preprocessor("narrow-unet", train, seed), [Guide(network, name) for name, network in guides.items()]
    )
    defense: Defense = fit(recipe, train, networks, run=run, seed=seed, accelerator=accelerator_on("cpu"))  # type: ignore
    defense.save(run.folder)
    return defense


def _models(networks: dict[str, nn.Module], defense: Defense) -> list[EvaluatedModel]:
    """Each classifier alone and defended."""
    from forefend.evaluation.evaluated_model import EvaluatedModel
    from forefend.models.defense import Defended

    return [
        EvaluatedModel(name, Defended(defense, network) if defended else network, defended, defense.has_seen(network))
        for name, network in networks.items()
        for defended in (False, True)
    ]
