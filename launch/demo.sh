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
I thank [MASK].
God bless [MASK].
We will defend our country and [MASK] allies.
"[MASK] am very glad to see you," said Elizabeth.
TEXT
echo "Minutes teach it which words go with speeches and which with novels, and little of their order."
say "loss curves"
bert-jax report "$run" --out "$run/report"
printf 'the run folder: %s\n' "$run"
