"""Compare a run's defence with its rivals: the same data and suite, equal training compute, what each costs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from .. import comparison, critics, records, settings, suites
from ..budget import training_flops
from ..checks import InputError, choose, unknown
from ..classifiers import Normalised
from ..comparison import Price, Row
from ..compute import counted, medians
from ..cost import cost_of, spelled
from ..data import Images, sample
from ..defence import Defence, Defended, load
from ..evaluation import evaluate
from ..guides import Guide
from ..modes import device_of, fingerprint, frozen
from ..named import Named, measure
from ..recipe import Cast, Recipe
from ..recipes import RECIPES
from ..subject import Subject
from ..suites import Suite
from ..summary import CLEAN, WORST, Cell
from ..threads import choose_threads
from ..threat import ThreatModel
from ..wasserstein import parse
from .contestants import (
    Contestant,
    Rules,
    and_through_bpda,
    check_rivals,
    denoised_smoothing,
    fine_tuned,
    plainly,
    transformed,
)
from .options import finder_of, images_of
from .subjects import images_for, placed
from .train import accelerator_of

OURS = "this defence"
ROUNDS = 21  # of each latency's median


def run(options: Any) -> str:
    """Train the rivals, attack all, leave records and `compare.json`; returns the table and who wins.

    Raises:
        InputError: options that do not fit together, or a run that holds no defence.
        Interrupted: asked to stop; the same call goes on.
    """
    accelerator = accelerator_of(options.device)
    suite_of = choose(options.suite, suites.SUITES, "suite")
    check_rivals(options.denoiser, sigma=options.sigma, copies=options.copies, lr=options.lr)
    run = records.Run(Path(options.run))
    defence = load(run.folder)
    if not (run.folder / "config.json").exists():
        raise InputError(
            f"{run.folder} was not trained by `forefend train`, and nothing says what its rivals may cost: train it so."
        )
    config = run.config
    images = images_for(options, run)
    guides = _guides(options, defence, config)
    classifier = _chosen(options, guides)
    threat = _threat(options, defence)
    suite = suite_of(suites.Terms([threat], len(images.classes)))
    choose_threads()
    rules, recipe = _rules(options, run, guides, classifier, threat, accelerator)
    print(f"{run.folder.name} took {rules.budget / 1e9:.1f} GFLOP to train: so may each rival", flush=True)
    folder = Path(options.out) if options.out else rules.folder / _place(options, threat)
    records.make(folder)  # refused before anyone is trained
    contestants = _contestants(options, rules, recipe, defence)
    placed([contestant.network for contestant in contestants], options.device)
    print(f"{len(contestants)} contestants, {len(images)} images -> {folder}", flush=True)
    print(_cost(contestants, images, suite, options), flush=True)
    cells = [_judged(contestant, images, suite, folder, options) for contestant in contestants]
    rows = _rows(contestants, cells, images, suite)
    return _told(rows, folder, options, rules, guides)


def _guides(options: Any, defence: Defence, config: Any) -> list[Named]:
    """The run's guides, still those that it learned from."""
    found = [finder_of(options, g["mean"], g["std"]).look_up(g["spec"]) for g in config.get("guides", [])]
    found = [replace(named, name=g["name"]) for named, g in zip(found, config.get("guides", []), strict=True)]
    if not found:
        raise InputError(
            f"{options.run} has no frozen guide to compare on: compare a run that was trained with guides."
        )
    for named in found:
        if not defence.has_seen(named.network):
            raise InputError(
                f"The guide {named.spec} is no longer the classifier that this run learned from: restore it."
            )
    return found


def _chosen(options: Any, guides: Sequence[Named]) -> Named:
    """The guide that the comparison is on: the one named, or the first."""
    names = {named.name: named for named in guides}
    if options.classifier is None:
        return guides[0]
    if options.classifier not in names:
        raise unknown(options.classifier, names, "guide of this run")
    return names[options.classifier]


def _threat(options: Any, defence: Defence) -> ThreatModel:
    given = options.threat or defence.card.threat
    if not given:
        raise InputError(
            "The run was trained under no threat model: say which to measure with --threat, as Linf:8/255."
        )
    return parse(given)


def _rules(
    options: Any,
    run: records.Run,
    guides: Sequence[Named],
    classifier: Named,
    threat: ThreatModel,
    accelerator: Accelerator,
) -> tuple[Rules, Recipe]:
    """The run's own training images and compute, which the rivals get."""
    config = run.config
    if not isinstance(classifier.network, Normalised):
        raise InputError(f"{classifier.name} has no card, so it cannot be fine-tuned and saved: name another guide.")
    images = images_of(options)("train")
    if config["images"] < len(images):
        images = sample(images, config["images"], config["seed"])
    if not options.allow_weak_classifier:
        measure(classifier.name, classifier.network, sample(images, min(500, len(images)), seed=0))
    recipe = settings.build(choose(config["recipe"], RECIPES, "recipe"), config["settings"])
    budget = training_flops(recipe, images, _cast(run, config, guides, images, options))
    folder = run.folder / "compare" / classifier.name.replace("/", "-")
    return Rules(classifier, threat, images, budget, config["seed"], options.data, folder, accelerator), recipe


def _cast(run: records.Run, config: Any, guides: Sequence[Named], images: Images, options: Any) -> Cast:
    """The networks that the run was trained with, to measure a step of it."""
    networks: dict[str, Any] = {"guides": [Guide(named.network, named.name) for named in guides]}
    networks["preprocessor"] = copy.deepcopy(load(run.folder).preprocessor)
    if "critic" in config:
        channels, size, _ = images.shape
        networks["critic"] = critics.build(config["critic"], channels=channels, size=size)
    if (run.folder / "classifier" / "classifier.json").exists():
        networks["classifier"] = finder_of(options).look_up(str(run.folder / "classifier")).network
    return Cast(**networks)


def _contestants(options: Any, rules: Rules, recipe: Recipe, defence: Defence) -> list[Contestant]:
    """Everyone, the defence last; whoever is to be trained is trained here."""
    network = rules.classifier.network
    inner = {key: getattr(recipe, key) for key in ("steps", "relative_step") if getattr(recipe, key, 0)}
    return [
        Contestant("undefended", network, network, plainly),
        *transformed(network, rules.images),
        denoised_smoothing(rules, options.denoiser, sigma=options.sigma, copies=options.copies),
        fine_tuned(rules, options.lr, inner),
        Contestant(OURS, Defended(defence, network), network, and_through_bpda, rules.budget),
    ]


def _place(options: Any, threat: ThreatModel) -> str:
    written = str(threat).replace("/", "_").replace(":", "")
    rivals = f"{options.denoiser}-sigma{options.sigma:g}-x{options.copies}-lr{options.lr:g}"
    return f"{options.suite}-{written}-{options.images or 'all'}-s{options.seed}-{rivals}"


def _cost(contestants: Sequence[Contestant], images: Images, suite: Suite, options: Any) -> str:
    """How long it takes to attack them all, said before it starts."""
    seconds = 0.0
    for contestant in contestants:
        subject, trials = Subject(contestant.name, contestant.network), contestant.attacked(suite)[0]
        seconds += cost_of([subject], images, trials, _at_once(contestant, options)).seconds
    return (
        f"At most {spelled(seconds)} of attacks, as measured on one batch each; images that are lost early cost less."
    )


def _at_once(contestant: Contestant, options: Any) -> int:
    """How many images go at once: fewer where each is seen in many noisy copies."""
    copies = int(getattr(contestant.network, "settings", {}).get("copies", 1))
    return max(1, options.batch_size // copies)


def _judged(contestant: Contestant, images: Images, suite: Suite, folder: Path, options: Any) -> tuple[Cell, Cell]:
    """Clean accuracy, and that under the worst attack."""
    trials, _ = contestant.attacked(suite)
    subject = Subject(contestant.name, contestant.network)
    place = folder / contestant.name.partition(" (")[0].replace(" ", "-")
    cells = evaluate(
        [subject],
        images,
        trials,
        folder=place,
        seed=options.seed,
        batch_size=_at_once(contestant, options),
        allow_weak=True,
    )
    attacked = [cell for cell in cells if cell.attack != CLEAN]
    return cells[0], next((cell for cell in attacked if cell.attack == WORST), attacked[0])


def _rows(
    contestants: Sequence[Contestant], cells: Sequence[tuple[Cell, Cell]], images: Images, suite: Suite
) -> list[Row]:
    """The cells, and beside them what each contestant costs, measured in turns."""
    x, _, _ = images.batch(torch.arange(64) % len(images))
    x = x.to(device_of(contestants[-1].network))
    networks = [frozen(contestant.network) for contestant in contestants]
    alone = [1000 * seconds for seconds in medians([partial(_answer, n, x[:1]) for n in networks], ROUNDS)]
    batched = [1000 * seconds / 64 for seconds in medians([partial(_answer, n, x) for n in networks], ROUNDS)]
    first = contestants[0].classifier
    rows = []
    for i, (contestant, network) in enumerate(zip(contestants, networks, strict=True)):
        forward = counted(partial(_answer, network, x[:1])).flops
        more, kilobytes = (a - b for a, b in zip(_size(network), _size(first), strict=True))
        price = Price(contestant.training_flops, forward, alone[i], batched[i], int(more), kilobytes)
        changed = fingerprint(contestant.classifier) != fingerprint(first)
        rows.append(Row(contestant.name, contestant.attacked(suite)[1], *cells[i], price, changed))
    return rows


def _answer(network: nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        network(x)


def _size(network: nn.Module) -> tuple[int, float]:
    """Parameters, and KiB of parameters and buffers."""
    tensors = [*network.parameters(), *network.buffers()]
    return sum(p.numel() for p in network.parameters()), sum(t.numel() * t.element_size() for t in tensors) / 1024


def _told(rows: Sequence[Row], folder: Path, options: Any, rules: Rules, guides: Sequence[Named]) -> str:
    """Write `compare.json` and `compare.md`; the table for the terminal."""
    sentence, classifier = comparison.verdict(rows, OURS), rules.classifier
    served = " and ".join(guide.name for guide in guides)
    about = (
        f"{classifier.name} on {options.data}, {rules.threat}, suite {options.suite}, seed {options.seed}; accuracy in "
        "%, [95% Wilson interval], the worst attack image by image, an upper bound; each rival that is trained had at "
        f"most the {rules.budget / 1e9:.1f} GFLOP of this defence's training, which served {served}; "
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
    records.write_json(folder / "compare.json", found | {"about": records.about()})
    records.write(folder / "compare.md", f"{comparison.markdown(rows)}\n\n{about}\n\n{sentence}\n".encode())
    return f"{comparison.text(rows)}\n{about}\n\n{sentence}"
