"""Requests that cannot be answered: one sentence and a status from 400 to 499, never 500."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import httpx
import pytest
from helpers.serving import JSON, PNG, as_json, client, color_noise, encoded, png, saved, service, toy_images
from PIL import Image
from starlette.testclient import TestClient

GRAY = Image.new("L", (6, 6), 100)
GOOD = encoded(toy_images()[0])
FRAMES: dict[str, Any] = {"save_all": True, "append_images": [Image.new("L", (6, 6), 9)]}
PICTURES = {
    "empty": (b"", "image/png", 422, "Image 1 is empty"),
    "truncated png": (GOOD[:60], "image/png", 422, "is not a readable image"),
    "truncated jpeg": (saved(GRAY, "JPEG")[:-200], "image/jpeg", 422, "is not a"),
    "text": (b"not a picture at all", "image/png", 422, "is not an image of PNG, JPEG"),
    "bomb": (png(30_000, 30_000, 1, 0, b"\0" * 3751 * 30_000), "image/png", 413, "has more than 25,000,000 pixels"),
    "false size": (png(4_000_000_000, 4_000_000_000, 8, 0, b"\0"), "image/png", 413, "pixels"),
    "cmyk": (saved(Image.new("CMYK", (6, 6)), "JPEG"), "image/jpeg", 422, "has CMYK pixels, expected 8-bit"),
    "gray of 16 bits": (png(6, 6, 16, 0, b"\0" * 13 * 6), "image/png", 422, "has 16 bits in a channel"),
    "rgb of 16 bits": (png(6, 6, 16, 2, b"\0" * 37 * 6), "image/png", 422, "has 16 bits in a channel"),
    "animated gif": (saved(GRAY, "GIF", **FRAMES), "image/gif", 415, "The content type is image/gif"),
    "gif as png": (saved(GRAY, "GIF", **FRAMES), "image/png", 422, "is not an image of PNG, JPEG"),
    "animated png": (saved(GRAY, "PNG", **FRAMES), "image/png", 422, "is animated, expected one picture"),
    "tiff": (saved(GRAY, "TIFF"), "image/png", 422, "is not an image of PNG, JPEG"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml", 415, "The content type is image/svg+xml"),
    "jpeg as png": (saved(GRAY, "JPEG"), "image/png", 415, "was sent as image/png and is image/jpeg"),
    "another type": (GOOD, "text/plain", 415, "The content type is text/plain"),
    "no type": (GOOD, "", 415, "The content type is missing"),
    "another size": (saved(Image.new("L", (7, 6))), "image/png", 422, "expected 1 × 6 × 6"),
    "color": (saved(color_noise()), "image/png", 422, "is in color"),
}
OBJECT = '{"images": [IMAGE, ...], "range": "0-255" or "0-1"}'
ONE = toy_images()[0].tolist()


def body(images: Any = (), **others: Any) -> bytes:
    return json.dumps({"images": images, "range": "0-1", **others}).encode()


BODIES = {
    "empty": (b"", 400, "is not JSON"),
    "no json": (b"{", 400, "is not JSON"),
    "bytes": (b"\xff\xfe\x00\xd8", 400, "is not JSON"),
    "deep": (b"[" * 200_000, 400, "is not JSON"),
    "long number": (b'{"range": "0-1", "images": [[' + b"1" * 5000 + b"]]}", 400, "is not JSON"),
    "list": (b"[1, 2]", 422, "The body holds no keys"),
    "no range": (json.dumps({"images": [ONE]}).encode(), 422, "The body holds 'images', expected"),
    "another key": (body([ONE], mean=0.5), 422, "'mean'"),
    "another range": (body([ONE], range="-1-1"), 422, 'The range is \'-1-1\', expected "0-255" or "0-1"'),
    "range of numbers": (body([ONE], range=[0, 1]), 422, "The range is a list"),
    "bytes as 0-1": (as_json(toy_images(), 255).replace(b"0-255", b"0-1"), 422, 'its given range is "0-1"'),
    "0-1 as bytes": (as_json(toy_images()).replace(b"0-1", b"0-255"), 422, "holds no number above 1"),
    "negative": (body([[[-0.5] * 6] * 6]), 422, "ranges over [-0.5, -0.5]"),
    "nan": (body([[[float("nan")] * 6] * 6]), 422, "The body holds NaN, expected finite numbers"),
    "infinity": (body([[[float("-inf")] * 6] * 6]), 422, "The body holds -Infinity"),
    "overflow": (b'{"range": "0-1", "images": [[[1e999]]]}', 422, "ranges over [inf, inf]"),
    "large number": (body([[[10**30] * 6] * 6]), 422, "is not an array of numbers"),
    "ragged": (body([[[0.1] * 6, [0.1] * 5]]), 422, "is not an array of numbers"),
    "text": (body([[["0.5"] * 6] * 6]), 422, "is not an array of numbers"),
    "null": (body([[[None] * 6] * 6]), 422, "is not an array of numbers"),
    "booleans": (body([[[True] * 6] * 6]), 422, "is not an array of numbers"),
    "object": (body([{"pixels": 1}]), 422, "is not an array of numbers"),
    "no images": (body([]), 422, "expected a list of at least one image"),
    "empty image": (body([[]]), 422, "is not an array of numbers"),
    "one dimension": (body([[0.5] * 36]), 422, "has 1 dimensions"),
    "five dimensions": (body([[[[[0.5]]]]]), 422, "has 4 dimensions"),
    "another size": (body([[[0.5] * 5] * 6]), 422, "Image 1 is 1 × 6 × 5"),
    "too many": (body([ONE] * 33), 413, "The request has 33 images, expected at most 32"),
    "second": (body([ONE, [[2.0] * 6] * 6]), 422, "Image 2 ranges over [2, 2]"),
}


@pytest.fixture(scope="module")
def server() -> Any:
    with client() as opened:
        yield opened


def sentence(answer: httpx.Response) -> str:
    said = answer.json()
    assert said.keys() == {"detail"}
    assert isinstance(said["detail"], str)
    assert "\n" not in said["detail"]
    assert len(said["detail"]) < 300
    assert said["detail"].endswith((".", '".'))
    return str(said["detail"])


@pytest.mark.parametrize("name", PICTURES)
def test_picture_that_cannot_be_used_is_refused(server: TestClient, name: str) -> None:
    content, kind, status, words = PICTURES[name]
    headers = {"Content-Type": kind} if kind else {}
    answer = server.post("/predict", content=content, headers=headers)
    assert (answer.status_code, words in sentence(answer)) == (status, True), answer.text
    if kind in ("image/png", "image/jpeg"):
        upload = server.post("/predict", files={"images": ("x", content, kind)})
        assert (upload.status_code, words in sentence(upload)) == (status, True), upload.text


@pytest.mark.parametrize("name", BODIES)
def test_json_that_cannot_be_used_is_refused(server: TestClient, name: str) -> None:
    content, status, words = BODIES[name]
    answer = server.post("/predict", content=content, headers=JSON)
    assert (answer.status_code, words in sentence(answer)) == (status, True), answer.text


@pytest.mark.parametrize(
    ("content", "kind", "status", "words"),
    [
        (b"abc", "multipart/form-data", 400, "boundary"),
        (b"abc", "multipart/form-data; boundary=x", 400, ""),
        (b"--x\r\n\r\n", "multipart/form-data; boundary=x", 400, ""),
        (b"--x--\r\n", "multipart/form-data; boundary=x", 422, "The form holds no file"),
        (
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
            422,
            "The form holds no file",
        ),
    ],
)
def test_form_that_cannot_be_used_is_refused(
    server: TestClient, content: bytes, kind: str, status: int, words: str
) -> None:
    answer = server.post("/predict", content=content, headers={"Content-Type": kind})
    assert (answer.status_code, words in sentence(answer)) == (status, True), answer.text


def test_too_many_files_are_refused(server: TestClient) -> None:
    files = [("images", ("x.png", GOOD, "image/png"))]
    assert server.post("/predict", files=files * 32).status_code == 200
    for count in (33, 34, 90):
        answer = server.post("/predict", files=files * count)
        assert (answer.status_code, "expected at most 32" in sentence(answer)) == (413, True)


@pytest.mark.parametrize("query", ["top=0", "top=x", "images=gif", "bare=perhaps"])
def test_parameter_that_is_not_known_is_refused(server: TestClient, query: str) -> None:
    answer = server.post(f"/predict?{query}", content=GOOD, headers=PNG)
    assert (answer.status_code, query.split("=")[0] in sentence(answer)) == (422, True)


def test_another_address_or_method_is_refused(server: TestClient) -> None:
    for method, path, status in [("GET", "/nowhere", 404), ("GET", "/predict", 405), ("POST", "/health", 405)]:
        answer = server.request(method, path)
        assert (answer.status_code, sentence(answer) != "") == (status, True)


def test_pages_that_load_scripts_from_elsewhere_do_not_exist(server: TestClient) -> None:
    assert {server.get(path).status_code for path in ("/docs", "/redoc")} == {404}


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg", "application/json"])
def test_damaged_bodies_never_fail_the_server(server: TestClient, kind: str) -> None:
    jpeg, arrays = encoded(toy_images()[0], "JPEG"), as_json(toy_images())
    good = {"image/png": GOOD, "image/jpeg": jpeg, "application/json": arrays}[kind]
    dice = random.Random(0)
    for _ in range(100):
        content = bytearray(good)
        for _ in range(dice.randint(1, 4)):
            content[dice.randrange(len(content))] = dice.randrange(256)
        sent = bytes(content[: dice.randint(1, 2 * len(content))])
        answer = server.post("/predict", content=sent, headers={"Content-Type": kind})
        assert answer.status_code in (200, 400, 413, 415, 422), sent
        if answer.status_code != 200:
            sentence(answer)


def test_body_that_is_too_long_is_refused_before_it_is_read() -> None:
    with client(service(most_bytes=1000)) as server:
        told = server.post("/predict", content=b"0" * 1001, headers=JSON)
        untold = server.post("/predict", content=itertools.repeat(b"0" * 100, 11), headers=JSON)
        assert server.post("/predict", content=GOOD, headers=PNG).status_code == 200
    assert (told.status_code, untold.status_code) == (413, 413)
    assert sentence(told) == sentence(untold) == "The body has more than 1,000 bytes: send fewer or smaller images."


def test_client_that_asks_too_often_is_told_to_wait() -> None:
    with client(service(rate=2)) as server:
        found = [server.post("/predict", content=GOOD, headers=PNG) for _ in range(3)]
        assert server.get("/health").status_code == 200
    assert [answer.status_code for answer in found] == [200, 200, 429]
    assert "asks more than 2 times a second: wait" in sentence(found[2])
    assert found[2].headers["Retry-After"] == "1"


def test_stopping_server_refuses_new_requests() -> None:
    made = service()
    with client(made) as server:
        made.traffic.stopping = True
        for path in ("/health", "/info", "/"):
            answer = server.get(path)
            assert (answer.status_code, "is stopping" in sentence(answer)) == (503, True)
            assert answer.headers["Connection"] == "close"
