#!/usr/bin/env bash
# Create the environments of the baselines of benchmarks/speed: those of benchmarks/peers, and FOLDER/adv-lib.
# usage: benchmarks/speed/environments.sh [FOLDER]      (default: .venvs; PYTHON is the interpreter of our environment)
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-.venvs}
python=${PYTHON:-.venv/bin/python}
benchmarks/peers/environments.sh "$folder"
torch=$("$python" -c 'import torch; print(torch.__version__.split("+")[0])')
"$python" -m venv "$folder/adv-lib"
echo 'setuptools<81' > "$folder/adv-lib/constraint" # its build needs a module that later versions removed
PIP_CONSTRAINT="$folder/adv-lib/constraint" "$folder/adv-lib/bin/pip" install --quiet \
  adv-lib==0.2.8 "torch==$torch" torchvision safetensors
