"""The plain training loop as a subject of the bench, on the very batches and starts that `fit` has."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.speed.benchmarks import training_step
from benchmarks.speed.results import Outcome, Work
from benchmarks.speed.timing import device, now
from benchmarks.speed.worker import serve
from forefend.runtime.rng import KeyedRNG

from ..plain_loop import Settings, train

Batch = tuple[Tensor, Tensor, Tensor]


def work(case: str) -> Work:
    """The scene's steps; setting up is not timed."""
    scene = training_step.SCENES[case]
    batches = batches_of(scene)
    settings, f = settings_of(scene), scene.classifier().to(device())

    def run() -> Outcome:
        steps = train(scene.preprocessor().to(device()), f, batches, settings)
        began = now()
        losses = list(steps)
        return {"seconds": (now() - began) / scene.steps, "losses": losses, "images": scene.batch}

    run()
    return run


def settings_of(scene: training_step.Scene) -> Settings:
    """RTFE's own numbers."""
    recipe = scene.recipe()
    return Settings(
        radius=recipe.threat.radius,
        steps=recipe.steps,
        step_size=recipe.relative_step * recipe.threat.radius,
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        milestones=[round(share * scene.steps) for share in recipe.milestones],
    )


def batches_of(scene: training_step.Scene) -> list[Batch]:
    """The batches of one epoch as `fit` orders them, with the noise that its attack starts from."""
    images = scene.images()
    number = KeyedRNG(torch.empty(0), 0, "order", step=0).integer()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(number))
    found = []
    for step, rows in enumerate(order.tensor_split(scene.steps)):
        x, y, index = images.batch(rows)
        noise = 2 * KeyedRNG(index, 0, "train", step=step).uniform(x) - 1
        found.append((x.to(device()), y.to(device()), noise.to(device())))
    return found


if __name__ == "__main__":
    serve({(training_step.NAME, training_step.PLAIN): work}, {"torch": torch.__version__})
