"""`forefend inspect`: say what was understood of a classifier."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from forefend.cli.parser import Parser

if TYPE_CHECKING:
    from forefend.evaluation.inspection import Inspection


def main(arguments: list[str]) -> int:
    """Load the classifier, and print what it takes and gives."""
    parser = Parser("inspect", "Say what was understood of a classifier, before anything is trained or attacked.")
    parser.add_argument("classifier", type=str, help="what --classifiers accepts, such as timm:NAME or net.pt2")
    parser.add_argument(
        "--images", type=int | None, default=500, help="test images for the clean accuracy, with --data"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    parser.add_argument("--device", type=str | None, help="cpu or cuda (else the fastest available)")
    parser.add_data()
    parser.add_classifiers()
    options = parser.parse_args(arguments)
    found = _inspected(options)
    print(json.dumps(found.as_json(), indent=1) if options.json else found)
    return 0


def _inspected(options: Any) -> Inspection:
    from forefend.cli import resolve_data, resolve_models
    from forefend.evaluation.inspection import inspect
    from forefend.models.classifiers import ARCHITECTURES, load
    from forefend.runtime.threads import choose_threads

    choose_threads()
    if options.data is None and options.classifier.partition("@")[0] not in ARCHITECTURES:
        shape = {"channels": options.channels, "size": options.size}
        named = load(
            options.classifier,
            **shape,
            mean=options.mean,
            std=options.std,
            download=options.download,
            outputs=options.outputs,
        )
        images = None
    else:
        images = resolve_data.sample_images(resolve_data.split_loader(options)("test"), options)
        named = resolve_models.named_classifier(options, options.classifier)
    resolve_models.move_to_device([named.network], options.device)
    given = (options.channels, options.size, options.size) if options.channels and options.size else None
    return inspect(named, images, shape=given)
