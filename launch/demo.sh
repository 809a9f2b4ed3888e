#!/usr/bin/env bash
# Text in, a trained BERT out: tokenizer, corpus, pre-training, filled masks, curves.
# Safe to repeat: what is there is kept, and a run that was stopped goes on.
set -euo pipefail
cd "$(dirname "$0")/.."

data=runs/demo-data run=runs/demo
say() { printf '\n== %s\n' "$1"; }

if [ ! -d "$data/tokenizer" ]; then
    say "1/4 a tokenizer, from the text of data/sample.txt"
    bert-jax tokenizer data/sample.txt --kind wordpiece --vocab-size 4000 --out "$data/tokenizer"
fi
if [ ! -d "$data/corpus" ]; then
    say "2/4 the text as rows of token ids; every 20th document is kept for validation"
    bert-jax prepare data/sample.txt --tokenizer "$data/tokenizer" --segments nsp --length 64 \
        --out "$data/corpus" --workers 2
fi
say "3/4 pre-training (configs/demo.py)"
bert-jax pretrain configs/demo.py --data.path "$data/corpus" --run.dir "$run"

say "4/4 what it learned"
while read -r text; do
    printf '%s\n' "$text"
    bert-jax fill "$run" "$text" --top 5
done <<'TEXT'
The Congress of the United [MASK] must act.
I ask the [MASK] to pass this bill.
It was more than a [MASK] ago that we met.
"I am [MASK] glad to see you," said Elizabeth.
TEXT
say "loss curves"
bert-jax report "$run" --out "$run/report"
printf 'the run folder: %s\n' "$run"
