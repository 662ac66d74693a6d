"""`forefend train RECIPE`: train a preprocessor, or a classifier, with one of the recipes."""

from __future__ import annotations

from typing import Any, get_args, get_origin

from forefend.checks import choose
from forefend.cli.parser import Parser

# recipe: (the networks that it needs, its purpose), so that help need not import torch; a test holds it to the recipes.
ALONE = ("classifier",)
BEHIND = ("preprocessor", "guides")
PAIR = ("preprocessor", "classifier")
GAN = ("preprocessor", "discriminator", "guides")
RECIPES: dict[str, tuple[tuple[str, ...], str]] = {
    "aaa": (BEHIND, "autoencoder before frozen classifiers: cross-entropy, reconstruction or both (Vaishnavi et al.)"),
    "adversarial": (ALONE, "classifier trained on attacked images (Madry et al.)"),
    "ape-gan": (GAN, "generator that removes perturbations, against a discriminator (Shen et al.)"),
    "denoised-smoothing": (BEHIND, "denoiser on Gaussian noise, so that a classifier may be smoothed (Salman et al.)"),
    "hgd": (BEHIND, "denoiser guided by a classifier's response to adversarial examples (Liao et al.)"),
    "jat": (PAIR, "U-Net and new classifier trained together: the RTFE paper's joint baseline"),
    "jatp": (BEHIND, "preprocessor before a robust classifier, attacked in feature space (Zhou et al.)"),
    "jatp-prime": (PAIR, "JATP with the classifier trained along; the preprocessor then serves others"),
    "mart": (ALONE, "classifier, weighing stability by how wrong it is (Wang et al.)"),
    "mma": (ALONE, "classifier with the widest margin for each image (Ding et al.)"),
    "mma-simple": (ALONE, "classifier on attacked images where right, clean ones where wrong (Zhou et al.'s code)"),
    "natural": (ALONE, "classifier trained on clean images: what guides are made of"),
    "nrp": (GAN, "purifier trained on self-supervised perturbations of features (Naseer et al.)"),
    "robustifier": (BEHIND, "U-Net before frozen classifiers: robustness and fidelity (Norouzzadeh et al.)"),
    "rtfe": (BEHIND, "preprocessor before frozen guides that answer on attacked images as on clean (Cann et al.)"),
    "trades": (ALONE, "classifier, right on clean images and the same on attacked ones (Zhang et al.)"),
    "transfer": (("source",), "source classifier retrained, wholly or at its end, for new data (Davchev et al.)"),
}
GUIDES = {"aaa": ["cnn", "tinyresnet"], "robustifier": ["cnn", "tinyresnet"], "rtfe": ["cnn", "tinyresnet"]}
ROBUST = {"jatp": ["tinyresnet@trades"]}


def main(arguments: list[str]) -> int:
    """Train, save, and say what to try next."""
    if not arguments or arguments[0].startswith("-"):
        print("usage: forefend train RECIPE [options]   (forefend train RECIPE --help shows a recipe's options)\n")
        print("\n".join(f"  {name:19} {purpose}" for name, (_, purpose) in RECIPES.items()))
        return 0 if arguments else 2
    name = arguments[0]
    roles, purpose = choose(name, RECIPES, "recipe")
    from forefend.cli import train_work

    parser = _parser(name, purpose)
    _add_networks(parser, name, roles)
    _add_ways(parser)
    group = parser.add_argument_group("recipe")
    for s in train_work.fields_of(name):
        option: dict[str, Any] = {"type": s.kind, "default": s.default, "help": s.meaning}
        if get_origin(s.kind) is list:
            option |= {"type": get_args(s.kind)[0], "nargs": "*"}
        group.add_argument(f"--{s.name.replace('_', '-')}", **option)
    options = parser.parse_args(arguments[1:])
    folder = train_work.run(name, roles, options)
    print(f"next:\n  forefend evaluate {folder} --suite quick --images 500")
    return 0


def _parser(name: str, purpose: str) -> Parser:
    """What every recipe's training takes."""
    parser = Parser(f"train {name}", purpose)
    parser.add_data()
    parser.add_classifiers()
    parser.add_argument("--images", type=int | None, help="train on a stratified sample of this many images")
    parser.add_argument("--seed", type=int, default=0, help="of initialization, order, augmentation and attacks")
    parser.add_argument("--out", type=str | None, help="the run's folder (else runs/RECIPE-DATA-sSEED)")
    parser.add_argument("--device", type=str | None, help="cpu or cuda (else the best there is)")
    return parser


def _add_ways(parser: Parser) -> None:
    """How the training is done, whatever the recipe: the defaults are the papers'."""
    group = parser.add_argument_group("speed and averaging")
    group.add_argument(
        "--craft",
        type=str,
        default="live",
        help="what attacks see: live, or faster prepared or prepared-bf16 stand-ins",
    )
    group.add_argument("--precision", type=str, default="fp32", help="of the weights' step: fp32 or bf16")
    group.add_argument(
        "--inner",
        type=str,
        default="as-published",
        help="the inner attack: as-published, gradual (few steps early), single-step (N-FGSM), warm-started (ATTA), "
        "warm-then-two (ATTA, two steps in the last quarter), warm-deepening (ATTA, one, two, then three steps), "
        "warm-noised (ATTA with noise, two, then three steps)",
    )
    group.add_argument(
        "--on-collapse", type=str, default="stop", help="when single steps no longer defend: stop or fall-back"
    )
    group.add_argument(
        "--sizes",
        type=str,
        default="as-published",
        help="of the training images: as-published, or growing (a half, three quarters, then all of their side), which "
        "suits classifiers in training; frozen guides must be right on small images too",
    )
    group.add_argument("--ema", type=float | None, help="save an average of the weights with this decay, as 0.995")


def _add_networks(parser: Parser, name: str, roles: tuple[str, ...]) -> None:
    """Which networks play the recipe's roles."""
    group = parser.add_argument_group("networks")
    if "guides" in roles:
        guides = (GUIDES | ROBUST).get(name, ["tinyresnet"])
        group.add_argument("--guides", nargs="+", type=str, default=guides, help="frozen classifiers")
    if "preprocessor" in roles:
        network = "ape-gan" if name == "ape-gan" else "narrow-unet"
        group.add_argument("--preprocessor", type=str, default=network, help="architecture of the preprocessor")
    if "discriminator" in roles:
        group.add_argument("--discriminator", type=str, default=name, help="architecture of the discriminator")
    if "classifier" in roles:
        group.add_argument(
            "--classifier", type=str, default="tinyresnet", help="architecture to train, or a classifier to go on from"
        )
    if "source" in roles:
        group.add_argument("--source", type=str, default="tinyresnet", help="classifier to retrain with a new head")
