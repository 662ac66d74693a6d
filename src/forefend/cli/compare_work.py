"""Compare a run's defense with its rivals: the same data and suite, equal training compute, what each costs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from forefend.checks import InputError, choose, unknown_name
from forefend.cli.resolve_data import finder_of, images_of
from forefend.cli.resolve_models import images_for, placed
from forefend.data import ImageDataset, sample
from forefend.evaluation import suites, trial
from forefend.evaluation.clean_accuracy import clean_accuracy
from forefend.evaluation.comparison.baselines import (
    Contestant,
    Rules,
    and_through_bpda,
    check_rivals,
    denoised_smoothing,
    fine_tuned,
    plainly,
    transformed,
)
from forefend.evaluation.comparison.costs import rows_of
from forefend.evaluation.comparison.results import Row
from forefend.evaluation.cost_estimate import cost_of, spelled
from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.results import CLEAN, WORST, Result
from forefend.evaluation.trial import Suite
from forefend.models import discriminators
from forefend.models.classifiers import Normalized
from forefend.models.classifiers.model_card import NamedClassifier
from forefend.models.defense import Defended, Defense, load
from forefend.models.guide import Guide
from forefend.recipes import RECIPES, hyperparameters
from forefend.recipes.base import Networks, Recipe
from forefend.report import comparison_table
from forefend.runtime import files, run_folder
from forefend.runtime.distributed import accelerator_of
from forefend.runtime.threads import choose_threads
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.parsing import parse_threat_model
from forefend.training.compute_budget import training_flops

OURS = "this defense"


def run(options: Any) -> str:
    """Train the rivals, attack all, leave records and `compare.json`; returns the table and who wins.

    Raises:
        InputError: options that do not fit together, or a run that holds no defense.
        Interrupted: asked to stop; the same call goes on.
    """
    accelerator = accelerator_of(options.device)
    suite_of = choose(options.suite, suites.SUITES, "suite")
    check_rivals(options.denoiser, sigma=options.sigma, copies=options.copies, lr=options.lr)
    run = run_folder.Run(Path(options.run))
    defense = load(run.folder)
    if not (run.folder / "config.json").exists():
        raise InputError(
            f"{run.folder} was not trained by `forefend train`, and nothing says what its rivals may cost: train it so."
        )
    config = run.config
    images = images_for(options, run)
    guides = _guides(options, defense, config)
    classifier = _chosen(options, guides)
    threat = _threat(options, defense)
    suite = suite_of(trial.Terms([threat], len(images.classes)))
    choose_threads()
    rules, recipe = _rules(options, run, guides, classifier, threat, accelerator)
    print(f"{run.folder.name} took {rules.budget / 1e9:.1f} GFLOP to train: so may each rival", flush=True)
    folder = Path(options.out) if options.out else rules.folder / _place(options, threat)
    files.make_folder(folder)  # refused before anyone is trained
    contestants = _contestants(options, rules, recipe, defense)
    placed([contestant.network for contestant in contestants], options.device)
    print(f"{len(contestants)} contestants, {len(images)} images -> {folder}", flush=True)
    print(_cost(contestants, images, suite, options), flush=True)
    cells = [_judged(contestant, images, suite, folder, options) for contestant in contestants]
    rows = rows_of(contestants, cells, images, suite)
    return _told(rows, folder, options, rules, guides)


def _guides(options: Any, defense: Defense, config: Any) -> list[NamedClassifier]:
    """The run's guides, still those that it learned from."""
    found = [finder_of(options, g["mean"], g["std"]).look_up(g["spec"]) for g in config.get("guides", [])]
    found = [replace(named, name=g["name"]) for named, g in zip(found, config.get("guides", []), strict=True)]
    if not found:
        raise InputError(
            f"{options.run} has no frozen guide to compare on: compare a run that was trained with guides."
        )
    for named in found:
        if not defense.has_seen(named.network):
            raise InputError(
                f"The guide {named.spec} is no longer the classifier that this run learned from: restore it."
            )
    return found


def _chosen(options: Any, guides: Sequence[NamedClassifier]) -> NamedClassifier:
    """The guide that the comparison is on: the one named, or the first."""
    names = {named.name: named for named in guides}
    if options.classifier is None:
        return guides[0]
    if options.classifier not in names:
        raise unknown_name(options.classifier, names, "guide of this run")
    return names[options.classifier]


def _threat(options: Any, defense: Defense) -> ThreatModel:
    given = options.threat or defense.card.threat
    if not given:
        raise InputError(
            "The run was trained under no threat model: say which to measure with --threat, as Linf:8/255."
        )
    return parse_threat_model(given)


def _rules(
    options: Any,
    run: run_folder.Run,
    guides: Sequence[NamedClassifier],
    classifier: NamedClassifier,
    threat: ThreatModel,
    accelerator: Accelerator,
) -> tuple[Rules, Recipe]:
    """The run's own training images and compute, which the rivals get."""
    config = run.config
    if not isinstance(classifier.network, Normalized):
        raise InputError(f"{classifier.name} has no card, so it cannot be fine-tuned and saved: name another guide.")
    images = images_of(options)("train")
    if config["images"] < len(images):
        images = sample(images, config["images"], config["seed"])
    if not options.allow_weak_classifier:
        clean_accuracy(classifier.name, classifier.network, sample(images, min(500, len(images)), seed=0))
    recipe = hyperparameters.build(choose(config["recipe"], RECIPES, "recipe"), config["settings"])
    budget = training_flops(recipe, images, _cast(run, config, guides, images, options))
    folder = run.folder / "compare" / classifier.name.replace("/", "-")
    return Rules(classifier, threat, images, budget, config["seed"], options.data, folder, accelerator), recipe


def _cast(
    run: run_folder.Run, config: Any, guides: Sequence[NamedClassifier], images: ImageDataset, options: Any
) -> Networks:
    """The networks that the run was trained with, to measure a step of it."""
    networks: dict[str, Any] = {"guides": [Guide(named.network, named.name) for named in guides]}
    networks["preprocessor"] = copy.deepcopy(load(run.folder).preprocessor)
    if "discriminator" in config:
        channels, size, _ = images.shape
        networks["discriminator"] = discriminators.build(config["discriminator"], channels=channels, size=size)
    if (run.folder / "classifier" / "classifier.json").exists():
        networks["classifier"] = finder_of(options).look_up(str(run.folder / "classifier")).network
    return Networks(**networks)


def _contestants(options: Any, rules: Rules, recipe: Recipe, defense: Defense) -> list[Contestant]:
    """Everyone, the defense last; whoever is to be trained is trained here."""
    network = rules.classifier.network
    inner = {key: getattr(recipe, key) for key in ("steps", "relative_step") if getattr(recipe, key, 0)}
    return [
        Contestant("undefended", network, network, plainly),
        *transformed(network, rules.images),
        denoised_smoothing(rules, options.denoiser, sigma=options.sigma, copies=options.copies),
        fine_tuned(rules, options.lr, inner),
        Contestant(OURS, Defended(defense, network), network, and_through_bpda, rules.budget),
    ]


def _place(options: Any, threat: ThreatModel) -> str:
    written = str(threat).replace("/", "_").replace(":", "")
    rivals = f"{options.denoiser}-sigma{options.sigma:g}-x{options.copies}-lr{options.lr:g}"
    return f"{options.suite}-{written}-{options.images or 'all'}-s{options.seed}-{rivals}"


def _cost(contestants: Sequence[Contestant], images: ImageDataset, suite: Suite, options: Any) -> str:
    """How long it takes to attack them all, said before it starts."""
    seconds = 0.0
    for contestant in contestants:
        model, trials = EvaluatedModel(contestant.name, contestant.network), contestant.attacked(suite)[0]
        seconds += cost_of([model], images, trials, _at_once(contestant, options)).seconds
    return (
        f"At most {spelled(seconds)} of attacks, as measured on one batch each; images that are lost early cost less."
    )


def _at_once(contestant: Contestant, options: Any) -> int:
    """How many images go at once: fewer where each is seen in many noisy copies."""
    copies = int(getattr(contestant.network, "settings", {}).get("copies", 1))
    return max(1, options.batch_size // copies)


def _judged(
    contestant: Contestant, images: ImageDataset, suite: Suite, folder: Path, options: Any
) -> tuple[Result, Result]:
    """Clean accuracy, and that under the worst attack."""
    trials, _ = contestant.attacked(suite)
    model = EvaluatedModel(contestant.name, contestant.network)
    place = folder / contestant.name.partition(" (")[0].replace(" ", "-")
    cells = evaluate(
        [model],
        images,
        trials,
        folder=place,
        seed=options.seed,
        batch_size=_at_once(contestant, options),
        allow_weak=True,
    )
    attacked = [cell for cell in cells if cell.attack != CLEAN]
    return cells[0], next((cell for cell in attacked if cell.attack == WORST), attacked[0])


def _told(rows: Sequence[Row], folder: Path, options: Any, rules: Rules, guides: Sequence[NamedClassifier]) -> str:
    """Write `compare.json` and `compare.md`; the table for the terminal."""
    sentence, classifier = comparison_table.verdict(rows, OURS), rules.classifier
    served = " and ".join(guide.name for guide in guides)
    about = (
        f"{classifier.name} on {options.data}, {rules.threat}, suite {options.suite}, seed {options.seed}; accuracy in "
        "%, [95% Wilson interval], the worst attack image by image, an upper bound; each rival that is trained had at "
        f"most the {rules.budget / 1e9:.1f} GFLOP of this defense's training, which served {served}; "
        "milliseconds on this machine, one image alone and one of 64."
    )
    found = {
        "run": str(options.run),
        "classifier": classifier.config(),
        "threat": str(rules.threat),
        "suite": options.suite,
        "seed": options.seed,
        "budget_flops": rules.budget,
        "rows": [row.plain() for row in rows],
        "verdict": sentence,
    }
    files.write_json(folder / "compare.json", found | {"about": files.provenance()})
    files.write(folder / "compare.md", f"{comparison_table.markdown(rows)}\n\n{about}\n\n{sentence}\n".encode())
    return f"{comparison_table.text(rows)}\n{about}\n\n{sentence}"
