#!/usr/bin/env bash
# Create environments for baselines whose requirements conflict: FOLDER/torchattacks and FOLDER/art.
# foolbox is one of our development dependencies. Each environment has the same torch as ours.
# usage: benchmarks/peers/environments.sh [FOLDER]      (default: .venvs; PYTHON is the interpreter of our environment)
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-.venvs}
python=${PYTHON:-.venv/bin/python}
torch="torch==$("$python" -c 'import torch; print(torch.__version__.split("+")[0])')"

environment() { # NAME packages
  "$python" -m venv "$folder/$1"
  "$folder/$1/bin/pip" install --quiet "$torch" safetensors "${@:2}"
}
mkdir -p "$folder"
echo '*' > "$folder/.gitignore"
environment torchattacks torchattacks==3.5.1
environment art adversarial-robustness-toolbox==1.20.1 packaging  # imported by ART, but not among its dependencies
