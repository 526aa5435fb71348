"""Tiny random models of types that tunelab has no row for, in the hub's layout."""

from __future__ import annotations

from pathlib import Path

from families import UNKNOWN
from tiny import vocabulary


def _unknown_configs(size: int) -> dict[str, object]:
    import transformers as t

    wide = {
        "initializer_range": 0.2, "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": size,
        "max_position_embeddings": 64,
    }  # fmt: skip
    pads = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    after_pad = {**wide, **pads, "max_position_embeddings": 66}
    gpt = {**wide, **pads}
    return {
        # Padding is not masked, or belongs on the other side.
        "xlnet": t.XLNetConfig(
            vocab_size=size, d_model=32, n_layer=2, n_head=2, d_inner=64, initializer_range=0.2
        ),
        "fnet": t.FNetConfig(**{k: v for k, v in wide.items() if "heads" not in k}),
        "convbert": t.ConvBertConfig(**wide, embedding_size=32),
        "squeezebert": t.SqueezeBertConfig(
            **wide, embedding_size=32, q_groups=1, k_groups=1, v_groups=1, post_attention_groups=1,
            intermediate_groups=1, output_groups=1,
        ),
        "nystromformer": t.NystromformerConfig(**wide, num_landmarks=4, conv_kernel_size=5),
        # Positions begin after the pad id.
        "mpnet": t.MPNetConfig(**{**after_pad, "pad_token_id": 1}),
        "longformer": t.LongformerConfig(**after_pad, attention_window=4),
        "xmod": t.XmodConfig(**after_pad, languages=["en"], default_language="en"),
        "ibert": t.IBertConfig(**after_pad),
        "data2vec-text": t.Data2VecTextConfig(**after_pad),
        # Encoders as others.
        "rembert": t.RemBertConfig(**wide, **pads, input_embedding_size=16),
        "roformer": t.RoFormerConfig(**wide, **pads, embedding_size=32),
        "mobilebert": t.MobileBertConfig(
            **wide, **pads, embedding_size=16, intra_bottleneck_size=16,
            num_feedforward_networks=1,
        ),
        "megatron-bert": t.MegatronBertConfig(**wide, **pads),
        "ernie": t.ErnieConfig(**wide, **pads),
        "big_bird": t.BigBirdConfig(**wide, **pads, block_size=4, num_random_blocks=1),
        "deberta": t.DebertaConfig(**wide, **pads),
        "layoutlm": t.LayoutLMConfig(**wide, **pads),
        "xlm": t.XLMConfig(
            vocab_size=size, emb_dim=32, n_layers=2, n_heads=2, max_position_embeddings=64,
            pad_index=0, bos_index=2, eos_index=3, unk_index=1, mask_index=4,
        ),
        "flaubert": t.FlaubertConfig(
            vocab_size=size, emb_dim=32, n_layers=2, n_heads=2, max_position_embeddings=64,
            pad_index=0, bos_index=2, eos_index=3, unk_index=1, mask_index=4,
        ),
        # Decoders.
        "gpt_neo": t.GPTNeoConfig(
            vocab_size=size, hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64,
            attention_types=[[["global", "local"], 1]], window_size=4, max_position_embeddings=64,
            initializer_range=0.2, bos_token_id=2, eos_token_id=3,
        ),
        "gpt_neox": t.GPTNeoXConfig(**gpt),
        "opt": t.OPTConfig(
            vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            ffn_dim=64, max_position_embeddings=64, word_embed_proj_dim=32, init_std=0.2, **pads,
        ),
        "bloom": t.BloomConfig(
            vocab_size=size, hidden_size=32, n_layer=2, n_head=2, initializer_range=0.2, **pads
        ),
        "falcon": t.FalconConfig(
            vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            initializer_range=0.2, **pads,
        ),
        "phi": t.PhiConfig(**gpt),
        "gemma": t.GemmaConfig(**gpt, num_key_value_heads=1, head_dim=16),
        "openai-gpt": t.OpenAIGPTConfig(
            vocab_size=size, n_positions=64, n_embd=32, n_layer=2, n_head=2, initializer_range=0.2
        ),
        # A decoder behind an encoder: refused.
        "bart": t.BartConfig(
            vocab_size=size, d_model=32, encoder_layers=2, decoder_layers=2,
            encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=64,
            decoder_ffn_dim=64, max_position_embeddings=64, decoder_start_token_id=3, **pads,
        ),
        "t5": t.T5Config(
            vocab_size=size, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2,
            pad_token_id=0, eos_token_id=3, decoder_start_token_id=0,
        ),
    }  # fmt: skip


UNKNOWN_TYPES = (
    "xlnet", "fnet", "convbert", "squeezebert", "nystromformer", "mpnet", "longformer",
    "xmod", "ibert", "data2vec-text", "rembert", "roformer", "mobilebert", "megatron-bert", "ernie",
    "big_bird", "deberta", "layoutlm", "xlm", "flaubert", "gpt_neo", "gpt_neox", "opt", "bloom",
    "falcon", "phi", "gemma", "openai-gpt", "bart", "t5",
)  # fmt: skip


def make_unknown(folder: Path, model_type: str, seed: int = 0) -> Path:
    """Write a tiny random base model of a type without a row."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import AutoModel, PreTrainedTokenizerFast

    vocab = {token: i for i, token in enumerate(vocabulary())}
    torch.manual_seed(seed)
    config = _unknown_configs(len(vocab) + 8)[model_type]
    AutoModel.from_config(config).save_pretrained(folder)
    words = Tokenizer(models.WordPiece(vocab, **UNKNOWN))
    words.normalizer = normalizers.BertNormalizer()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {**UNKNOWN, "eos_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]",
               "sep_token": "[SEP]"}  # fmt: skip
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    return folder
