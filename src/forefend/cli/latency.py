"""`forefend latency`: time and memory of classifiers, with and without a defense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from forefend.cli.parser import Parser


def main(arguments: list[str]) -> int:
    """Measure each classifier alone and behind the defense, print a table, and record it in the run."""
    parser = Parser("latency", "Time classifiers with and without a defense; say what memory they take.")
    parser.add_models()
    parser.add_argument("--images", type=int | None, default=32, help="test images to time")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--out", type=str | None, help="folder for latency.json (else the run)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    parser.add_argument("--device", type=str | None, help="cpu or cuda (else the fastest available)")
    parser.add_data()
    parser.add_classifiers()
    print(_measured(parser.parse_args(arguments)))
    return 0


def _measured(options: Any) -> str:
    import torch

    from forefend.cli import resolve_data, resolve_models
    from forefend.evaluation.given_images import images_for
    from forefend.evaluation.latency import as_json, latency, table
    from forefend.models.freezing import device_of
    from forefend.runtime.files import write_json
    from forefend.runtime.threads import choose_threads

    choose_threads()
    images = resolve_data.evaluation_images(options)
    models, _ = resolve_models.evaluated_models(options, images)
    resolve_models.move_to_device([model.network for model in models], options.device)
    x, _, _ = images_for(models, images).batch(torch.arange(len(images)))
    found = [latency(model.network, x.to(device_of(model.network)), model.title) for model in models]
    if folder := options.out or options.run:
        write_json(Path(folder) / "latency.json", as_json(found))
    return json.dumps(as_json(found), indent=1) if options.json else table(found)
