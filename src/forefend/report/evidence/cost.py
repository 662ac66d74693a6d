"""Section 9: what the defense costs at run time, and what training and evaluation took."""

from __future__ import annotations

from collections.abc import Iterator

from forefend.report.evidence import commands
from forefend.report.evidence.sources import Sources
from forefend.report.page.blocks import COMPLETE, MISSING, PARTIAL, Block, Cell, Facts, Notice, Section, Table


def section(sources: Sources) -> Section:
    """Return latency, memory, training compute and the gradients of the evaluations."""
    found: list[Block] = []
    facts = [*_training(sources), *_evaluation(sources)]
    if facts:
        found.append(Facts(facts))
    if sources.latency:
        found.append(_latency(sources))
    else:
        text = "Latency and memory were not recorded."
        found.append(Notice(MISSING, text, commands.forefend("latency", sources)))
    if sources.config and not sources.training_flops:
        text = "The operations of the training were not counted. The comparison at equal compute counts them."
        found.append(Notice(MISSING, text, commands.compare(sources)))
    missing = sum(isinstance(block, Notice) for block in found)
    return Section("cost", "Cost", found, COMPLETE if not missing else PARTIAL if facts or missing < 2 else MISSING)


def _training(sources: Sources) -> Iterator[tuple[str, Cell]]:
    config = sources.config
    if sources.log:
        last = sources.log[-1]
        images = config.get("images")
        about = f" of {images:,} images" if isinstance(images, int) else ""
        yield "training", f"{last.get('epoch')} epochs{about}, {last.get('step')} steps"
    if sources.training_flops:
        yield "operations of the training", f"{sources.training_flops / 1e12:.3g} TFLOP"


def _evaluation(sources: Sources) -> Iterator[tuple[str, Cell]]:
    for one in sources.evaluations:
        cost = one.told.get("cost")
        if isinstance(cost, dict):
            gradients, forwards = cost.get("gradients"), cost.get("forwards")
            value = f"at most {gradients} gradients and {forwards} further forward passes for each image and model"
            yield f"evaluation {one.folder.name}", value


def _latency(sources: Sources) -> Table:
    batches = list(dict.fromkeys(size for one in sources.latency for size in one["milliseconds"]))
    heading = ["model", *(f"ms an image, batch {size}" for size in batches), "parameters", "weights MB", "memory MB"]
    rows = [
        [
            str(one["name"]),
            *(f"{one['milliseconds'][size]:.3g}" if size in one["milliseconds"] else "–" for size in batches),
            f"{one['parameters']:,}",
            f"{one['weights']:.3g}",
            f"{one['memory']:.3g}",
        ]
        for one in sources.latency
    ]
    first = sources.latency[0]
    caption = (
        f"Median of several runs on {first['device']}, {first['threads']} threads; memory: tensors held at a time."
    )
    return Table(heading, rows, caption)
