"""`forefend doctor`: the packages that are installed, and how to install missing ones."""

from __future__ import annotations

import importlib.util
import os
import platform
from importlib import metadata
from pathlib import Path

from forefend.cli.parser import Parser

# distribution: (module, extra that installs it, purpose)
PACKAGES: dict[str, tuple[str, str, str]] = {
    "torch": ("torch", "", "tensors"),
    "numpy": ("numpy", "", "arrays"),
    "accelerate": ("accelerate", "", "devices and processes"),
    "safetensors": ("safetensors", "", "weights"),
    "jsonargparse": ("jsonargparse", "", "command line"),
    "scikit-learn": ("sklearn", "demo", "the handwritten digits"),
    "pyautoattack": ("pyautoattack", "eval", "AutoAttack, in the suites standard, randomized and jatp"),
    "matplotlib": ("matplotlib", "report", "pictures and curves"),
    "jinja2": ("jinja2", "report", "evidence pages in HTML"),
    "pillow": ("PIL", "data", "folders of pictures"),
    "scipy": ("scipy", "data", "SVHN, certificates"),
    "pooch": ("pooch", "data", "downloads"),
    "timm": ("timm", "vision", "classifiers timm:NAME"),
    "torchvision": ("torchvision", "vision", "classifiers torchvision:NAME"),
    "transformers": ("transformers", "vision", "classifiers hf:ID"),
    "onnxruntime": ("onnxruntime", "onnx", "classifiers in ONNX files"),
    "foolbox": ("foolbox", "blackbox", "HopSkipJump and Boundary, in the suite black-box"),
    "datasets": ("datasets", "datasets", "data sets of Hugging Face"),
    "fastapi": ("fastapi", "serve", "forefend serve"),
    "uvicorn": ("uvicorn", "serve", "forefend serve"),
    "huggingface-hub": ("huggingface_hub", "hub", "defenses from and to huggingface.co"),
    "tensorboard": ("tensorboard", "track", "trainings that are followed in TensorBoard"),
    "model-signing": ("model_signing", "sign", "signatures of defense folders"),
    "ray": ("ray", "cluster", "studies on a Ray cluster"),
    "submitit": ("submitit", "cluster", "studies as Slurm jobs"),
}


def main(arguments: list[str]) -> int:
    """Print the packages; the exit code is 1 when a required one is missing."""
    Parser("doctor", "List installed packages, and how to install missing ones.").parse_args(arguments)
    print(f"python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()} {platform.system()}")
    broken = False
    for package, (module, extra, purpose) in PACKAGES.items():
        missing = importlib.util.find_spec(module) is None
        broken |= missing and not extra
        remedy = f"pip install 'forefend[{extra}]'" if extra else "pip install forefend"
        print(f"  {package:14} {remedy if missing else _version(package):28} {purpose}")
    if importlib.util.find_spec("torch") is not None:
        import torch

        cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
        print(f"threads {torch.get_num_threads()}, CUDA device {cuda}")
    folder = Path(os.environ.get("FOREFEND_DATA", ".data"))
    found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    print(f"data in {folder}: {', '.join(found) or 'none (set FOREFEND_DATA, or use --download)'}")
    return int(broken)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "installed"
