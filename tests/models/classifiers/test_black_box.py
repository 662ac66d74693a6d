"""Functions, ONNX files, processes and servers as classifiers."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.onnx_files import write_linear
from torch import nn

from forefend.checks import InputError
from forefend.models.classifiers.black_box import (
    BlackBox,
    black_box_in,
    http_classifier,
    onnx_classifier,
    process_classifier,
)
from forefend.models.classifiers.sources.local_server import is_loopback
from forefend.models.defended import Defended
from forefend.models.freezing import frozen

IMAGES = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))
WEIGHTS = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)


def linear(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return x.reshape(len(x), -1) @ WEIGHTS


LOGITS = torch.from_numpy(linear(IMAGES.numpy()))


def test_black_box_of_logits_returns_them_without_gradient() -> None:
    x = IMAGES.clone().requires_grad_()
    logits = BlackBox(linear, classes=3)(x)
    assert not logits.requires_grad
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, LOGITS)


def test_black_box_of_a_torch_function_accepts_a_tensor() -> None:
    model = BlackBox(lambda x: torch.from_numpy(linear(x)).double())
    torch.testing.assert_close(model(IMAGES), LOGITS)


def test_probabilities_become_their_logarithms_and_zero_stays_finite() -> None:
    model = BlackBox(lambda x: np.tile([0.75, 0.25, 0.0], (len(x), 1)), outputs="probabilities")
    logits = model(IMAGES)
    torch.testing.assert_close(logits[:, :2].exp(), torch.tensor([[0.75, 0.25]]).expand(5, 2))
    assert bool(logits.isfinite().all())


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_labels_become_one_hot_scores(shape: tuple[int, ...]) -> None:
    model = BlackBox(lambda x: np.arange(len(x)).reshape(shape) % 3, outputs="labels", classes=3)
    assert model(IMAGES).argmax(1).tolist() == [0, 1, 2, 0, 1]
    assert model(IMAGES)[1].tolist() == [-1, 1, -1]


def test_batches_are_split_and_images_are_its_own() -> None:
    sizes = []

    def spoil(x: np.ndarray[Any, Any]) -> Any:
        sizes.append(len(x))
        answers = linear(x)
        x[:] = 0
        return answers

    x = IMAGES.clone()
    torch.testing.assert_close(BlackBox(spoil, batch_size=2)(x), LOGITS)
    assert sizes == [2, 2, 1]
    assert torch.equal(x, IMAGES)


def test_frozen_copy_asks_the_same_function_which_cannot_be_copied() -> None:
    lock = threading.Lock()

    class Session:
        def __init__(self) -> None:
            self.lock = lock

        def __call__(self, x: np.ndarray[Any, Any]) -> Any:
            return linear(x)

    copied = frozen(BlackBox(Session(), classes=3))
    torch.testing.assert_close(copied(IMAGES), LOGITS)
    assert copied.classes == 3


def test_black_box_is_found_behind_a_defense() -> None:
    model = BlackBox(linear)
    assert black_box_in(model) is model
    assert isinstance(black_box_in(Defended(nn.Identity(), model)), BlackBox)
    assert black_box_in(nn.Linear(2, 2)) is None
    assert black_box_in(linear) is None


@pytest.mark.parametrize(
    ("score", "options", "words"),
    [
        (3, {}, "int was given as a black box"),
        (nn.Flatten(), {}, "Flatten was given as a black box"),
        (linear, {"outputs": "scores"}, "'scores'"),
        (linear, {"outputs": "labels"}, "how many classes"),
        (linear, {"classes": 1}, "at least 2"),
        (linear, {"batch_size": 0}, "at least 1"),
    ],
)
def test_black_box_of_wrong_arguments_is_refused(score: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        BlackBox(score, **options)


def softmax(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    e = np.exp(linear(x))
    return e / e.sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("score", "options", "words"),
    [
        (softmax, {}, "sum to 1, expected logits.*'probabilities'"),
        (linear, {"outputs": "probabilities"}, "do not sum to 1"),
        (lambda x: linear(x).argmax(1), {}, "returns labels, not logits"),
        (lambda x: np.eye(3)[linear(x).argmax(1)], {}, "sum to 1, expected logits"),
        (linear, {"outputs": "labels", "classes": 3}, "one class number each"),
        (lambda x: np.full(len(x), 3), {"outputs": "labels", "classes": 3}, "labels 3 … 3, expected 0 … 2"),
        (lambda x: np.full(len(x), 0.5), {"outputs": "labels", "classes": 3}, "one class number each"),
        (lambda x: linear(x)[:1], {}, r"shape \(1, 3\) for 5 images"),
        (linear, {"classes": 4}, r"expected \(5, 4\)"),
        (lambda x: linear(x) / 0, {}, "NaN or infinite"),
        (lambda x: np.array(["a"] * len(x)), {}, "expected numbers"),
        (lambda x: x.missing, {}, "failed on images"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_answers_of_another_form_are_refused(score: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        BlackBox(score, **options)(IMAGES)


@pytest.mark.parametrize("batch", ["batch", 1, 2, 8])
@pytest.mark.parametrize("outputs", ["logits", "probabilities"])
def test_onnx_classifier_equals_the_function_of_its_file(tmp_path: Path, batch: int | str, outputs: str) -> None:
    """A file may fix the number of images in a batch, below or above those that are asked for."""
    pytest.importorskip("onnxruntime")
    model = onnx_classifier(
        write_linear(tmp_path / "a.onnx", WEIGHTS, (batch, 1, 4, 4), outputs=outputs), outputs=outputs
    )
    expected = LOGITS if outputs == "logits" else LOGITS.log_softmax(1)
    torch.testing.assert_close(model(IMAGES), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(frozen(model)(IMAGES[:1]), expected[:1], atol=1e-5, rtol=0)


def test_onnx_classifier_reads_the_labels_among_several_outputs(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = write_linear(tmp_path / "a.onnx", WEIGHTS, outputs="labels")
    assert onnx_classifier(path, outputs="labels", classes=3)(IMAGES).argmax(1).tolist() == LOGITS.argmax(1).tolist()
    torch.testing.assert_close(onnx_classifier(path)(IMAGES), LOGITS, atol=1e-5, rtol=0)
    torch.testing.assert_close(onnx_classifier(path, output="logits")(IMAGES), LOGITS, atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="outputs logits, label, and scores is not one"):
        onnx_classifier(path, output="scores")


def test_onnx_classifier_refuses_images_of_another_size(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = onnx_classifier(write_linear(tmp_path / "a.onnx", WEIGHTS))
    with pytest.raises(InputError, match=r"takes images of 1 × 4 × 4, and these are 3 × 4 × 4"):
        model(torch.rand(2, 3, 4, 4))


def test_onnx_classifier_of_other_than_images_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(InputError, match=r"inputs pixels tensor\(float\).*expected one of float32 images"):
        onnx_classifier(write_linear(tmp_path / "a.onnx", WEIGHTS, ("batch", 16)))


@pytest.mark.parametrize("external", [True, False])
def test_onnx_digest_differs_for_other_weights(tmp_path: Path, external: bool) -> None:
    """Of two files with external weights, the .onnx themselves may be equal."""
    pytest.importorskip("onnxruntime")
    paths = []
    for scale in (1, 2):
        (tmp_path / str(scale)).mkdir()
        paths.append(write_linear(tmp_path / str(scale) / "a.onnx", WEIGHTS * scale, external=external))
    first, second = map(onnx_classifier, paths)
    assert (paths[0].read_bytes() == paths[1].read_bytes()) == external
    assert first.digest != second.digest
    torch.testing.assert_close(second(IMAGES), 2 * LOGITS, atol=1e-5, rtol=0)


@pytest.mark.parametrize("content", [None, b"text", b""])
def test_onnx_classifier_of_no_onnx_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "net.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"no file|no ONNX file"):
        onnx_classifier(path)


CHILD = """
import io, struct, sys, time
import numpy as np
weights = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
while len(head := sys.stdin.buffer.read(8)) == 8:
    x = np.load(io.BytesIO(sys.stdin.buffer.read(struct.unpack("<Q", head)[0])))
    {step}
    answer = io.BytesIO()
    np.save(answer, x.reshape(len(x), -1) @ weights)
    sys.stdout.buffer.write(struct.pack("<Q", answer.tell()) + answer.getvalue())
    sys.stdout.buffer.flush()
"""


def child(step: str = "") -> list[str]:
    return [sys.executable, "-c", CHILD.replace("{step}", step or "pass")]


def test_process_classifier_answers_batch_after_batch() -> None:
    model = process_classifier(child(), batch_size=2)
    for _ in range(2):
        torch.testing.assert_close(model(IMAGES), LOGITS)
    running = model._score._child  # type: ignore[attr-defined]
    model._score.close()  # type: ignore[attr-defined]
    assert running.returncode == 0


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("raise SystemExit('no memory left')", "ended with status 1 .*no memory left"),
        ("print('loading the weights'); sys.stdout.flush()", "prints other text"),
        ("sys.stdout.buffer.write(struct.pack('<Q', 4) + b'text'); sys.stdout.flush()", "no .npy"),
        ("time.sleep(60)", r"did not answer 5 images within 0\.7 s"),
    ],
)
def test_process_that_fails_is_refused_in_a_sentence(step: str, words: str) -> None:
    model = process_classifier(child(step), time_limit=0.7 if "sleep" in step else 60)
    with pytest.raises(InputError, match=words):
        model(IMAGES)
    with pytest.raises(InputError, match=r"ended with status"):
        model(IMAGES)


@pytest.mark.parametrize("command", ["", [], "  "])
def test_an_empty_command_is_told_from_one_that_cannot_start(command: Any) -> None:
    with pytest.raises(InputError, match="The command is empty, expected a program"):
        process_classifier(command)


@pytest.mark.parametrize("command", ["/no/such/program", "'unclosed"])
def test_command_that_cannot_start_is_refused(command: Any) -> None:
    with pytest.raises(InputError, match="cannot be started"):
        process_classifier(command)


def npy(values: Any) -> tuple[int, str, bytes]:
    file = BytesIO()
    np.save(file, values)
    return 200, "application/x-npy", file.getvalue()


def as_json(values: Any) -> tuple[int, str, bytes]:
    return 200, "application/json", json.dumps(values).encode()


@contextmanager
def serving(answer: Callable[[str, bytes], tuple[int, str, bytes]]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, kind, content = answer(self.headers["Content-Type"], body)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            if status == 302:
                self.send_header("Location", "http://192.0.2.1/")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/predict"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def images_of(body: bytes) -> Any:
    return np.load(BytesIO(body))


def test_http_classifier_sends_npy_and_reads_npy() -> None:
    with serving(lambda kind, body: npy(linear(images_of(body)))) as url:
        model = http_classifier(url, batch_size=3)
        torch.testing.assert_close(model(IMAGES), LOGITS)
        model._score.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("status", [400, 415, 422])
def test_http_classifier_sends_json_to_a_server_that_refuses_npy(status: int, wrapped: bool) -> None:
    kinds = []

    def answer(kind: str, body: bytes) -> tuple[int, str, bytes]:
        kinds.append(kind)
        if kind != "application/json":
            return status, "text/plain", b"JSON please"
        rows = linear(np.array(json.loads(body)["images"], dtype=np.float32)).tolist()
        return as_json({"outputs": rows} if wrapped else rows)

    with serving(answer) as url:
        model = http_classifier(url)
        for _ in range(2):
            torch.testing.assert_close(model(IMAGES), LOGITS, atol=1e-5, rtol=0)
        model._score.close()  # type: ignore[attr-defined]
    assert [kind.rpartition("/")[2] for kind in kinds] == ["x-npy", "json", "json"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((500, "text/plain", b"out of memory"), r"answers 500 \(out of memory\)"),
        ((415, "text/plain", b""), r"answers 415 \(nothing\)"),
        ((302, "text/plain", b""), "answers 302"),
        ((200, "text/html", b"<html>"), "cannot be read"),
        (as_json({"scores": [[1, 2]]}), "cannot be read"),
        (npy(np.zeros((2, 3))), "shape"),
    ],
)
def test_http_server_that_answers_otherwise_is_refused(answer: tuple[int, str, bytes], words: str) -> None:
    with serving(lambda kind, body: answer) as url:
        model = http_classifier(url)
        with pytest.raises(InputError, match=words):
            model(IMAGES)
        model._score.close()  # type: ignore[attr-defined]


def test_http_server_that_is_slow_or_gone_is_refused() -> None:
    free = threading.Event()

    def answer(kind: str, body: bytes) -> tuple[int, str, bytes]:
        free.wait(10)
        return npy(linear(images_of(body)))

    with serving(answer) as url:
        with pytest.raises(InputError, match=r"within 0\.2 s"):
            http_classifier(url, time_limit=0.2)(IMAGES)
        free.set()
    with pytest.raises(InputError, match="cannot be reached"):
        http_classifier(url)(IMAGES)


@pytest.mark.parametrize(
    "url",
    [
        *("http://example.com/predict", "http://192.0.2.1:80/", "https://127.0.0.1/", "127.0.0.1:80"),
        *("http://127.0.0.1.example.com/", "http://localhost@example.com/", "file:///etc/hosts", "http://[::1"),
    ],
)
def test_address_of_another_machine_is_refused(url: str) -> None:
    with pytest.raises(InputError, match=r"loopback|no address"):
        http_classifier(url)


def test_loopback_addresses_are_known() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
