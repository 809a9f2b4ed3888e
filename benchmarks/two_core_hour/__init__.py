"""The two-core hour: what a text encoder learns from scratch in an hour on two CPU cores.

    python -m benchmarks.two_core_hour ENTRY --out runs/hour/ENTRY    train and score an entry
    python -m benchmarks.two_core_hour --table                        the table of entries

docs/two_core_hour.md has the rules. An entry is a file in entries/, or any file like them.

entry     what an entry says: config, tokenizer, rows
data      the text in two parts, tokenizers, corpora, tasks
folder    what a folder was made from
train     how many steps fit into the budget, and the run
score     bits per character, and the fine-tuned tasks
table     results/ENTRY.json -> the table
"""
