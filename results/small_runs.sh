#!/usr/bin/env bash
# Train and evaluate one short run of every recipe on real images; about a minute each on one core.
# Requires FOREFEND_DATA with mnist/ and fashion-mnist/, and published classifiers in $FOREFEND_DATA/classifiers.
# usage: results/small_runs.sh [RECIPE ...]      (default: all)
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
forefend() { "${PYTHON:-python}" -m forefend "$@"; }
natural="smallcnn:$FOREFEND_DATA/classifiers/secml-mnist-smallcnn.pth"
unseen="lenet5:$FOREFEND_DATA/classifiers/advertorch-mnist-lenet5.pt"
robust="smallcnn:$FOREFEND_DATA/classifiers/trades-mnist-smallcnn-robust.pt"
mnist=(--data mnist --images 2000 --mean 0 --std 1)

train() { # RECIPE options: writes runs/small/RECIPE
  forefend train "$1" "${mnist[@]}" --out "runs/small/$1" "${@:2}"
}
behind() { # RECIPE options: trains a preprocessor in front of a published natural classifier
  train "$1" --guides "$natural" --threat Linf:0.1 "${@:2}"
}
alone() { # RECIPE options: trains a classifier
  train "$1" --classifier tinyresnet --threat Linf:0.1 "${@:2}"
}
measure() { # RECIPE options: writes results/small/RECIPE
  forefend evaluate "runs/small/$1" --suite quick --images 300 --mean 0 --std 1 --out "results/small/$1" "${@:2}"
  cp "runs/small/$1/config.json" "results/small/$1/config.json"
}

run() {
  case $1 in
    rtfe)               behind rtfe --epochs 4 --steps 4 --relative-step 0.4; measure rtfe --classifiers "$unseen" ;;
    aaa)                behind aaa --epochs 4 --steps 5 --relative-step 0.3; measure aaa --classifiers "$unseen" ;;
    robustifier)        behind robustifier --epochs 4 --lr 0.02; measure robustifier --classifiers "$unseen" ;;
    hgd)                behind hgd --epochs 3 --steps 7 --relative-step 0.25; measure hgd ;;
    ape-gan)            behind ape-gan --epochs 6 --steps 7 --relative-step 0.25 --lr 1e-3; measure ape-gan ;;
    nrp)                behind nrp --epochs 4 --steps 7 --relative-step 0.25 --batch-size 100 --lr 1e-3; measure nrp ;;
    denoised-smoothing) train denoised-smoothing --guides "$natural" --epochs 6 --batch-size 100
                        measure denoised-smoothing --threat Linf:0.1 ;;
    jatp)               train jatp --guides "$robust" --threat Linf:0.3 --epochs 3 --steps 7 --relative-step 0.25
                        measure jatp ;;
    jatp-prime)         train jatp-prime --classifier "$natural" --threat Linf:0.1 --epochs 3 --steps 7 --relative-step 0.25
                        measure jatp-prime --classifiers "$unseen" ;;
    jat)                train jat --classifier smallcnn --threat Linf:0.1 --epochs 4 --steps 5 --relative-step 0.3
                        measure jat --classifiers "$natural" ;;
    natural)            train natural --classifier tinyresnet; measure natural --threat Linf:0.1 ;;
    adversarial)        alone adversarial --epochs 10; measure adversarial ;;
    trades)             alone trades --epochs 10; measure trades ;;
    mart)               alone mart --epochs 10 --lr 0.05; measure mart ;;
    mma)                alone mma --epochs 10 --lr 0.1; measure mma ;;
    mma-simple)         alone mma-simple --epochs 10 --batch-size 100; measure mma-simple ;;
    transfer)           forefend train natural --data fashion-mnist --images 5000 --classifier tinyresnet --out runs/small/source
                        train transfer --source runs/small/source --threat Linf:0.1 --epochs 8
                        measure transfer ;;
    *)                  echo "there is no small run of $1" >&2; exit 2 ;;
  esac
}

recipes=(natural adversarial trades mart mma mma-simple transfer jat jatp-prime jatp rtfe aaa robustifier hgd ape-gan nrp
         denoised-smoothing)
if [ $# -gt 0 ]; then recipes=("$@"); fi
for recipe in "${recipes[@]}"; do run "$recipe"; done
