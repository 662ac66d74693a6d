"""`forefend serve`: answer HTTP requests with a defended classifier."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forefend.checks import InputError, import_extra
from forefend.cli.parser import FORMS, Parser

if TYPE_CHECKING:
    from forefend.data import ImageDataset
    from forefend.models.classifiers.model_card import NamedClassifier
    from forefend.serving.pipeline import Pipeline

NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "PIL.Image")


def main(arguments: list[str]) -> int:
    """Load the defense and its classifier, and answer requests until SIGINT or SIGTERM."""
    parser = Parser("serve", "Answer HTTP requests with a classifier behind its defense, and show a page to try it.")
    parser.add_argument("run", type=str, help="folder of a run or of a defense, or hf:OWNER/NAME")
    parser.add_argument("--classifier", type=str | None, help=f"a guide's name (else the first), {FORMS}")
    parser.add_argument("--host", type=str, default="127.0.0.1", help="address to listen on; 0.0.0.0 for all")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0 for a free one")
    parser.add_argument("--resize", action="store_true", help="resize and crop pictures of another size")
    parser.add_argument("--device", type=str | None, help="cpu or cuda (else the fastest available)")
    _add_limits(parser)
    parser.add_data()
    parser.add_classifiers()
    options = parser.parse_args(arguments)
    for module in NEEDED:
        import_extra(module, "Serving a defense", "serve")
    _serve(options)
    return 0


def _add_limits(parser: Parser) -> None:
    group = parser.add_argument_group("limits")
    group.add_argument("--max-bytes", type=int, default=10_000_000, help="bytes of a request")
    group.add_argument("--max-pixels", type=int, default=25_000_000, help="pixels of a picture")
    group.add_argument("--max-batch", type=int, default=32, help="images of a request, and of a batch of the model")
    group.add_argument("--max-waiting", type=int, default=256, help="requests in progress")
    group.add_argument("--rate", type=float | None, help="requests a second of one address (else any number)")
    group.add_argument("--window", type=float, default=2.0, help="milliseconds to wait for more images of a batch")


def _serve(options: Any) -> None:
    from forefend.runtime.threads import choose_threads
    from forefend.serving.app import Service, application
    from forefend.serving.gate import Traffic
    from forefend.serving.info import describe, model_card
    from forefend.serving.limits import Limits
    from forefend.serving.server import listening, serve

    choose_threads()
    limits = Limits(options.max_bytes, options.max_pixels, options.max_batch, options.max_waiting, options.rate)
    if not 0 <= options.window <= 10_000:
        raise InputError(f"--window is {options.window:g}, expected 0 to 10000 milliseconds.")
    with listening(options.host, options.port) as sock:
        served = _pipeline(options)
        folder = Path(options.run) if options.run else None
        card = model_card(served.defense, folder)
        info, traffic = describe(served, limits, card, resize=options.resize, folder=folder), Traffic()
        service = Service(served, info, limits, options.window / 1000, options.resize, traffic)
        print(f"serves {served.name} behind the defense of {options.run or 'the hub'}", flush=True)
        serve(application(service), sock, traffic)


def _pipeline(options: Any) -> Pipeline:
    from forefend.cli import resolve_data, resolve_models
    from forefend.evaluation.inspection import own_shape
    from forefend.models.defense import load
    from forefend.serving.pipeline import pipeline

    defense = load(options.run, download=options.download)
    if options.run.startswith("hf:"):
        options.run = None
    config = resolve_data.run_config(options)
    given = options.data is not None
    options.data = options.data or config.get("data") or defense.card.data or None
    options.size, options.channels = options.size or config.get("size"), options.channels or config.get("channels")
    images = _images(options, given)
    named, alone = _classifier(options, images)
    resolve_models.move_to_device([defense, named.network], options.device)
    shape = images.shape if images else _given_shape(options) or own_shape(named.network)
    if shape is None:
        raise InputError(f"{named.name} does not say for which images it is: give --data, or --channels and --size.")
    if options.resize and shape[1] != shape[2]:
        raise InputError(f"--resize makes squares, and {named.name} takes images of {shape[1]} x {shape[2]}: omit it.")
    classes = images.classes if images and not getattr(images, "numbered", False) else None
    return pipeline(defense, named.network, named.name, shape, classes=classes, any_size=images is None, alone=alone)


def _images(options: Any, given: bool) -> ImageDataset | None:
    """Return the test images of the data set, for their shape and classes; None where they are not on this machine."""
    from forefend.cli import resolve_data

    try:
        return resolve_data.split_loader(options)("test") if options.data else None
    except InputError as error:
        if given:
            raise
        print(f"classes are numbered, as the images of the training are not here: {error}", flush=True)
        return None


def _given_shape(options: Any) -> tuple[int, int, int] | None:
    return (options.channels, options.size, options.size) if options.channels and options.size else None


def _classifier(options: Any, images: ImageDataset | None) -> tuple[NamedClassifier, bool]:
    """Return the classifier that is served, and whether it means something without the defense."""
    from forefend.cli import resolve_models
    from forefend.models.classifiers import ARCHITECTURES, load

    if guide := _guide(options):
        return guide, True
    joint = Path(options.run or "", "classifier")
    if options.classifier is None and options.run and (joint / "classifier.json").exists():
        own = resolve_models.named_classifier(options, str(joint))
        return replace(own, name=f"{Path(options.run).name}'s own"), False
    if options.classifier is None:
        raise InputError(f"{options.run or 'This defense'} has no classifier to defend: name one with --classifier.")
    if images is None and options.classifier.partition("@")[0] not in ARCHITECTURES:
        shape = {"channels": options.channels, "size": options.size}
        words = {name: options[name] for name in ("mean", "std", "download", "outputs")}
        return load(options.classifier, **shape, **words), True
    return resolve_models.named_classifier(options, options.classifier), True


def _guide(options: Any) -> NamedClassifier | None:
    """Return the guide that is named, or the first; None for a defense without guides and for other classifiers."""
    from forefend.cli import resolve_data
    from forefend.training.run_guides import guides_of_run

    names = [guide["name"] for guide in resolve_data.run_config(options).get("guides", [])]
    if not names or options.classifier not in (None, *names):
        return None
    guides = guides_of_run(options.run, lambda split: resolve_data.split_loader(options)(split), runs=options.runs)
    if options.classifier is None and len(names) > 1:
        print(f"the run has the guides {', '.join(names)}: choose with --classifier, by default the first", flush=True)
    return next(guide for guide in guides if options.classifier in (None, guide.name))
