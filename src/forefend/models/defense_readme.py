"""The `README.md`, `robustbench.json` and `models.json` of a shipped defense, whose numbers all come from records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml  # type: ignore[import-untyped]

from forefend.runtime.formatting import markdown_table


@dataclass(frozen=True)
class Measured:
    """What the records of one evaluation say of a defense; `forefend.measured` reads it.

    Args:
        defense: the identity of the defense that was measured.
        source: the folder of the evaluation.
        data: name and split of the images.
        table: Markdown, with the protocol.
        accuracies: name and accuracy in % of each defended classifier, on clean images and under each attack.
        models: entries with the keys of RobustBench's model files.
        untested: what was not tested, and what this leaves open, a line each.
        checks: Markdown of the gradient-masking checks of each model behind this defense.
        pipelines: of each accuracy, the identity of the classifier behind this defense that it was measured on.
        answers: lines of `models.json`: what each of these answers for random images, by which it is recognized.
    """

    defense: str
    source: str
    data: str
    table: str
    accuracies: Sequence[tuple[str, float]]
    models: Sequence[Mapping[str, Any]]
    untested: Sequence[str] = ()
    checks: Sequence[str] = ()
    pipelines: Sequence[str] = ()
    answers: Sequence[Mapping[str, Any]] = ()


def files_of(card: Mapping[str, Any], measured: Sequence[Measured], license_name: str) -> dict[str, bytes]:
    """Return the content of `README.md`, and of `robustbench.json` and `models.json` where something was measured.

    Args:
        card: the fields of `DefenseCard`.
        measured: what is known of the defense.
        license_name: SPDX name of the license of the weights; empty for none.
    """
    answers = [line for one in measured for line in one.answers]
    more = {"robustbench.json": _models([model for one in measured for model in one.models])} if measured else {}
    more |= {"models.json": _models(answers)} if answers else {}
    return {"README.md": _readme(card, measured, license_name).encode(), **more}


def _models(lines: Sequence[Mapping[str, Any]]) -> bytes:
    return (json.dumps({"format": 1, "models": lines}, indent=1, ensure_ascii=False) + "\n").encode()


def accuracies_on(page: str) -> list[dict[str, Any]]:
    """Return name, percent and pipeline of the accuracies that a `README.md` of `files_of` states.

    Pages of somebody else state none, and those of older versions name no pipeline.
    """
    try:
        held = yaml.safe_load(page.split("---\n", 2)[1])
        return [
            {
                "data": str(result["dataset"]["name"]),
                "accuracies": [
                    {
                        "name": str(metric["name"]),
                        "percent": float(metric["value"]),
                        "pipeline": str(metric.get("args", {}).get("pipeline", "")),
                    }
                    for metric in result["metrics"]
                ],
            }
            for model in held.get("model-index", [])
            for result in model["results"]
        ]
    except (yaml.YAMLError, LookupError, TypeError, ValueError, AttributeError):  # a page of somebody else
        return []


def _readme(card: Mapping[str, Any], measured: Sequence[Measured], license_name: str) -> str:
    name = "-".join(filter(None, [card["recipe"], card["data"]])) or card["architecture"]
    head = yaml.safe_dump(_metadata(name, measured, license_name), sort_keys=False, allow_unicode=True)
    guides = [f"{guide['name']} (`{guide['fingerprint']}`)" for guide in card["guides"]]
    rows = [
        ("architecture", f"`{card['architecture']}` {json.dumps(card['settings'])}"),
        ("recipe", card["recipe"] or "not recorded"),
        ("training data", card["data"] or "not recorded"),
        ("threat model of training", card["threat"] or "none"),
        ("guides, by fingerprint", ", ".join(guides) or "none"),
        ("average of the weights", "none" if card["ema"] is None else f"decay {card['ema']}"),
        ("license of the weights", license_name or "not stated"),
    ]
    gaps = dict.fromkeys(line for one in measured for line in one.untested)
    checks = dict.fromkeys(text for one in measured for text in one.checks)
    tables = "\n\n".join([*(f"### {one.data}\n\n{one.table}" for one in measured), *checks])
    return _PAGE.format(
        head=head,
        name=name,
        training=markdown_table(["", ""], rows),
        untested="\n".join(f"- {line}" for line in gaps) or "- any attack: Nothing is known of robustness.",
        measured=tables or "Nothing: no evaluation was given, and this card states no accuracy.",
    )


def _metadata(name: str, measured: Sequence[Measured], license_name: str) -> dict[str, Any]:
    """Return the metadata that huggingface.co reads, with the accuracies as `model-index`."""
    results = [
        {
            "task": {"type": "image-classification"},
            "dataset": {"name": one.data, "type": one.data.partition("/")[0], "split": one.data.rpartition("/")[2]},
            "metrics": _metrics(one),
        }
        for one in measured
    ]
    found: dict[str, Any] = {"license": license_name} if license_name else {}
    found |= {"library_name": "forefend", "tags": ["adversarial-robustness", "preprocessing-defense"]}
    return found | ({"model-index": [{"name": name, "results": results}]} if results else {})


def _metrics(one: Measured) -> list[dict[str, Any]]:
    """Return the accuracies of an evaluation; `args` holds what a metric was computed for."""
    pipelines = one.pipelines or [""] * len(one.accuracies)
    return [
        {"type": "accuracy", "name": name, "value": value} | ({"args": {"pipeline": pipeline}} if pipeline else {})
        for (name, value), pipeline in zip(one.accuracies, pipelines, strict=True)
    ]


_PAGE = """---
{head}---

# {name}

A preprocessor for forefend: it is put in front of a frozen image classifier
to protect it from adversarial examples. It maps images `(B, C, H, W)` in [0, 1] to images of the same shape.

```python
import forefend as ff

defense = ff.Defense.from_pretrained("this folder, or OWNER/NAME")
model = ff.Defended(defense, classifier)     # classifier: your torch.nn.Module, images in [0, 1] to logits
```

## Training

{training}

## Measured

{measured}

## Not tested

{untested}

## Limits

- An accuracy holds for the classifier, threat model, attacks and images named beside it. A stronger attack may
  lower it, and another classifier needs a measurement of its own: `forefend evaluate`.
- Guides are classifiers that the training saw; a classifier with another fingerprint is unseen.
- The defense changes clean images too: compare the accuracy on clean images with and without it.

`release.json` holds the SHA-256 of every file, and forefend refuses a folder in which one differs.
"""
