"""The images in the body of a request, whatever its content type."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from torch import Tensor

from forefend.serving.json_images import read_json
from forefend.serving.pictures import Expected, read_picture
from forefend.serving.request_error import RequestError

PICTURES = ("image/png", "image/jpeg", "image/jpg")
TAKEN = "image/png or image/jpeg, multipart/form-data with files, or application/json"


async def read_images(request: Request, expected: Expected, most_images: int, threads: Executor) -> list[Tensor]:
    """Return the images of a request, each `(C, H, W)` float32 in [0, 1].

    Args:
        request: the request.
        expected: the images that the server takes.
        most_images: of the request.
        threads: where pictures and JSON are decoded.

    Raises:
        RequestError: the content type is another, or the content cannot be used.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    loop = asyncio.get_running_loop()
    if kind == "application/json":
        content = await request.body()
        return await loop.run_in_executor(threads, read_json, content, expected, most_images)
    if kind == "multipart/form-data":
        files = await _uploads(request, most_images)
    elif kind in PICTURES:
        files = [(await request.body(), kind)]
    else:
        raise RequestError(415, f"The content type is {kind or 'missing'}, expected {TAKEN}.")
    return await loop.run_in_executor(threads, partial(_decoded, files, expected))


def _decoded(files: Sequence[tuple[bytes, str]], expected: Expected) -> list[Tensor]:
    return [
        read_picture(content, expected, f"Image {number}", declared)
        for number, (content, declared) in enumerate(files, start=1)
    ]


async def _uploads(request: Request, most_images: int) -> list[tuple[bytes, str]]:
    try:
        async with request.form(max_files=most_images, max_fields=10) as form:
            files = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
            if not files:
                raise RequestError(422, "The form holds no file: send pictures as curl -F images=@picture.png does.")
            return [(await file.read(), (file.content_type or "").lower()) for file in files]
    except HTTPException as error:
        if not error.detail.startswith("Too many files"):
            raise
        sentence = f"The form has too many files, expected at most {most_images}: send several requests."
        raise RequestError(413, sentence) from None
