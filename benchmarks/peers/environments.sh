#!/usr/bin/env bash
# Environments for the peers whose pins clash with each other's: FOLDER/torchattacks and FOLDER/art.
# foolbox is among our own development tools. Each gets the very torch that our environment has.
# usage: benchmarks/peers/environments.sh [FOLDER]      (.venvs by default; PYTHON is our environment's)
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
environment art adversarial-robustness-toolbox==1.20.1 packaging  # which it imports and does not ask for
