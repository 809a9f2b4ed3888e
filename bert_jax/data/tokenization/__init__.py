"""Tokenizers: train, load, save, encode.

training             train a tokenizer of any kind: train_wordpiece, train_chars; long_lines are cut
sentencepiece_rules  normalization of the Unigram models that are trained here; albert_text
pretrained           open the files of a folder; what its settings say is in folder_settings
pipelines            pipelines of the `tokenizers` library from bare vocabularies
backends             text -> ids, by `tokenizers` or `sentencepiece`
special_tokens       kinds of tokenizers, special tokens, rows of one segment or two
tokenizer            the `Tokenizer` over all kinds, and `load_tokenizer`
saving               write a folder that other libraries open, too
added_tokens         add words to a vocabulary
offsets              the characters of each piece
words                where words begin
normalization        what a tokenizer changes in a text
coverage             how well a tokenizer covers a text
"""
