"""`bert-jax evaluate`: how well a model predicts masked text, beside baselines made of counts.

evaluate            the entry points: rows of a corpus, or a text file
result, tables      what they return, and how the command prints it
text_counts         the counts of a text: another file, or its other half
token_rows          rows of token ids, from a corpus or a text
masked_places       hidden tokens: the masking, and the losses of model and counts
pair_scores         sentence pairs
replaced_tokens     ELECTRA's discriminator
bits_per_character  a measure that compares models of different vocabularies
text_words          the words that it scores
neighbor_counts     the yardstick: counts of both neighbors (neighbor_tables, counts_by_row)
"""
