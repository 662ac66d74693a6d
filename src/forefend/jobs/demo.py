"""The whole story on real handwritten digits, in about a minute on two cores."""

from __future__ import annotations

from pathlib import Path

import torch

from .. import data, figures, records, suites, tables
from ..data import Images
from ..defence import Defence, Defended
from ..evaluation import evaluate
from ..guides import Guide
from ..named import new_classifier, save_classifier, training_config
from ..processes import accelerator_on
from ..recipe import Cast
from ..recipes import RTFE, Natural
from ..subject import Subject
from ..threat import Linf
from ..train import fit
from ..trained import defence_of
from .train import new_preprocessor

GUIDES, UNSEEN = ("cnn", "tinyresnet"), "mlp"
RADII = (0.1, 0.15, 0.25)
NATURAL = Natural(epochs=8, batch_size=64)
RECIPE = RTFE(threat=Linf(0.2), steps=3, relative_step=0.5, epochs=40, lr=0.3)


def run(folder: Path, seed: int) -> None:
    """Train three classifiers and a defence for two of them, attack all, print the table, draw the picture."""
    torch.set_num_threads(1)  # 8x8 images leave a second thread nothing to do but wait
    train, test = data.load("digits", "train"), data.load("digits", "test")
    config = training_config("rtfe", RECIPE, train, seed) | {
        "classifiers": [*GUIDES, UNSEEN],
        "natural": NATURAL.settings(),
        "guides": [{"name": name, "spec": str(folder / name), "mean": None, "std": None} for name in GUIDES],
    }
    started = records.start(folder, config)
    print(f"[1/3] {len(train)} real digits: training {', '.join([*GUIDES, UNSEEN])} naturally", flush=True)
    networks = {name: _classifier(folder, name, train, seed) for name in (*GUIDES, UNSEEN)}
    print(f"[2/3] training one preprocessor in front of {' and '.join(GUIDES)}, both frozen", flush=True)
    defence = _defence(started, {name: networks[name] for name in GUIDES}, train, seed)
    print("[3/3] attacking all three, alone and defended: white-box PGD-20, 2 restarts", flush=True)
    cells = evaluate(
        _subjects(networks, defence), test, suites.curve([Linf(r) for r in RADII]), folder=folder, seed=seed
    )
    print("\n" + tables.text(cells) + "\n")
    x, _, _ = test.batch(torch.arange(10))
    with torch.no_grad():
        figures.picture(folder / "picture.png", x, defence(x), cells)


def _classifier(folder: Path, name: str, train: Images, seed: int) -> torch.nn.Module:
    """A naturally trained classifier, kept in the run's folder."""
    network = new_classifier(name, train, seed)
    run = records.start(folder / name, training_config("natural", NATURAL, train, seed) | {"classifier": name})
    fit(NATURAL, train, Cast(classifier=network), run=run, seed=seed, accelerator=accelerator_on("cpu"))
    save_classifier(run.folder, network, name, train)
    return network.eval()


def _defence(run: records.Run, guides: dict[str, torch.nn.Module], train: Images, seed: int) -> Defence:
    """The preprocessor trained in front of the guides, and saved."""
    preprocessor = new_preprocessor("narrow-unet", train, seed)
    cast = Cast(preprocessor, [Guide(network, name) for name, network in guides.items()])
    fit(RECIPE, train, cast, run=run, seed=seed, accelerator=accelerator_on("cpu"))
    defence = defence_of(RECIPE, train, cast)
    defence.save(run.folder)
    return defence


def _subjects(networks: dict[str, torch.nn.Module], defence: Defence) -> list[Subject]:
    """Each classifier alone and behind the defence."""
    return [
        Subject(name, Defended(defence, network) if defended else network, defended, defence.has_seen(network))
        for name, network in networks.items()
        for defended in (False, True)
    ]
