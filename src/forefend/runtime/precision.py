"""Precision: the numbers that networks compute in, and which of them a device is quick at."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from forefend.checks import choose

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def supported_dtype(precision: str, device: torch.device) -> tuple[torch.dtype, str]:
    """The numbers to compute in on this device, and why, where they are not those that were asked for.

    Lower precision is asked for to save time. A processor without bfloat16 arithmetic imitates it, which takes many
    times longer than float32 and brings nothing.

    Args:
        precision: `fp32` or `bf16`.
        device: where the network is.

    Raises:
        InputError: an unknown precision.
    """
    dtype = choose(precision, PRECISIONS, "precision")
    if dtype is torch.float32 or _has_bfloat16(device):
        return dtype, ""
    return torch.float32, f"this {device.type} has no bfloat16 arithmetic and would be slower"


def effective_precision(precision: str, device: torch.device) -> str:
    """The precision that is computed in on this device where `precision` is asked for."""
    return "fp32" if supported_dtype(precision, device)[1] else precision


def report_fallback(what: str, precision: str, device: torch.device) -> None:
    """Say in the first of several processes that what was asked for is computed in fp32, if it is.

    Args:
        what: who computes, and the verb: the sentence's beginning.
        precision: that was asked for.
        device: that it computes on.
    """
    reason = supported_dtype(precision, device)[1]
    if reason and os.environ.get("RANK", "0") == "0":
        print(f"{what} in fp32, for {reason}.", flush=True)


@contextmanager
def full_float32() -> Iterator[None]:
    """Let a GPU convolve float32 as float32, and give torch's setting back afterwards.

    By default it rounds what it multiplies to ten bits of mantissa (TF32), so that two forms of one network disagree
    about images near the boundary, where attacks leave them.
    """
    holder: Any = torch.backends.cudnn
    name: str = "allow_tf32"
    exact: Any = False
    try:
        before = holder.allow_tf32
    except RuntimeError:  # somebody has set what is newer than that name
        holder, name, exact = holder.conv, "fp32_precision", "ieee"
        before = holder.fp32_precision
    setattr(holder, name, exact)
    try:
        yield
    finally:
        setattr(holder, name, before)


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cpu":
        asked = getattr(torch.cpu, "get_capabilities", None)
        if asked is None:  # a torch that does not tell
            return True
        # avx512_bf16 and amx_bf16 are among them, and what Arm calls its own.
        return any(bool(has) for name, has in asked().items() if name.endswith("bf16"))
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return True
