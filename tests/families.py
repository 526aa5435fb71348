"""Tiny random base models of every family: 2 layers, 32 wide, 64 positions, one vocabulary."""

from __future__ import annotations

from pathlib import Path

from tiny import vocabulary


def _configs(size: int) -> dict[str, object]:
    import transformers as t

    wide = {
        "initializer_range": 0.2, "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64, "vocab_size": size, "max_position_embeddings": 64,
    }  # fmt: skip
    after_pad = {**wide, "max_position_embeddings": 66}
    llama = {**wide, "num_key_value_heads": 2, "pad_token_id": None,
             "bos_token_id": 2, "eos_token_id": 3}  # fmt: skip
    pads = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    return {
        "bert": t.BertConfig(**wide),
        "distilbert": t.DistilBertConfig(
            vocab_size=size, initializer_range=0.2, dim=32,
            n_layers=2, n_heads=2, hidden_dim=64,
            max_position_embeddings=64,
        ),
        "roberta": t.RobertaConfig(**after_pad, **pads),
        "xlm-roberta": t.XLMRobertaConfig(**after_pad, **pads),
        "camembert": t.CamembertConfig(**after_pad, **pads),
        "albert": t.AlbertConfig(**wide, embedding_size=16, **pads),
        "electra": t.ElectraConfig(**wide, embedding_size=16),
        "deberta-v2": t.DebertaV2Config(
            **wide, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=16,
            norm_rel_ebd="layer_norm", share_att_key=True, position_biased_input=False,
            type_vocab_size=0, pooler_hidden_size=32,
        ),
        "modernbert": t.ModernBertConfig(**wide, **pads, cls_token_id=2, sep_token_id=3),
        "gpt2": t.GPT2Config(
            vocab_size=size, initializer_range=0.2, n_embd=32,
            n_layer=2, n_head=2, n_positions=64,
            bos_token_id=3, eos_token_id=3,
        ),
        "llama": t.LlamaConfig(**llama),
        "mistral": t.MistralConfig(**{**llama, "num_key_value_heads": 1}),
        "qwen2": t.Qwen2Config(**{**llama, "pad_token_id": 0}),
        "qwen3": t.Qwen3Config(**llama, head_dim=16),
    }  # fmt: skip


FAMILY_NAMES = (
    "bert", "distilbert", "roberta", "xlm-roberta", "camembert", "albert", "electra", "deberta-v2",
    "modernbert", "gpt2", "llama", "mistral", "qwen2", "qwen3",
)  # fmt: skip
UNKNOWN = {"unk_token": "[UNK]"}
DECODERS = ("gpt2", "llama", "mistral", "qwen2", "qwen3")


def make_family(folder: Path, family: str, seed: int = 0, **changes: object) -> Path:
    """Write a tiny random base model of a family, without a head, in the hub's layout.

    `changes` are to its config.
    """
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import AutoModel, PreTrainedTokenizerFast

    vocab = {token: i for i, token in enumerate(vocabulary())}
    torch.manual_seed(seed)
    # Eight more: transformers adds special tokens of its own to some families' tokenizers.
    config = _configs(len(vocab) + 8)[family]
    if changes:
        config = type(config)(**{**config.to_dict(), **changes})
    AutoModel.from_config(config).save_pretrained(folder)
    words = Tokenizer(models.WordPiece(vocab, **UNKNOWN))
    words.normalizer = normalizers.BertNormalizer()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = {**UNKNOWN, "eos_token": "[SEP]"}
    if family not in DECODERS:
        words.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        special |= {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    return folder
