#!/usr/bin/env bash
# Tokenizers and corpora of the demo_* configs from the sample text, for families.sh and
# bfloat16.py. What is there already is kept. Usage: benchmarks/demo_corpora.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
root=${1:-runs/families}

corpus() { # tokenizer kind, segments
    [ -d "$root/$1" ] ||
        bert-jax tokenizer data/sample.txt --kind "$1" --vocab-size 4000 --out "$root/$1"
    [ -d "$root/corpus-$2" ] ||
        bert-jax prepare data/sample.txt --tokenizer "$root/$1" --segments "$2" --length 64 \
            --out "$root/corpus-$2" --workers 2
}

corpus wordpiece nsp
corpus unigram sop
corpus bpe full
corpus wordpiece electra
corpus wordpiece single
