"""Precision: the numbers that networks compute in, and which of them a device is quick at."""

from __future__ import annotations

import torch

from .checks import choose

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def fitting(precision: str, device: torch.device) -> tuple[torch.dtype, str]:
    """The numbers to compute in on this device, and a sentence where they are not those that were asked for.

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
    return torch.float32, f"It computes in fp32, for this {device.type} has no bfloat16 arithmetic and would be slower."


def tell(precision: str, device: torch.device) -> None:
    """Print the sentence of `fitting`, if there is one: for who asked for a precision at the door."""
    sentence = fitting(precision, device)[1]
    if sentence:
        print(sentence, flush=True)


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
