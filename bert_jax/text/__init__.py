"""Text to rows of token ids. NumPy only: nothing in here imports jax."""
