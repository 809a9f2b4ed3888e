"""A masked language model on single residues of proteins, for one GPU.

    bert-jax tokenizer proteins.fasta --kind chars --out TOK
    bert-jax prepare proteins.fasta --tokenizer TOK --segments single --length 512 --out CORPUS
    bert-jax pretrain configs/protein_bert_small.py --data.path CORPUS

12 layers of width 512 with rotary positions, and no sentence pairs: a protein has none. No
published model has this recipe. `protein_bert_tiny` is its version for smoke tests on a CPU.
"""

from bert_jax.config import BERT, replace

config = replace(
    BERT,
    encoder=dict(layers=12, hidden_size=512, heads=8, positions="rotary"),
    objective=dict(sentence_pair=False),
    data=dict(batch_size=128),
    optim=dict(peak_lr=4e-4),
    run=dict(dir="runs/protein_bert_small", steps=200_000, dtype="bfloat16"),
)
