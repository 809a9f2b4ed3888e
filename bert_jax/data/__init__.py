"""Text to corpora, and corpora or labeled rows to batches, in the order of the data flow.

text_sources      the files and datasets that a command names; of the Hub: hub_dataset
text_formats      which format a file has
documents         files -> documents, of lines (corpus_lines), FASTA (fasta) or TFDS (tfds_folder)
sentences         paragraphs -> sentences
tokenization/     tokenizers: text -> ids
prepare           text -> corpus, on processes (worker_pool) or as Beam pipelines (beam)
work_shards       what `prepare` is configured with, and its shards of work
encode_documents  pass 1: documents -> tokens, which token_store keeps
shard_rows        pass 2: a shard of tokens -> rows, by segments or sentence_pairs and bin_packing
splits            which documents are held out
records           rows on disk
corpus            a prepared corpus; what `prepare` says of it is in corpus_report
corpus_cache      a corpus on a bucket -> a local copy
mixture           the corpora of each stage, one or a mix (mix_weights), and their loaders
vocabulary        what masking needs of a tokenizer and a corpus
loader            rows of corpora -> batches of pre-training
labeled           labeled rows -> batches of fine-tuning
pairs             pairs of texts -> batches of sentence encoders
batch_parts       which rows of each batch a process reads
"""
