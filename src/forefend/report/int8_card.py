"""The README of an int8 file: how it was made, and its accuracies beside float32's, all counted from records."""

from __future__ import annotations

import hashlib
from pathlib import Path

from forefend.evaluation.recount import recount
from forefend.models.export import Exported
from forefend.report.measured import counted_tables


def int8_card(path: Path, exported: Exported, calibration: str, folder: Path) -> str:
    """Return the README, in Markdown.

    Args:
        path: where the int8 file goes.
        exported: what goes there.
        calibration: the images on which it was calibrated, in words.
        folder: the evaluation of `int8_robustness`.
    """
    models = recount(folder)
    return _PAGE.format(
        name=path.name,
        sha256=hashlib.sha256(exported.content).hexdigest(),
        calibration=calibration,
        parity=exported,
        data=models[0].data,
        tables=counted_tables(models),
    )


_PAGE = """# {name}, int8

A classifier behind a defense of forefend, quantized to int8 by onnxruntime: images `(B, C, H, W)` float32 in [0, 1] to
logits. SHA-256 of the file: `{sha256}`.

- Weights are int8, with a scale for each channel and 7 bits; activations are uint8. The scales are constants, found on
  {calibration}.
- {parity}.

## Measured

Images of {data}. `float32` is the network before it was quantized.

{tables}

## How int8 was attacked

An int8 network has no gradient. The attacker knows the float32 network and uses its gradient: images were crafted on
float32 and shown to int8, and PGD took the gradient of float32 at each of its steps while int8 itself judged every
one. Rounding hides small changes from such an attacker, so that a higher accuracy of int8 is no evidence of more
robustness. Attacks without gradients on the file itself: `forefend evaluate --classifiers {name} --suite black-box`.
"""
