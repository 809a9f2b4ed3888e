#!/usr/bin/env bash
# Train the five families at demo size on the sample text, and print a table.
# Takes about 40 minutes on two cores; can be repeated. Usage: benchmarks/families.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
root=${1:-runs/families}

family() { # config segments
    bert-jax pretrain "configs/$1.py" --data.path "$root/corpus-$2" --run.dir "$root/$1"
}

benchmarks/demo_corpora.sh "$root"
family demo nsp
family demo_albert sop
family demo_roberta full
family demo_electra electra
family demo_spanbert single
python benchmarks/families.py "$root"/demo*
