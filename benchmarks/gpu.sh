#!/usr/bin/env bash
# On a machine with a CUDA device: the tests marked gpu, then every ratio and the steps/s there.
# PYTHON names an interpreter that has torch with CUDA and the other dependencies; the checkout is used as it is.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON="${PYTHON:-python}"
"$PYTHON" -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "torch finds no CUDA device here")'
"$PYTHON" -m pytest -m gpu tests
"$PYTHON" -m benchmarks --device cuda
