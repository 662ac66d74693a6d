"""The JSON of an answer, as the OpenAPI document describes it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field
from torch import Tensor

from forefend.serving.pictures import GAIN, as_png, difference
from forefend.serving.pipeline import Answer, Pipeline

Shown = Literal["none", "png", "array"]


class Likelihood(BaseModel):
    """A class and its probability."""

    label: int = Field(description="number of the class")
    name: str = Field(description="name of the class; its number where names are not known")
    probability: float | None = Field(description="softmax of the logits; null where the classifier gives labels alone")


class Prediction(Likelihood):
    """The most likely class, and those that follow."""

    top: list[Likelihood] = Field(description="the most likely classes, the first first")


class Images(BaseModel):
    """An image and what the defense made of it."""

    input: Any = Field(description="PNG as a data address, as the model saw it; absent for arrays")
    processed: Any = Field(description="PNG as a data address, clamped and rounded to 8 bits; or an array")
    difference: Any = Field(description=f"PNG of the absolute difference × {GAIN}; absent for arrays")


class ImageAnswer(BaseModel):
    """What is known of one image."""

    defended: Prediction = Field(description="of the classifier behind the defense")
    bare: Prediction | None = Field(description="of the classifier alone, where it was asked for")
    images: Images | None = Field(description="where they were asked for")


class Answers(BaseModel):
    """The answers of a request."""

    classifier: str = Field(description="name of the classifier")
    classifier_fingerprint: str = Field(description="digest of its tensors")
    defense: str = Field(description="digest of the defense")
    answers: list[ImageAnswer] = Field(description="one for each image, in order")


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str = Field(description="one sentence: what was wrong, and what to do")


def answer_json(pipeline: Pipeline, x: Tensor, answer: Answer, top: int, shown: Shown) -> dict[str, Any]:
    """Return the JSON of one answer.

    Args:
        pipeline: what answered.
        x: the image, `(C, H, W)`.
        answer: the answer.
        top: how many classes are named.
        shown: which images are returned.
    """
    return {
        "defended": _prediction(pipeline, answer.defended, top),
        "bare": None if answer.bare is None else _prediction(pipeline, answer.bare, top),
        "images": _images(x, answer.processed, shown),
    }


def _prediction(pipeline: Pipeline, logits: Tensor, top: int) -> dict[str, Any]:
    probabilities = logits.double().softmax(0)
    order = probabilities.argsort(descending=True, stable=True)[:top].tolist() if pipeline.scores else []
    best = int(logits.argmax())
    order = [best, *(label for label in order if label != best)][:top]
    found = [
        {
            "label": label,
            "name": pipeline.classes[label],
            "probability": float(probabilities[label]) if pipeline.scores else None,
        }
        for label in order
    ]
    return {**found[0], "top": found}


def _images(x: Tensor, processed: Tensor, shown: Shown) -> dict[str, Any] | None:
    if shown == "none":
        return None
    if shown == "array":
        return {"input": None, "processed": processed.tolist(), "difference": None}
    return {"input": as_png(x), "processed": as_png(processed), "difference": as_png(difference(x, processed))}
