"""Training that is stopped, killed, resumed or spread over two processes ends as if nothing had happened."""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from helpers import training_process
from helpers.told_tracker import ToldTracker
from helpers.torchrun import in_two_processes
from helpers.toy_networks import Stopping, preprocessor, same, toy_cast, toy_images, train, trained
from safetensors.torch import load_file
from torch import Tensor, nn

from forefend.attacks.base import Attack
from forefend.attacks.pgd import PGD
from forefend.checks import InputError
from forefend.recipes import AAA, RTFE, Adversarial
from forefend.recipes.base import Batch, Networks, Steps
from forefend.recipes.state import TrainState
from forefend.runtime.rng import KeyedRNG
from forefend.runtime.run_folder import Run
from forefend.runtime.signals import Interrupted
from forefend.threat_models.lp import Linf
from forefend.training import checkpoint
from forefend.training.inner_attacks import ATTA, InnerAttack

SMALL = RTFE(Linf(0.1), steps=1, epochs=2, batch_size=16)


def test_dropout_resumes_where_it_stopped(tmp_path: Path) -> None:
    def networks() -> Networks:
        return Networks(nn.Sequential(*preprocessor(), nn.Dropout(0.5)), toy_cast().guides)

    with pytest.raises(KeyboardInterrupt):
        train(SMALL, toy_images(), networks(), run=Run(tmp_path), augment=Stopping(4), checkpoint_every=0.0)
    resumed = trained(train(SMALL, toy_images(), networks(), run=Run(tmp_path)))
    assert same(resumed, trained(train(SMALL, toy_images(), networks())))


def weights(networks: Networks) -> list[Tensor]:
    return [tensor.clone() for tensor in networks.preprocessor.state_dict().values()]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"recipe": AAA(Linf(0.1), steps=1, epochs=2, batch_size=16)}, "recipe was 'RTFE', now 'AAA'"),
        ({"recipe": replace(SMALL, lr=0.5)}, "lr was 0.1, now 0.5"),
        ({"recipe": replace(SMALL, epochs=3)}, "epochs was 2, now 3"),
        ({"data": toy_images(30)}, "images was 40, now 30"),
        ({"data": replace(toy_images(), name="other")}, "data was 'toy', now 'other'"),
        ({"data": replace(toy_images(), pixels=1 - toy_images().pixels)}, "pixels was "),
        ({"data": replace(toy_images(), labels=toy_images().labels.flip(0))}, "pixels was "),
        ({"data": replace(toy_images(), index=toy_images().index + 1)}, "pixels was "),
        ({"cast": partial(toy_cast, guides=1)}, "guides was "),
        ({"seed": 1}, "seed was 0, now 1"),
        ({"attack_copy": "fp32"}, "attack_copy was None, now 'fp32'"),
        ({"inner_attack": ATTA()}, "inner_attack was 'AsPublished', now 'ATTA(steps=(1,)"),
        ({"ema": 0.9}, "ema was None, now 0.9"),
        ({"keep_best": 0.1}, "keep_best was None, now 0.1"),
        ({"precision": "bf16"}, "precision was 'fp32', now 'bf16'"),
    ],
)
def test_fit_of_another_training_does_not_resume(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    train(SMALL, toy_images(), toy_cast(), run=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    networks = changes.pop("cast", toy_cast)()
    own = weights(networks)
    with pytest.raises(InputError) as error:
        train(changes.pop("recipe", SMALL), changes.pop("data", toy_images()), networks, run=tmp_path, **changes)
    assert f"checkpoint.safetensors belongs to another configuration ({told}" in str(error.value)
    assert same(weights(networks), own)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("row", [1, 300, 599])
def test_fit_with_one_other_image_of_many_does_not_resume(row: int, tmp_path: Path) -> None:
    data, recipe = toy_images(600), replace(SMALL, batch_size=300)
    train(recipe, data, toy_cast(), run=tmp_path)
    pixels = data.pixels.clone()
    pixels[row] = 1 - pixels[row]
    with pytest.raises(InputError, match="pixels was "):
        train(recipe, replace(data, pixels=pixels), toy_cast(), run=tmp_path)


def test_fit_makes_the_run_folder_and_reports_its_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "new" / "run"
    with pytest.raises(KeyboardInterrupt):
        train(SMALL, toy_images(), toy_cast(), run=str(place), augment=Stopping(4), checkpoint_every=0.0)
    assert "is done" not in capsys.readouterr().out
    resumed = train(SMALL, toy_images(), toy_cast(), run=place, monitor=None)  # the monitor may change
    assert f"{place}: step 4 of 6 is done, resuming" in capsys.readouterr().out
    again = train(SMALL, toy_images(), toy_cast(), run=Run(place))
    assert f"{place}: step 6 of 6 is done, nothing is left to do" in capsys.readouterr().out
    assert same(trained(again), trained(resumed))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file cannot be created \(File exists\): choose another folder\.$"):
        train(SMALL, toy_images(), toy_cast(), run=tmp_path / "file")


def halves(progress: float) -> float:
    return 0.5


@dataclass(frozen=True)
class Mine(InnerAttack):
    """Somebody's own, one of whose fields has another address in each process."""

    schedule: Callable[[float], float] = halves
    times: int = 1

    def __call__(self, attack: PGD, batch: Batch, state: TrainState) -> PGD:
        return replace(attack, step_size=float(attack.step_size) * self.schedule(batch.progress))

    def uses_single_steps(self, steps: int) -> bool:
        return False


@dataclass(frozen=True)
class Unlike(Adversarial):
    """Somebody's own recipe, whose radius has another name, and whose field has an address."""

    threat: Any = None
    radius: float = 0.1
    factor: Any = None

    def inner_attack(self) -> PGD:
        return replace(SINGLE, threat=Linf(self.radius)).inner_attack()

    def training_step(self, train: Networks, craft: Networks, batch: Batch, attack: Attack, state: TrainState) -> Steps:
        yield from replace(SINGLE, threat=Linf(self.radius)).training_step(train, craft, batch, attack, state)


SINGLE = Adversarial(Linf(0.1), steps=1, epochs=2, batch_size=16)


def test_fit_with_other_addresses_resumes(tmp_path: Path) -> None:
    factors, schedules = (object(), object()), (lambda progress: 0.5, lambda progress: 0.5)
    own = Unlike(steps=1, epochs=2, batch_size=16)
    for factor, schedule in zip(factors, schedules, strict=True):
        train(SMALL, toy_images(), toy_cast(), run=tmp_path / "inner", inner_attack=Mine(schedule))
        train(replace(own, factor=factor), toy_images(), toy_cast(), run=tmp_path / "recipe")
    with pytest.raises(InputError, match=r"radius was 0\.1, now 0\.2"):
        train(replace(own, radius=0.2), toy_images(), toy_cast(), run=tmp_path / "recipe")


def test_fit_with_a_numpy_seed_resumes(tmp_path: Path) -> None:
    import numpy as np

    own = Unlike(steps=1, epochs=2, batch_size=16)
    train(own, toy_images(), toy_cast(), seed=np.int64(3), run=tmp_path)
    train(own, toy_images(), toy_cast(), seed=3, run=tmp_path)


def test_log_after_a_kill_holds_each_epoch_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, log = Run(tmp_path), tmp_path / "train.jsonl"

    def die(*_: object, **more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", die)
        with pytest.raises(KeyboardInterrupt):
            train(SMALL, toy_images(), toy_cast(), run=run)
    assert len(log.read_text().splitlines()) == 1
    with log.open("a") as file:
        file.write('{"epoch": 2, "st')  # and once more, in the middle of a line
    train(SMALL, toy_images(), toy_cast(), run=run)
    assert [re.findall(r'"epoch": (\d)', line) for line in log.read_text().splitlines()] == [["1"], ["2"]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_fit_after_a_signal_resumes(number: int, tmp_path: Path) -> None:
    run, old = Run(tmp_path), signal.getsignal(number)
    sent: list[int] = []

    def send(x: Tensor, rng: KeyedRNG) -> Tensor:
        if rng.step == 3 and not sent:
            sent.append(number)
            os.kill(os.getpid(), number)
        return x

    expected = trained(train(SMALL, toy_images(), toy_cast()))
    with pytest.raises(Interrupted, match=r"^stopped after step 4 of 6$"):
        train(SMALL, toy_images(), toy_cast(), run=run, augment=send, checkpoint_every=1e9)
    assert signal.getsignal(number) is old
    assert same(trained(train(SMALL, toy_images(), toy_cast(), run=run, augment=send)), expected)


def test_fit_after_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    def send(x: Tensor, rng: KeyedRNG) -> Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("went on after a second signal")

    with pytest.raises(KeyboardInterrupt) as caught:
        train(SMALL, toy_images(), toy_cast(), run=Run(tmp_path), augment=send)
    assert caught.type is KeyboardInterrupt


def test_fit_killed_repeatedly_gives_the_same_weights(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["forefend.training.trainer", "torch._dynamo"]
    )  # what a child would wait for longest
    chance, folder, kills = random.Random(0), tmp_path / "killed", 0
    for name in ("killed", "whole"):
        (tmp_path / name).mkdir()
    while kills < 6:
        before = _written(folder)
        process = context.Process(target=training_process.slow_run, args=(folder,))
        process.start()
        while process.is_alive() and _written(folder) == before:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.02))
        assert process.is_alive(), "it came to its end before it could be killed: give it more steps"
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        kills += 1
    for name in ("killed", "whole"):
        process = context.Process(target=training_process.slow_run, args=(tmp_path / name,))
        process.start()
        process.join()
    killed, whole = (torch.load(tmp_path / n / "weights.pt", weights_only=True) for n in ("killed", "whole"))
    assert same(list(killed.values()), list(whole.values()))
    for name in ("train.jsonl", "kept.json"):
        assert (folder / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_fit_in_a_folder_that_another_holds_is_refused(tmp_path: Path) -> None:
    def second(x: Tensor, rng: KeyedRNG) -> Tensor:
        if rng.step == 2:
            code = "import sys; from helpers.training_process import *; slow_run(Path(sys.argv[1]))"
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
            command = [sys.executable, "-c", code, str(tmp_path)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            said.append(done.stderr.splitlines()[-1])
        return x

    said: list[str] = []
    train(SMALL, toy_images(), toy_cast(), run=Run(tmp_path), augment=second)
    assert len(said) == 1
    assert "InputError: Another process writes to" in said[0]
    assert len((tmp_path / "train.jsonl").read_text().splitlines()) == 2


def test_fit_whose_folder_was_deleted_is_refused(tmp_path: Path) -> None:
    def delete(x: Tensor, rng: KeyedRNG) -> Tensor:
        if rng.step == 1:
            shutil.rmtree(tmp_path / "run")
        return x

    with pytest.raises(InputError, match="run was deleted or replaced meanwhile"):
        train(SMALL, toy_images(), toy_cast(), run=Run(tmp_path / "run"), augment=delete)
    assert not (tmp_path / "run").exists()


def _written(folder: Path) -> int:
    """When the checkpoint was last renamed into place, in nanoseconds."""
    try:
        return (folder / "checkpoint.safetensors").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def test_fit_in_two_processes_matches_one(tmp_path: Path) -> None:
    in_two_processes(training_process.__file__, str(tmp_path))
    first, second = (
        {
            name: load_file(tmp_path / f"{name}-{number}.safetensors")
            for name in ("plain", "batchnorm", "apart", "stopped", "best")
        }
        for number in (0, 1)
    )
    alone = training_process.pair(batch_norm=False, accelerator=Accelerator(cpu=True)).classifier.state_dict()
    for name, tensor in first["plain"].items():
        torch.testing.assert_close(tensor, alone[name], rtol=0, atol=1e-6)
    for name, state in first.items():
        assert same(list(state.values()), list(second[name].values())), name
    assert same(list(first["stopped"].values()), list(first["plain"].values()))
    assert same(list(first["apart"].values()), list(first["batchnorm"].values()))
    assert len((tmp_path / "train.jsonl").read_text().splitlines()) == 2
    assert ToldTracker(tmp_path / "told-0").steps() == [3, 6]  # of the main process alone
    assert not (tmp_path / "told-1").exists()


@pytest.mark.slow
def test_train_killed_repeatedly_gives_the_same_files(tmp_path: Path) -> None:
    def command(out: str) -> list[str]:
        words = "-m forefend train natural --data digits --images 400 --classifier cnn --epochs 40 --batch-size 20"
        return [sys.executable, *words.split(), "--device", "cpu", "--out", str(tmp_path / out)]

    chance, killed = random.Random(0), tmp_path / "killed"
    for _ in range(3):
        process = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = _written(killed)
        while process.poll() is None and _written(killed) == before:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.2))
        process.kill()
        assert process.wait() == -signal.SIGKILL, "it came to its end before it could be killed: give it more epochs"
    for out in ("killed", "whole"):
        subprocess.run(command(out), check=True, stdout=subprocess.DEVNULL)
    for file in ("weights.safetensors", "train.jsonl", "classifier.json"):
        assert (killed / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
