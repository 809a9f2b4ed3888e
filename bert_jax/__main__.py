"""python -m bert_jax"""

from bert_jax.cli import main

main()
