"""Classifiers of timm, torchvision and transformers with random weights, against their libraries' own pipelines."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.vision_libraries import vision_library
from safetensors.torch import save_file
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.models.classifiers import NamedClassifier, load
from forefend.models.classifiers.sources import hub
from forefend.models.classifiers.sources.preprocessing import Preprocessing, check_agreement
from forefend.models.fingerprint import fingerprint

timm, torchvision, transformers = map(vision_library, ("timm", "torchvision", "transformers"))
Image = pytest.importorskip("PIL.Image")

SMALL: dict[str, Any] = {"channels": 3, "size": 32, "classes": 10}
GIVEN: dict[str, Any] = {"mean": [0.5], "std": [0.25]}


@pytest.fixture(scope="module")
def pictures() -> list[Any]:
    """The photographs in `images/` beside the published data where it is, else generated ones; of several shapes."""
    files = sorted(Path(os.environ.get("FOREFEND_DATA", ".data"), "images").glob("*.jpg"))[: len(SIZES)]
    if len(files) == len(SIZES):
        return [Image.open(file).convert("RGB").resize(size) for file, size in zip(files, SIZES, strict=True)]
    rng = np.random.default_rng(0)
    coarse = [Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)) for _ in SIZES]
    return [picture.resize(size, Image.Resampling.BICUBIC) for picture, size in zip(coarse, SIZES, strict=True)]


SIZES = ((96, 96), (340, 290), (61, 83))


def pixels_of(picture: Any) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255


def bare(network: nn.Module) -> nn.Module:
    """The library's network inside a loaded classifier."""
    while hasattr(network, "network"):
        network = network.network
    return network


def check_against(found: NamedClassifier, theirs: Any, pictures: list[Any]) -> None:
    """The network inside sees what its library's own pipeline gives it, and gradients reach the images."""
    inside, seen = bare(found.network), list[Tensor]()
    hook = inside.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    for picture in pictures:
        x = pixels_of(picture).requires_grad_()
        logits = found.network(x)
        expected = torch.as_tensor(theirs(picture))
        spread = expected.std()  # of a normalized photograph; rounding to 8 bits is a hundredth of it
        assert seen[-1].shape[1:] == expected.shape
        assert float((seen[-1][0] - expected).abs().mean() / spread) < 0.01
        assert float(torch.autograd.grad(logits.square().sum(), x)[0].abs().sum()) > 0
    hook.remove()


@pytest.mark.parametrize("name", ["test_resnet.r160_in1k", "resnet10t.c3_in1k", "test_vit.r160_in1k"])
def test_timm_tag_gives_the_preprocessing_of_its_weights(name: str, pictures: list[Any]) -> None:
    found = load(f"timm:{name}@random", **SMALL)
    config = timm.data.resolve_model_data_config(bare(found.network))
    check_against(found, timm.data.create_transform(**config, is_training=False), pictures)


@pytest.mark.parametrize("name", ["squeezenet1_1@IMAGENET1K_V1", "mobilenet_v3_small@DEFAULT"])
def test_torchvision_weights_give_their_transforms(name: str, pictures: list[Any], tmp_path: Path) -> None:
    bare_name, _, entry = name.partition("@")
    torch.manual_seed(0)
    network = torchvision.models.get_model(bare_name)
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in network.state_dict().items()}}, tmp_path / "w.pth"
    )
    found = load(f"torchvision:{name}:{tmp_path / 'w.pth'}", channels=3, size=96)
    assert found.name == "w"
    check_against(found, torchvision.models.get_model_weights(bare_name)[entry].transforms(), pictures)


def small_vit() -> Any:
    return transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    )


def small_resnet() -> Any:
    return transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 24], depths=[1, 1, 1])


PROCESSORS: dict[str, Any] = {
    "vit": lambda: transformers.ViTImageProcessor(size={"height": 32, "width": 32}),
    "convnext": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.875),
    "clip": lambda: transformers.CLIPImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}),
    "plain": lambda: transformers.ViTImageProcessor(size={"height": 32, "width": 32}, do_normalize=False),
}


def saved(folder: Path, config: Any, processor: Any = None) -> Path:
    config.num_labels = 10
    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()
    transformers.AutoModelForImageClassification.from_config(config).save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", PROCESSORS)
def test_hugging_face_folder_gives_its_processor(name: str, pictures: list[Any], tmp_path: Path) -> None:
    processor = PROCESSORS[name]()
    config = small_resnet() if name == "convnext" else small_vit()
    found = load(f"hf:{saved(tmp_path, config, processor)}", **SMALL)

    def theirs(picture: Any) -> Tensor:
        pixels: Tensor = processor(picture, return_tensors="pt")["pixel_values"][0]
        return pixels

    check_against(found, theirs, pictures)
    layers = found.network.feature_layers
    assert len(layers.stages) == (3 if name == "convnext" else 4)
    assert all(dict(found.network.named_modules())[layer] for layer in layers.stages)


def test_hugging_face_processor_that_swaps_channels_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, small_resnet(), transformers.MobileViTImageProcessor())
    with pytest.raises(
        InputError, match=r"has a step that forefend cannot put inside the network \(its result differs\)"
    ):
        load(f"hf:{folder}", **SMALL)


def test_hugging_face_folder_without_processor_asks_for_normalization(tmp_path: Path) -> None:
    folder = saved(tmp_path, small_resnet())
    with pytest.raises(InputError, match="normalization is missing"):
        load(f"hf:{folder}", **SMALL)
    assert load(f"hf:{folder}", **SMALL, **GIVEN).network(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_hugging_face_backbone_without_head_is_refused(tmp_path: Path) -> None:
    transformers.utils.logging.disable_progress_bar()
    transformers.ResNetModel(small_resnet()).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"does not hold all weights of its classifier \(missing: classifier"):
        load(f"hf:{tmp_path}", channels=3, size=32)


def test_preprocessing_that_differs_from_the_source_is_refused() -> None:
    plain = Preprocessing([0.5] * 3, [0.5] * 3, 32, (32, 32))
    steps = [
        torchvision.transforms.Resize(32),
        torchvision.transforms.CenterCrop(32),
        torchvision.transforms.ToTensor(),
    ]
    theirs = torchvision.transforms.Compose([*steps, torchvision.transforms.Normalize([0.5] * 3, [0.5] * 3)])
    check_agreement(plain, theirs, 32, "this")
    sharp = torchvision.transforms.Resize(32, torchvision.transforms.InterpolationMode.NEAREST)
    with pytest.raises(InputError, match="its result differs"):
        check_agreement(plain, torchvision.transforms.Compose([sharp, *theirs.transforms[1:]]), 32, "this")
    mirrored = torchvision.transforms.Compose(
        [torchvision.transforms.ToTensor(), torchvision.transforms.RandomHorizontalFlip(1.0)]
    )
    check_agreement(Preprocessing(0.0, 1.0), torchvision.transforms.ToTensor(), 32, "this")
    with pytest.raises(InputError, match=r"cannot put inside the network \(its result differs\)"):
        check_agreement(Preprocessing(0.0, 1.0), mirrored, 32, "this")


@pytest.mark.parametrize(
    "spec", ["timm:resnet10t@random", "timm:test_vit@random", "torchvision:mobilenet_v3_small@random"]
)
def test_untrained_network_is_made_for_the_images_and_found_again(spec: str) -> None:
    state = torch.get_rng_state()
    found = load(spec, **SMALL, **GIVEN)
    assert torch.equal(torch.get_rng_state(), state)
    assert found.network(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    entry = found.config()
    again = load(entry["spec"], **SMALL, mean=entry["mean"], std=entry["std"])
    assert fingerprint(again.network) == entry["fingerprint"]
    assert fingerprint(load(spec, **SMALL, mean=0.0, std=1.0).network) != entry["fingerprint"]


def test_timm_network_of_gray_images_takes_one_channel() -> None:
    found = load("timm:test_resnet@random", channels=1, size=28, classes=10, **GIVEN)
    assert found.network(torch.rand(2, 1, 28, 28)).shape == (2, 10)


def test_weights_from_disk_are_read_through_their_wrappers(tmp_path: Path) -> None:
    network = timm.create_model("test_resnet", num_classes=7)
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    torch.save({"epoch": 3, "state_dict_ema": state}, tmp_path / "best.pt.tar")
    found = load(f"timm:test_resnet:{tmp_path / 'best.pt.tar'}", channels=3, size=32, **GIVEN)
    assert torch.equal(bare(found.network).fc.weight, network.fc.weight)
    with pytest.raises(InputError, match=r"does not hold the weights of timm:resnet10t"):
        load(f"timm:resnet10t:{tmp_path / 'best.pt.tar'}", channels=3, size=32, **GIVEN)
    with pytest.raises(InputError, match=r"wrong shape: fc\.weight has shape \(7, 96\), expected \(10, 96\)"):
        load(f"timm:test_resnet:{tmp_path / 'best.pt.tar'}", **SMALL, **GIVEN)


def test_number_of_classes_does_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    network = timm.create_model("test_resnet", num_classes=7)
    state = network.state_dict() | {"zz.centers": torch.zeros(5)}
    save_file(dict(state), tmp_path / "w.safetensors")  # sorted by name: the head is not last
    with pytest.warns(UserWarning, match=r"hold more, which the network does not use: zz\.centers"):
        found = load(f"timm:test_resnet:{tmp_path / 'w.safetensors'}", channels=3, size=32, **GIVEN)
    assert torch.equal(bare(found.network).fc.weight, network.fc.weight)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("timm:resnet10", "no model of timm called 'resnet10': did you mean 'resnet10t'"),
        ("timm:resnet10t.c4_in1k", "did you mean 'resnet10t.c3_in1k'"),
        ("timm:resnet10t@ranodm", "did you mean 'random'"),
        ("timm:test_mambaout", "timm:test_mambaout@random"),
        ("torchvision:resnet19", "did you mean 'resnet1"),
        ("torchvision:resnet18@IMAGENET1K_V3", "choose one of DEFAULT, IMAGENET1K_V1, random"),
        ("torchvision:resnet18", "has 1000 classes and 10 are needed"),
        ("timm:resnet10t@random", "mean=0 and std=1 for none"),
        ("timm:resnet10t:https://example.org/w.pth", "is an address, expected a file on disk"),
        ("https://example.org/w.pth", "expected a file on disk: download it, and give ARCHITECTURE:FILE."),
        ("https://example.org/w.pth?download=true", "download it, and give ARCHITECTURE:FILE."),
        ("https://example.org/w.onnx?raw=true", "download it, and give its path."),
        ("https://example.org/predict", "images are sent to loopback addresses alone"),
    ],
)
def test_wrong_text_is_refused_in_a_sentence(spec: str, words: str) -> None:
    with pytest.raises(InputError) as refusal:
        load(spec, **SMALL)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_color_classifier_of_gray_images_says_how_to_read_them() -> None:
    with pytest.raises(InputError, match=r"takes images of 3 channels, and these have 1: read them with channels=3"):
        load("torchvision:resnet18@random", channels=1, size=28, classes=10)


def test_published_weights_are_only_downloaded_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(InputError, match=r"squeezenet1_1-b8a52dc0\.pth is not in .*download=True"):
        load("torchvision:squeezenet1_1", channels=3, size=224)
    address = "http://127.0.0.1:9/w-0123abcd.pth"
    with pytest.raises(InputError, match=r"w-0123abcd\.pth could not be downloaded .*: check the network"):
        hub.file_of_url(address, download=True)
    assert f"downloading {address} into" in capsys.readouterr().out
    assert [path.name for path in tmp_path.rglob("*")] == ["checkpoints"]


def test_cached_weights_are_verified_by_digest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    digest = hashlib.sha256(b"weights").hexdigest()[:8]
    path = tmp_path / "checkpoints" / f"w-{digest}.pth"
    path.write_bytes(b"weights")
    assert hub.file_of_url(f"https://example.org/w-{digest}.pth", download=False) == path
    path.write_bytes(b"other")
    with pytest.raises(InputError, match=f"is not the published file .*begin with {digest}"):
        hub.file_of_url(f"https://example.org/w-{digest}.pth", download=False)


def test_hub_repository_comes_from_the_cache_or_not_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(library.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"timm/resnet10t\.c3_in1k is not in .*download=True"):
        load("timm:resnet10t.c3_in1k", channels=3, size=224)
    with pytest.raises(InputError, match=r"nobody/nothing is not in "):
        load("hf:nobody/nothing", **SMALL)


def test_hub_without_network_fails_in_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library = pytest.importorskip("huggingface_hub")

    def unreachable(name: str, *, local_files_only: bool = False, **options: object) -> str:
        if local_files_only:
            raise library.errors.LocalEntryNotFoundError("not cached")
        raise ConnectionError("no route to host")

    monkeypatch.setattr(library, "snapshot_download", unreachable)
    with pytest.raises(InputError, match=r"on huggingface\.co could not be downloaded \(no route to host\)"):
        load("hf:nobody/nothing", **SMALL, download=True)


def test_hub_file_is_verified_by_its_name_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library = pytest.importorskip("huggingface_hub")
    blob = tmp_path / hashlib.sha256(b"weights").hexdigest()
    blob.write_bytes(b"weights")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "model.safetensors").symlink_to(blob)
    monkeypatch.setattr(library, "snapshot_download", lambda name, **options: str(tmp_path / "snapshot"))
    assert hub.folder_of_repository("a/b", ["*"], download=False) == tmp_path / "snapshot"
    blob.write_bytes(b"other")
    with pytest.raises(InputError, match=r"model\.safetensors is not the published file \(its SHA-256 differs\)"):
        hub.folder_of_repository("a/b", ["*"], download=False)


def test_missing_library_names_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(InputError, match=r"needs timm: pip install 'forefend\[vision\]'"):
        load("timm:resnet10t@random", **SMALL, **GIVEN)
