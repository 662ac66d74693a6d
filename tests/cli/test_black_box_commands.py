"""Commands on an ONNX file and on a process, which give no gradient."""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command_line import done, refused
from helpers.onnx_files import write_linear

from forefend import data

for module, extra in (("foolbox", "blackbox"), ("onnxruntime", "onnx"), ("sklearn", "demo")):
    pytest.importorskip(module, reason=f"the extra {extra} is not installed")
LINE = "--data digits --images 6 --threat Linf:0.3 --allow-weak-classifier"
NONE = "--mean 0 --std 1"


@cache
def weights() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """A logistic regression on the digits."""
    from sklearn.linear_model import LogisticRegression

    x, y, _ = data.load("digits", "train").batch(torch.arange(400))
    fitted = LogisticRegression(fit_intercept=False, max_iter=500).fit(x.flatten(1).numpy(), y.numpy())
    return np.ascontiguousarray(fitted.coef_.T, dtype=np.float32)


@pytest.fixture
def onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_linear(tmp_path / "digits.onnx", weights(), ("n", 1, 8, 8))


def test_evaluate_of_an_onnx_file_runs_the_suite_black_box_by_default(onnx: Path) -> None:
    shown = done(f"evaluate --classifiers {onnx} {NONE} {LINE} --out out --attacks")
    assert "WARNING: digits is a black box" in shown
    assert "at most 5,000 times for an image, 30,000 times in all" in shown
    for attack in ("Square", "HopSkipJump", "Boundary"):
        assert f"digits (black box)  no       {attack}" in shown
    assert "digits (black box)" in done("report out")
    assert "is a black box" in done("report out --markdown")
    assert "white" not in Path("out/summary.json").read_text(encoding="utf-8")
    assert done(f"evaluate --classifiers {onnx} {NONE} {LINE} --out out").splitlines()[-3] in shown + done("report out")


def test_white_box_suite_on_an_onnx_file_is_refused_with_nothing_written(onnx: Path) -> None:
    said = refused(f"evaluate --classifiers {onnx} {NONE} {LINE} --suite quick --out out")
    assert "digits is a black box, and FGSM needs its gradient" in said
    assert "--suite black-box" in said
    assert "--surrogates" in said
    assert not Path("out").exists()


def test_check_of_an_onnx_file_skips_what_needs_gradients(onnx: Path) -> None:
    shown = done(f"check --classifiers {onnx} {NONE} --data digits --images 6 --threat Linf:0.3 --out out")
    assert "digits: passed, 14 skipped" in shown
    (report,) = json.loads(Path("out/check.json").read_text(encoding="utf-8"))["reports"].values()
    assert sum("gives no gradient" in result["measured"] for result in report["checks"]) == 13


def test_label_only_process_is_evaluated_without_square(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("weights.npy", weights())
    Path("scorer.py").write_text(
        "import io, struct, sys\n"
        "import numpy as np\n"
        "weights = np.load('weights.npy')\n"
        "while len(head := sys.stdin.buffer.read(8)) == 8:\n"
        "    x = np.load(io.BytesIO(sys.stdin.buffer.read(struct.unpack('<Q', head)[0])))\n"
        "    answer = io.BytesIO()\n"
        "    np.save(answer, (x.reshape(len(x), -1) @ weights).argmax(1))\n"
        "    sys.stdout.buffer.write(struct.pack('<Q', answer.tell()) + answer.getvalue())\n"
        "    sys.stdout.buffer.flush()\n",
        encoding="utf-8",
    )
    command = f"'process:{sys.executable} scorer.py'"
    shown = done(f"evaluate --classifiers {command} --outputs labels {LINE} --out out --attacks")
    assert "gives scores without a margin" in shown
    assert "Square-" not in shown
    assert "HopSkipJump" in shown
