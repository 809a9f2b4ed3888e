"""ELECTRA on single residues of proteins, for one GPU.

    bert-jax tokenizer proteins.fasta --kind chars --out TOK
    bert-jax prepare proteins.fasta --tokenizer TOK --segments single --length 512 --out CORPUS
    bert-jax pretrain configs/protein_electra_small.py --data.path CORPUS

12 layers of width 256 with rotary positions, which suit sequences whose places have no meaning by
themselves. No published model has this recipe. `protein_electra_tiny` is its version for smoke
tests on a CPU.
"""

from bert_jax.config import ELECTRA, replace

config = replace(
    ELECTRA,
    encoder=dict(hidden_size=256, heads=4, embedding_size=128, positions="rotary"),
    objective=dict(generator_size=0.5),
    data=dict(batch_size=128),
    optim=dict(peak_lr=5e-4),
    run=dict(dir="runs/protein_electra_small", steps=200_000, dtype="bfloat16"),
)
