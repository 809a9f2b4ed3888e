"""python -m bert_jax"""

from bert_jax.cli.main import main

main()
