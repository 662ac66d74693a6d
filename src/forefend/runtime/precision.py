"""The precision that networks compute in, and whether a device supports it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from forefend.checks import choose

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def supported_dtype(precision: str, device: torch.device) -> tuple[torch.dtype, str]:
    """Return the dtype to compute in on a device, and the reason for a fallback from `precision`.

    A processor without bfloat16 arithmetic emulates it, many times slower than float32.
    """
    dtype = choose(precision, PRECISIONS, "precision")
    if dtype is torch.float32 or _has_bfloat16(device):
        return dtype, ""
    return torch.float32, f"this {device.type} has no bfloat16 arithmetic and would be slower"


def effective_precision(precision: str, device: torch.device) -> str:
    """Return the precision that a device computes in where `precision` is requested."""
    return "fp32" if supported_dtype(precision, device)[1] else precision


def report_fallback(what: str, precision: str, device: torch.device) -> None:
    """Print, in the first process, that `what` falls back to fp32 on a device, if it does."""
    reason = supported_dtype(precision, device)[1]
    if reason and os.environ.get("RANK", "0") == "0":
        print(f"{what} in fp32, for {reason}.", flush=True)


@contextmanager
def full_float32() -> Iterator[None]:
    """Switch off TF32 convolutions of a GPU inside the context, and restore the setting afterwards.

    TF32 rounds to ten bits of mantissa. Two forms of one network then disagree near the decision
    boundary, where attacks leave images.
    """
    holder: Any = torch.backends.cudnn
    name: str = "allow_tf32"
    exact: Any = False
    try:
        before = holder.allow_tf32
    except RuntimeError:  # the newer setting is in use, and torch refuses to mix them
        holder, name, exact = holder.conv, "fp32_precision", "ieee"
        before = holder.fp32_precision
    setattr(holder, name, exact)
    try:
        yield
    finally:
        setattr(holder, name, before)


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cpu":
        capabilities = getattr(torch.cpu, "get_capabilities", None)
        if capabilities is None:  # an older torch
            return True
        return any(bool(has) for name, has in capabilities().items() if name.endswith("bf16"))  # of x86 and Arm
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return True
