"""What `/predict` answers, against the networks themselves."""

from __future__ import annotations

import base64
import io
import json
import re
from typing import Any

import numpy as np
import pytest
import torch
from helpers import toy_networks
from helpers.serving import JSON, PNG, as_json, client, color_noise, encoded, saved, service, toy_images, toy_pipeline
from PIL import Image
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.models.classifiers.black_box import BlackBox
from forefend.models.classifiers.resized import Resized
from forefend.models.fingerprint import state_digest


def logits_of(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of the toy classifier alone and defended, and the processed images, without the server."""
    made = toy_pipeline()
    with torch.no_grad():
        processed = made.defense(x)
        return made.network(x), made.network(processed), processed


def check(answer: dict[str, Any], logits: Tensor) -> None:
    expected = logits.double().softmax(0)
    assert answer["label"] == int(expected.argmax())
    assert [one["label"] for one in answer["top"]] == expected.argsort(descending=True).tolist()
    assert [one["probability"] for one in answer["top"]] == pytest.approx(expected.sort(descending=True)[0].tolist())
    assert answer["probability"] == answer["top"][0]["probability"]


def test_every_form_of_an_image_gets_the_answer_of_the_networks() -> None:
    x = toy_images(3)
    bare, defended, _ = logits_of(x)
    files = [("images", (f"{row}.png", encoded(image), "image/png")) for row, image in enumerate(x)]
    with client() as server:
        together = [
            server.post("/predict?bare=true&top=4", files=files),
            server.post("/predict?bare=true&top=4", content=as_json(x), headers=JSON),
            server.post("/predict?bare=true&top=4", content=as_json(x, 255), headers=JSON),
        ]
        alone = [server.post("/predict?bare=true&top=4", content=encoded(image), headers=PNG) for image in x]
    assert {answer.status_code for answer in together + alone} == {200}
    for given in (*(answer.json()["answers"] for answer in together), [a.json()["answers"][0] for a in alone]):
        assert len(given) == 3
        for row, answer in enumerate(given):
            check(answer["bare"], bare[row])
            check(answer["defended"], defended[row])
            assert answer["images"] is None


def test_jpeg_is_decoded_as_pillow_does() -> None:
    content = encoded(toy_images()[0], "JPEG", quality=90)
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(content)))).float()[None, None] / 255
    with client() as server:
        answer = server.post("/predict?top=4", content=content, headers={"Content-Type": "image/jpeg"})
    check(answer.json()["answers"][0]["defended"], logits_of(pixels)[1][0])


def test_images_are_returned_as_png_and_as_arrays() -> None:
    x = toy_images()
    _, _, processed = logits_of(x)
    with client() as server:
        shown = server.post("/predict?images=png", content=encoded(x[0]), headers=PNG).json()["answers"][0]["images"]
        arrays = server.post("/predict?images=array", content=encoded(x[0]), headers=PNG).json()["answers"][0]["images"]
    assert arrays["processed"] == pytest.approx(processed[0].numpy())
    expected = {"input": x[0], "processed": processed[0], "difference": (8 * (x[0] - processed[0]).abs()).clamp(0, 1)}
    for name, image in expected.items():
        content = base64.b64decode(shown[name].removeprefix("data:image/png;base64,"))
        assert np.array_equal(np.array(Image.open(io.BytesIO(content))), (image[0] * 255).round().byte().numpy()), name


def test_arrays_may_have_channels_last_or_none() -> None:
    x = toy_images()
    forms = [x[0].tolist(), x[0].permute(1, 2, 0).tolist(), x[0, 0].tolist()]
    with client() as server:
        body = json.dumps({"images": forms, "range": "0-1"})
        given = server.post("/predict?top=4", content=body, headers=JSON).json()["answers"]
    for answer in given:
        check(answer["defended"], logits_of(x)[1][0])


def test_gray_picture_with_three_equal_channels_is_gray() -> None:
    x = toy_images()[0]
    with client() as server:
        gray, rgb = (
            server.post("/predict", content=encoded(image), headers=PNG).json() for image in (x, x.expand(3, -1, -1))
        )
    assert gray == rgb


def test_resize_takes_pictures_of_other_sizes_but_no_arrays() -> None:
    picture = saved(Image.new("L", (20, 12), 128))
    with client(service(resize=True)) as server:
        answer = server.post("/predict?images=array", content=picture, headers=PNG)
        assert torch.tensor(answer.json()["answers"][0]["images"]["processed"]).shape == (1, 6, 6)
        assert server.post("/predict", content=as_json(torch.rand(1, 1, 9, 9)), headers=JSON).status_code == 422
    with client() as server:
        refused = server.post("/predict", content=picture, headers=PNG)
    assert refused.status_code == 422
    assert "Image 1 is 1 × 12 × 20 (channels, height, width), expected 1 × 6 × 6" in refused.json()["detail"]


def test_classifier_that_resizes_takes_any_size_and_mixed_sizes() -> None:
    made = toy_pipeline(Resized(toy_networks.classifier(), (6, 6), None), nn.Identity(), any_size=True)
    images = [torch.full((1, side, side), side / 20) for side in (6, 9, 6, 12)]
    with client(service(made)) as server:
        files = [("images", (f"{row}.png", encoded(image), "image/png")) for row, image in enumerate(images)]
        given = server.post("/predict?top=4", files=files).json()["answers"]
        for row, image in enumerate(images):
            alone = server.post("/predict?top=4", content=encoded(image), headers=PNG).json()["answers"][0]
            assert given[row]["defended"]["probability"] == pytest.approx(alone["defended"]["probability"], abs=1e-6)


def test_networks_are_left_unchanged() -> None:
    classifier, defense = toy_networks.classifier().train(), toy_networks.preprocessor().train()
    before = state_digest(classifier)
    with client(service(toy_pipeline(classifier, defense))) as server:
        assert server.post("/predict", content=encoded(toy_images()[0]), headers=PNG).status_code == 200
    assert state_digest(classifier) == before


def test_classifier_of_labels_has_no_probabilities() -> None:
    made = toy_pipeline(BlackBox(lambda x: x.mean((1, 2, 3)) > 0.5, outputs="labels", classes=2), nn.Identity())
    with client(service(made)) as server:
        answer = server.post("/predict", content=encoded(torch.ones(1, 6, 6)), headers=PNG).json()["answers"][0]
    assert answer["defended"] == {
        "label": 1,
        "name": "1",
        "probability": None,
        "top": [{"label": 1, "name": "1", "probability": None}],
    }


def test_classifier_that_means_nothing_alone_is_not_asked_alone() -> None:
    with client(service(toy_pipeline(alone=False))) as server:
        assert server.post("/predict", content=encoded(toy_images()[0]), headers=PNG).status_code == 200
        answer = server.post("/predict?bare=true", content=encoded(toy_images()[0]), headers=PNG)
    assert (answer.status_code, "is not used alone" in answer.json()["detail"]) == (422, True)


def test_names_of_classes_are_those_of_the_data() -> None:
    names = ("cat", "dog", "bird", "Ærø")
    with client(service(toy_pipeline(classes=names))) as server:
        found = server.post("/predict", content=encoded(toy_images()[0]), headers=PNG).json()["answers"][0]["defended"]
        assert server.get("/info").json()["classifier"]["classes"] == list(names)
    assert found["name"] == names[found["label"]]


@pytest.mark.parametrize(
    ("classifier", "words"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.Softmax(1)), "expected logits"),
        (nn.Linear(5, 4), "do not fit toy"),
        (nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), "expected (2, 4)"),
    ],
)
def test_classifier_that_cannot_be_served_is_refused(classifier: nn.Module, words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        toy_pipeline(classifier, classes="abcd")


def test_classifier_whose_answers_depend_on_company_is_refused() -> None:
    class Mixing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x - x.mean(0)).flatten(1)[:, :4]

    with pytest.raises(InputError, match="other logits beside other images"):
        toy_pipeline(Mixing(), nn.Identity())


def test_color_picture_for_a_gray_classifier_is_refused() -> None:
    with client() as server:
        answer = server.post("/predict", content=saved(color_noise()), headers=PNG)
    assert (answer.status_code, answer.json()["detail"]) == (
        422,
        "Image 1 is in color, expected a gray picture: convert it first.",
    )
