"""A small service, its client, a server process, and pictures of every kind."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from helpers import toy_networks
from helpers.toy_networks import SIZE
from PIL import Image
from starlette.testclient import TestClient
from torch import Tensor, nn

from forefend.models.defense import Defense, DefenseCard
from forefend.serving.app import Service, application
from forefend.serving.gate import Traffic
from forefend.serving.info import describe, model_card
from forefend.serving.limits import Limits
from forefend.serving.pipeline import Pipeline, pipeline

JSON = {"Content-Type": "application/json"}
PNG = {"Content-Type": "image/png"}


def toy_pipeline(classifier: nn.Module | None = None, defense: nn.Module | None = None, **options: Any) -> Pipeline:
    """A small classifier behind a small defense, for gray images of 6 x 6 pixels."""
    guarded = Defense(defense or toy_networks.preprocessor(), DefenseCard("", recipe="toy", data="toy")).eval()
    return pipeline(guarded, classifier or toy_networks.classifier(), "toy", (1, SIZE, SIZE), **options)


def service(made: Pipeline | None = None, *, resize: bool = False, window: float = 0.0, **limits: Any) -> Service:
    """A service with these limits."""
    made, held = made or toy_pipeline(), Limits(**limits)
    card = model_card(made.defense, None)
    return Service(made, describe(made, held, card, resize=resize), held, window, resize, Traffic())


@contextmanager
def client(made: Service | None = None) -> Iterator[TestClient]:
    """A client of a service in this process; an error of the server is raised here."""
    with TestClient(application(made or service())) as opened:
        yield opened


def toy_images(count: int = 1, seed: int = 0) -> Tensor:
    """Images of 256 levels, as PNG files hold them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 1, SIZE, SIZE), generator=generator).float() / 255


def encoded(x: Tensor, form: str = "PNG", **options: Any) -> bytes:
    """An image, `(C, H, W)` in [0, 1], as a file."""
    pixels = (x * 255).round().byte().permute(1, 2, 0).squeeze(2).numpy()
    return saved(Image.fromarray(pixels), form, **options)


def saved(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """A Pillow image as a file."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png(width: int, height: int, bits: int, color: int, rows: bytes) -> bytes:
    """A PNG file written by hand: Pillow cannot write every kind."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def as_json(x: Tensor, scale: int = 1) -> bytes:
    """A JSON body of images in [0, 1]."""
    return json.dumps({"images": (x * scale).tolist(), "range": f"0-{scale}"}).encode()


def color_noise(side: int = SIZE) -> Image.Image:
    """A picture in color."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))
