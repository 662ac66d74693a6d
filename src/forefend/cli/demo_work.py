"""The whole story on real handwritten digits, in about a minute on two cores."""

from __future__ import annotations

from pathlib import Path

import torch

from forefend import data
from forefend.data import ImageDataset
from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.suites import general
from forefend.models.classifiers.model_card import save_classifier
from forefend.models.defense import Defended, Defense
from forefend.models.guide import Guide
from forefend.models.initialization import new_classifier, new_preprocessor
from forefend.recipes import RTFE, Natural
from forefend.recipes.base import Networks
from forefend.report import plots, tables
from forefend.runtime import run_folder
from forefend.runtime.distributed import accelerator_on
from forefend.threat_models.lp import Linf
from forefend.training.artifacts import defense_of, training_config
from forefend.training.trainer import fit

GUIDES, UNSEEN = ("cnn", "tinyresnet"), "mlp"
RADII = (0.1, 0.15, 0.25)
NATURAL = Natural(epochs=8, batch_size=64)
RECIPE = RTFE(threat=Linf(0.2), steps=3, relative_step=0.5, epochs=40, lr=0.3)


def run(folder: Path, seed: int) -> None:
    """Train three classifiers and a defense for two of them, attack all, print the table, draw the picture."""
    torch.set_num_threads(1)  # 8x8 images leave a second thread nothing to do but wait
    train, test = data.load("digits", "train"), data.load("digits", "test")
    config = training_config("rtfe", RECIPE, train, seed) | {
        "classifiers": [*GUIDES, UNSEEN],
        "natural": NATURAL.settings(),
        "guides": [{"name": name, "spec": str(folder / name), "mean": None, "std": None} for name in GUIDES],
    }
    started = run_folder.start(folder, config)
    print(f"[1/3] {len(train)} real digits: training {', '.join([*GUIDES, UNSEEN])} naturally", flush=True)
    nets = {name: _classifier(folder, name, train, seed) for name in (*GUIDES, UNSEEN)}
    print(f"[2/3] training one preprocessor in front of {' and '.join(GUIDES)}, both frozen", flush=True)
    defense = _defense(started, {name: nets[name] for name in GUIDES}, train, seed)
    print("[3/3] attacking all three, alone and defended: white-box PGD-20, 2 restarts", flush=True)
    cells = evaluate(_subjects(nets, defense), test, general.curve([Linf(r) for r in RADII]), folder=folder, seed=seed)
    print("\n" + tables.text(cells) + "\n")
    x, _, _ = test.batch(torch.arange(10))
    with torch.no_grad():
        plots.picture(folder / "picture.png", x, defense(x), cells)


def _classifier(folder: Path, name: str, train: ImageDataset, seed: int) -> torch.nn.Module:
    """A naturally trained classifier, kept in the run's folder."""
    network = new_classifier(name, train, seed)
    run = run_folder.start(folder / name, training_config("natural", NATURAL, train, seed) | {"classifier": name})
    fit(NATURAL, train, Networks(classifier=network), run=run, seed=seed, accelerator=accelerator_on("cpu"))
    save_classifier(run.folder, network, name, train)
    return network.eval()


def _defense(run: run_folder.Run, guides: dict[str, torch.nn.Module], train: ImageDataset, seed: int) -> Defense:
    """The preprocessor trained in front of the guides, and saved."""
    preprocessor = new_preprocessor("narrow-unet", train, seed)
    networks = Networks(preprocessor, [Guide(network, name) for name, network in guides.items()])
    fit(RECIPE, train, networks, run=run, seed=seed, accelerator=accelerator_on("cpu"))
    defense = defense_of(RECIPE, train, networks)
    defense.save(run.folder)
    return defense


def _subjects(nets: dict[str, torch.nn.Module], defense: Defense) -> list[EvaluatedModel]:
    """Each classifier alone and behind the defense."""
    return [
        EvaluatedModel(name, Defended(defense, network) if defended else network, defended, defense.has_seen(network))
        for name, network in nets.items()
        for defended in (False, True)
    ]
