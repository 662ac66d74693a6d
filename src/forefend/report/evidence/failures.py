"""Pictures of failures, from the files that `evaluate --pictures` wrote."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forefend.checks import InputError, import_extra
from forefend.evaluation.failure_pictures import PICTURES, FailurePictures, load
from forefend.report.evidence import commands
from forefend.report.evidence.headline import Verdict
from forefend.report.evidence.sources import Sources
from forefend.report.page.blocks import FAILED, MISSING, Block, Gallery, Notice, Picture

TIMES = 8  # by which differences are multiplied to be seen
LARGEST = 160  # pixels; larger pictures are sampled down for the page


def blocks(sources: Sources, verdict: Verdict | None) -> list[Block]:
    """Return a gallery for each evaluation that kept pictures, that of the verdict first; else what would fill it."""
    own = [verdict.evaluation] if verdict else []
    folders = dict.fromkeys(one.folder for one in [*own, *sources.evaluations])
    found: list[Block] = []
    for folder in folders:
        if (folder / PICTURES).exists() and not found:
            found.append(_gallery(folder))
    if found:
        return found
    text = "No picture of a failure was kept."
    return [Notice(MISSING, text, commands.evaluate(sources, verdict, "--pictures", "8", suite="quick"))]


def _gallery(folder: Path) -> Block:
    try:
        held = load(folder)
    except InputError as error:
        return Notice(FAILED, str(error))
    rows = [_row(held, number) for number in range(len(held.index))]
    caption = (
        f"{held.model} under {held.attack}, {held.threat}: the first {len(rows)} images that the attack misleads. "
        f"Differences are those of the attack, {TIMES} times enlarged around gray."
    )
    processed = ["processed"] if held.defended else []
    return Gallery(["clean", "attacked", *processed, f"difference ×{TIMES}", "answers"], rows, caption)


def _row(held: FailurePictures, number: int) -> tuple[Sequence[Picture], str]:
    index, label = held.index[number], held.labels[number]
    clean, attacked, processed = (images[number] for images in (held.clean, held.attacked, held.processed))
    difference = ((attacked.astype("int16") - clean) * TIMES + 128).clip(0, 255).astype("uint8")
    shown = {"clean image": clean, "attacked image": attacked}
    shown |= {"what the defense makes of it": processed} if held.defended else {}
    shown |= {f"difference of the attack, {TIMES} times enlarged": difference}
    pictures = [Picture(png(pixels), f"Image {index}, class {label}: {text}") for text, pixels in shown.items()]
    before, after = held.answered_clean[number], held.answered[number]
    answers = f"Image {index}, class {label}: answered {before} when clean, {after} when attacked."
    return pictures, answers


def png(pixels: Any) -> bytes:
    """Return an image `(C, H, W)` of bytes as PNG."""
    image = import_extra("PIL.Image", "A picture on the page", "report")
    step = max(1, -(-max(pixels.shape[1:]) // LARGEST))
    rows = pixels[:, ::step, ::step].transpose(1, 2, 0)
    drawn = image.fromarray(rows[..., 0] if rows.shape[2] == 1 else rows[..., :3].copy())
    content = io.BytesIO()
    drawn.save(content, format="PNG", optimize=True)
    return content.getvalue()
