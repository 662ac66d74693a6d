"""Serve the plain training loop, on the same batches and random starts as `fit`."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.plain_loop import Settings, train
from benchmarks.speed.benchmarks import training_step
from benchmarks.speed.results import Outcome, Work
from benchmarks.speed.timing import device, now
from benchmarks.speed.worker import serve
from forefend.runtime.rng import KeyedRNG

Batch = tuple[Tensor, Tensor, Tensor]


def work(name: str) -> Work:
    """Set up the training steps of a case."""
    case = training_step.CASES[name]
    batches = batches_of(case)
    settings, f = settings_of(case), case.classifier().to(device())

    def run() -> Outcome:
        steps = train(case.preprocessor().to(device()), f, batches, settings)
        began = now()
        losses = list(steps)
        return {"seconds": (now() - began) / case.steps, "losses": losses, "images": case.batch}

    run()
    return run


def settings_of(case: training_step.TrainingCase) -> Settings:
    """Return the hyper-parameters of RTFE."""
    recipe = case.recipe()
    return Settings(
        radius=recipe.threat.radius,
        steps=recipe.steps,
        step_size=recipe.relative_step * recipe.threat.radius,
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        milestones=[round(share * case.steps) for share in recipe.milestones],
    )


def batches_of(case: training_step.TrainingCase) -> list[Batch]:
    """Return the batches of one epoch in the order of `fit`, with the noise that its attack starts from."""
    images = case.images()
    number = KeyedRNG(torch.empty(0), 0, "order", step=0).integer()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(number))
    found = []
    for step, rows in enumerate(order.tensor_split(case.steps)):
        x, y, index = images.batch(rows)
        noise = 2 * KeyedRNG(index, 0, "train", step=step).uniform(x) - 1
        found.append((x.to(device()), y.to(device()), noise.to(device())))
    return found


if __name__ == "__main__":
    serve({(training_step.NAME, training_step.PLAIN): work}, {"torch": torch.__version__})
