#!/usr/bin/env bash
# Text in, a trained BERT out: tokenizer, corpus, pre-training, what it learned, curves.
# Safe to repeat: existing folders are kept, and a stopped run resumes.
set -euo pipefail
cd "$(dirname "$0")/.."

data=runs/demo-data run=runs/demo
say() { printf '\n== %s\n' "$1"; }

if [ ! -d "$data/tokenizer" ]; then
    say "1/5 a tokenizer, from the text of data/sample.txt"
    bert-jax tokenizer data/sample.txt --kind wordpiece --vocab-size 4000 --out "$data/tokenizer"
fi
if [ ! -d "$data/corpus" ]; then
    say "2/5 the text as rows of token ids; every 20th document is kept for validation"
    bert-jax prepare data/sample.txt --tokenizer "$data/tokenizer" --segments nsp --length 64 \
        --out "$data/corpus" --workers 2
fi
say "3/5 pre-training (configs/demo.py): BERT's objective, with rotary positions, pre-norm, a gated MLP and Muon"
bert-jax pretrain configs/demo.py --data.path "$data/corpus" --run.dir "$run"

say "4/5 what it learned: masked tokens of held-out text, beside baselines without context and with two neighbors"
bert-jax evaluate "$run" --data "$data/corpus"

say "5/5 eight sentences; + marks an accepted word (data/demo_prompts.jsonl) in the top three"
python launch/fill_prompts.py "$run"
say "loss curves"
bert-jax report "$run" --out "$run/report"
printf 'the run folder: %s\n' "$run"
