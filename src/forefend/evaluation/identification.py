"""Identify models by what they answer: equal tensors do not make equal networks.

A forward method, a closure, an int8 weight or a scikit-learn model is no registered tensor. The
file `models.json` of a folder therefore holds what each model answered for a few probe images.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.data import ImageDataset
from forefend.data.dataset import image_digests
from forefend.evaluation.model_checks import check_model, gradient_of, relative_difference, uniform_outputs
from forefend.models.classifiers.black_box import black_box_in
from forefend.models.fingerprint import architecture_digest, fingerprint
from forefend.models.freezing import device_of
from forefend.models.given_images import kept_state
from forefend.runtime.batch_size import AdaptiveBatchSize
from forefend.runtime.distributed import process_group
from forefend.runtime.files import read_versioned, write_versioned
from forefend.runtime.launch import is_started
from forefend.runtime.rng import KeyedRNG, torch_seed

PROBES = 8  # random images, and as many of the evaluated ones
NOISE = "random "  # begins the names of the former
SHARES = 9  # of mixtures of two images, for black boxes without margin, whose few labels would agree by chance
SAME_OUTPUTS = 1e-3  # of the spread of logits: float noise of other machines and threads is smaller
SAME_GRADIENTS = 0.1  # of the largest norm: a unit at the kink of its ReLU may fall on either side
Answers = Mapping[str, list[float]]  # by name of a probe image: its logits, then the norm of its input gradient


@dataclass(frozen=True)
class Examined:
    """A model that can be evaluated.

    Args:
        network: digest of its tensors and architecture.
        answers: what it answers for probe images; None if the same call gives other answers.
        x: one or two of the images, on its device.
    """

    network: str
    answers: Answers | None
    x: Tensor

    @property
    def same_margin(self) -> float:
        """The share of probe images whose margin of the first over the second class is the commonest one."""
        if self.answers is None:
            return 0.0
        best = torch.tensor([row[:-1] for row in self.answers.values()]).topk(2).values
        margins = [f"{margin:.5g}" for margin in (best[:, 0] - best[:, 1]).tolist()]
        return max(map(margins.count, set(margins))) / len(margins)


def examine(network: nn.Module, images: ImageDataset, name: str) -> Examined:
    """Refuse a model that cannot be evaluated on some images, and return what it answers.

    Args:
        network: images to logits, frozen.
        images: test images.
        name: the name of the model, for the message.

    Raises:
        InputError: images or outputs are wrong, a call changes the network's tensors, or an output
            depends on the other images of the batch.
    """
    with kept_state(network, name) as before, torch_seed(0):
        x = check_model(network, images, name)
        answers = answers_of(network, images, name)
    return Examined(network_digest(network, before), answers, x)


def network_digest(network: nn.Module, tensors: str | None = None) -> str:
    """Return the digest of a network's tensors and architecture; `tensors` is its fingerprint, where it is known."""
    return f"{tensors or fingerprint(network)}:{architecture_digest(network)}"


def examine_on_noise(network: nn.Module, shape: Sequence[int], name: str) -> Examined:
    """Return what a network answers for the random probe images, where no test images are at hand.

    Args:
        network: images to logits, frozen.
        shape: channels, height and width of an image.
        name: the name of the network, for the message.

    Returns:
        Without answers for a network whose answers to random images do not tell it from others.

    Raises:
        InputError: a call changes the network's tensors, or an output depends on the other images of the batch.
    """
    x = _noise(shape).to(device_of(network))
    with kept_state(network, name) as before, torch_seed(0):
        answers = _answers(network, _noise_names(shape), [x], name)
    found = Examined(network_digest(network, before), answers, x)
    alike = black_box_in(network) is not None and found.same_margin == 1
    return replace(found, answers=None) if alike else found


def answers_of(network: nn.Module, images: ImageDataset, name: str) -> Answers | None:
    """Return the logits and the gradient norms of probe images, by name of the image.

    Raises:
        InputError: an output depends on the other images of the batch.
    """
    x, y, _ = images.batch(images.index.argsort()[:PROBES])  # other selections of the set share some of them
    names = _noise_names(images.shape) + image_digests(x, y)
    answers = _answers(network, names, [part.to(device_of(network)) for part in (_noise(images.shape), x)], name)
    if answers is None:
        return None
    if black_box_in(network) and Examined("", answers, x).same_margin == 1:
        mixed = _mixtures(x).to(device_of(network))
        if (more := uniform_outputs(network, [mixed], name)) is None:
            return None
        answers |= _rows(image_digests(mixed.cpu(), torch.zeros(len(mixed))), more, torch.zeros(len(mixed)))
    return answers


def _answers(
    network: nn.Module, names: Sequence[str], batches: Sequence[Tensor], name: str
) -> dict[str, list[float]] | None:
    outputs = uniform_outputs(network, batches, name)
    if outputs is None:
        return None
    norms = torch.cat([part for x in batches for part in AdaptiveBatchSize(len(x)).map(x, partial(_norms, network))])
    return _rows(names, outputs, norms)


def _noise(shape: Sequence[int]) -> Tensor:
    return KeyedRNG(torch.arange(PROBES), purpose="probe").uniform(torch.empty(PROBES, *shape))


def _noise_names(shape: Sequence[int]) -> list[str]:
    return [f"{NOISE}{'x'.join(map(str, shape))} {i}" for i in range(PROBES)]


def _rows(names: Sequence[str], outputs: Tensor, norms: Tensor) -> dict[str, list[float]]:
    rows = torch.cat([outputs, norms[:, None].double()], 1).tolist()
    return {name: [float(f"{value:.6g}") for value in row] for name, row in zip(names, rows, strict=True)}


def _mixtures(x: Tensor) -> Tensor:
    """Return mixtures of each two images, and of each with its negative, between which the class changes."""
    pairs = torch.combinations(torch.arange(len(x)))
    first, second = torch.cat([x[pairs[:, 0]], x]), torch.cat([x[pairs[:, 1]], 1 - x])
    shares = torch.arange(1, SHARES + 1, device=x.device) / (SHARES + 1)
    return torch.lerp(first[:, None], second[:, None], shares.view(1, -1, 1, 1, 1).to(x.dtype)).flatten(0, 1)


def _norms(network: nn.Module, x: Tensor) -> Tensor:
    gradient = None  # equal logits may have other gradients, as with a straight-through estimator
    with suppress(InputError):  # a suite that needs the gradient says what is wrong
        gradient = gradient_of(network, x)
    if gradient is None:
        return torch.zeros(len(x)).double()
    return gradient.double().flatten(1).norm(dim=1).nan_to_num(0, 0, 0).cpu()


def _agree(a: Answers, b: Answers) -> bool:
    """Whether two models answer alike for all probe images that both have seen, at least one."""
    if not (common := a.keys() & b.keys()):
        return False
    first, second = (torch.tensor([answers[name] for name in sorted(common)]).double() for answers in (a, b))
    if first.shape != second.shape:
        return False
    logits = relative_difference(first[:, :-1], second[:, :-1])
    norms = (first[:, -1] - second[:, -1]).abs().max() / second[:, -1].abs().max().clamp(min=1e-12)
    return logits <= SAME_OUTPUTS and float(norms) <= SAME_GRADIENTS


@dataclass(frozen=True)
class KnownModel:
    """A model of earlier evaluations: the digest of its network, its id, and what it answered."""

    network: str
    id: str
    answers: Answers


class KnownModels:
    """The models of earlier evaluations in some folders."""

    def __init__(self, folders: Iterable[Path | None] = ()) -> None:
        self._models = [model for folder in folders if folder for model in _read(folder / "models.json")]
        self._earlier = tuple(self._models)

    def identify(self, model: Examined, name: str) -> str:
        """Return the identity of a model for records, the same in every process.

        A model that answers like an earlier one of equal tensors has its id; any other gets a new
        one, and is remembered.
        """
        if is_started():  # it reads what the first process saved, and joins the others only after it is ready
            return self._identify(model)
        group = process_group()
        if model.answers is None and not group.rank:
            print(f"{name} gives other answers for equal images and seeds: its verdicts are not resumed.")
        return str(group.all_of({group.rank: self._identify(model)})[0])

    def identities(self, model: Examined) -> set[str]:
        """Return all identities under which earlier evaluations recorded a model."""
        known = [each for each in self._models if each.network == model.network and model.answers is not None]
        return {f"{each.network}:{each.id}" for each in known if _agree(model.answers or {}, each.answers)}

    def agrees(self, model: Examined, identity: str) -> bool | None:
        """Whether a model answers like that of an identity; None where they answered no image in common."""
        answers = model.answers or {}
        known = [one.answers for one in self._models if f"{one.network}:{one.id}" == identity]
        common = [one for one in known if answers.keys() & one.keys()]
        return any(_agree(answers, one) for one in common) if common else None

    def remember_surrogate(self, model: Examined, name: str) -> None:
        """Remember what a surrogate answers; the identity of a trial holds its tensors alone.

        Raises:
            InputError: earlier records came from equal tensors with other answers.
        """
        earlier = [known.answers for known in self._earlier if known.network == model.network]
        if earlier and model.answers is not None and not any(_agree(model.answers, answers) for answers in earlier):
            raise InputError(
                f"The surrogate {name} answers otherwise than the one of equal tensors in this folder's records: "
                "choose another folder."
            )
        self._identify(model)

    def _identify(self, model: Examined) -> str:
        if model.answers is None:
            return f"{model.network}:{secrets.token_hex(4)}"
        for row, known in enumerate(self._models):
            if known.network == model.network and _agree(model.answers, known.answers):
                self._models[row] = replace(known, answers={**model.answers, **known.answers})
                return f"{known.network}:{known.id}"
        digest = hashlib.sha256(repr(sorted(model.answers.items())).encode()).hexdigest()[:8]
        self._models.append(KnownModel(model.network, digest, model.answers))
        return f"{model.network}:{digest}"

    def save(self, folder: Path | None) -> None:
        """Write the models into `models.json`, beside those that it holds by now; the first process does."""
        if folder is None or process_group().rank:
            return
        models = {(model.network, model.id): model for model in [*_read(folder / "models.json"), *self._models]}
        write_versioned(folder / "models.json", {"models": list(map(_line, models.values()))})


def lines_on_noise(folder: Path, identities: Collection[str]) -> list[dict[str, Any]]:
    """Return the lines of a folder's `models.json` on some models, with their answers to random images alone.

    Raises:
        InputError: the file is damaged.
    """
    found = [model for model in _read(folder / "models.json") if f"{model.network}:{model.id}" in identities]
    noise = [{name: row for name, row in model.answers.items() if name.startswith(NOISE)} for model in found]
    return [_line(replace(model, answers=answers)) for model, answers in zip(found, noise, strict=True)]


def _line(model: KnownModel) -> dict[str, Any]:
    return {**asdict(model), "answers": _as_text(model.answers)}


def _as_text(answers: Answers) -> dict[str, str]:
    return {name: " ".join(f"{value:g}" for value in row) for name, row in answers.items()}


def _read(path: Path) -> list[KnownModel]:
    if not path.exists():
        return []
    try:
        return [
            KnownModel(line["network"], line["id"], {k: [*map(float, v.split())] for k, v in line["answers"].items()})
            for line in read_versioned(path)["models"]
        ]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged: delete it to evaluate its models again.") from None
