#!/usr/bin/env bash
# Train the five families at demo size on the sample text, and print a table.
# Takes about 40 minutes on two cores; can be repeated. Usage: benchmarks/families.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
root=${1:-runs/families}

tokenizer() { # kind
    [ -d "$root/$1" ] ||
        bert-jax tokenizer data/sample.txt --kind "$1" --vocab-size 4000 --out "$root/$1"
}
family() { # config kind segments
    tokenizer "$2"
    [ -d "$root/corpus-$3" ] ||
        bert-jax prepare data/sample.txt --tokenizer "$root/$2" --segments "$3" --length 64 \
            --out "$root/corpus-$3" --workers 2
    bert-jax pretrain "configs/$1.py" --data.path "$root/corpus-$3" --run.dir "$root/$1"
}

family demo wordpiece nsp
family demo_albert unigram sop
family demo_roberta bpe full
family demo_electra wordpiece electra
family demo_spanbert wordpiece single
python benchmarks/families.py "$root"/demo*
