"""A pretrained model: found, loaded, computed fast, saved.

bases         which model is meant: a name, a folder, the hash of its weights
at_hand       which bases can be had without asking anybody
weights       the files of weights: whole, and all of it numbers
usable        what a base must be before anything is trained on it: `asked` and `complete` look
company       whether a text's scores depend on what is computed beside it
heads         what becomes of a head that a base brings
families family names   what is particular to a kind of model, a row each; names of its parts
pretrained parts bits   encoders and heads, loaded; what is in them; in few bits
tokenizer_probe   tokenizers that never end, tried in a process of their own
batches tokens embeddings frozen   texts in tokens, vectors and states, cached by content
lengths       how long texts are in tokens, and the limit that is chosen for them
packed        training without padding
scoring       scoring fast
bare          the same from a classifier's files alone, without transformers and peft
many          several adapters in one pass, trained
shared_row    many adapters in one batch, scored
trained_vectors   an encoder whose vectors are trained
vector_heads embedded   planes, neighbours or trees on a frozen base's vectors
token_vectors static   a base's tokens, each by itself; what each says of each class
ensemble      saved classifiers averaged
entailment    a model of natural language inference, asked which label a text entails
chat llm      a language model behind an endpoint, asked for labels
classifier linear tfidf text_classifier   what is saved, opened and asked for labels
foreign       what peft and transformers saved
explained     which words moved an answer
familiar      texts that read like none of the training texts
exported      a graph, run by onnxruntime or OpenVINO without torch

May import: core, data, stats, kernels.
"""
