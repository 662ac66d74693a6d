"""`forefend demo`: train and attack a defense for handwritten digits, in about a minute."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from forefend.cli.parser import Parser

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
    seconds = f"{time.monotonic() - started:.0f} s"
    print(f"{seconds}; picture: {folder}/picture.png, records: {folder}/records.jsonl")
    print(f"open the evidence page in a browser: {folder}/report.html\nnext:")
    word = sys.argv[0] if Path(sys.argv[0]).name == "forefend" else "python -m forefend"
    print(f"  {word} evaluate {folder} --suite quick --threat Linf:0.15")
    print(f"  {word} train rtfe --data digits --guides mlp resnet20 --train-missing --threat Linf:0.15 --epochs 20")
    print(f"  {word} recipes")
    return 0


def _run(folder: Path, seed: int) -> None:
    import torch

    from forefend import data, recipes
    from forefend.evaluation import suites
    from forefend.evaluation.evaluate import evaluate
    from forefend.evaluation.evaluated_model import with_and_without
    from forefend.models.defense import Defense
    from forefend.models.guide import Guide
    from forefend.models.initialization import new_preprocessor
    from forefend.recipes.base import Networks
    from forefend.recipes.hyperparameters import build
    from forefend.report import plots
    from forefend.report.evidence.page import evidence
    from forefend.report.page.html import to_html
    from forefend.runtime import files, run_folder
    from forefend.runtime.distributed import accelerator_on
    from forefend.threat_models.lp import Linf
    from forefend.training.artifacts import training_config
    from forefend.training.resolve_classifiers import train_classifier
    from forefend.training.trainer import fit

    torch.set_num_threads(1)  # a second thread gains nothing on 8x8 images
    train, test, names = data.load("digits", "train"), data.load("digits", "test"), [*GUIDES, UNSEEN]
    natural, rtfe = build(recipes.Natural, NATURAL), build(recipes.RTFE, RTFE)
    config = training_config(rtfe, train, seed) | {
        "classifiers": names,
        "natural": natural.settings(),
        "guides": [{"name": name, "spec": name, "mean": None, "std": None} for name in GUIDES],
    }
    run = run_folder.start(folder, config, may_change=("guides",))  # older versions wrote other paths
    print(f"[1/3] {len(train)} handwritten digits: training {', '.join(names)} naturally", flush=True)
    classifiers = {
        name: train_classifier(folder / name, name, train, natural, seed=seed, device="cpu") for name in names
    }
    print(f"[2/3] training one preprocessor for {' and '.join(GUIDES)}, both frozen", flush=True)
    guides = [Guide(classifiers[name], name) for name in GUIDES]
    networks = Networks(new_preprocessor("narrow-unet", train, seed), guides)
    defense = fit(rtfe, train, networks, run=run, seed=seed, accelerator=accelerator_on("cpu"))
    assert isinstance(defense, Defense)
    defense.save(folder)
    print("[3/3] attacking all three, alone and defended: white-box PGD-20, 2 restarts", flush=True)
    models = [model for name in names for model in with_and_without(defense, name, classifiers[name])]
    results = evaluate(
        models, test, suites.curve([Linf(radius) for radius in RADII]), folder=folder, seed=seed, pictures=8
    )
    print(f"\n{results}\n")
    x, _, _ = test.batch(torch.arange(10))
    with torch.no_grad():
        plots.picture(folder / "picture.png", x, defense(x), results)
    files.write(folder / "report.html", to_html(evidence(folder)).encode())
