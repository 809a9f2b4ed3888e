#!/usr/bin/env bash
# Text in, a trained BERT out, in the checkout's runs/: what `make demo` calls.
set -euo pipefail
cd "$(dirname "$0")/.."
exec bert-jax demo "$@"
