"""Base models by name: the bundled one, a local folder, and the hub's own cache layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants
from transformers import AutoModel

from tunelab.core.errors import ArtifactError, ModelError
from tunelab.core.values import BaseRef
from tunelab.models import bases

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def in_hub_cache(tiny_bert: Path) -> str:
    """Put the tiny BERT where huggingface_hub keeps what it has fetched, as owner/tiny."""
    repo = Path(constants.HF_HUB_CACHE) / "models--owner--tiny"
    snapshot = repo / "snapshots" / REVISION
    shutil.copytree(tiny_bert, snapshot, dirs_exist_ok=True)
    (repo / "refs").mkdir(exist_ok=True)
    (repo / "refs" / "main").write_text(REVISION, encoding="ascii")
    return "owner/tiny"


def test_the_bundled_model_has_its_published_hash() -> None:
    base = bases.resolve("minilm")
    assert base.ref.sha256.startswith("53aa51172d142c89")
    assert bases.resolve("sentence-transformers/all-MiniLM-L6-v2").ref == base.ref
    assert base.model_type == "bert"
    assert base.max_positions == 512


def test_a_hub_id_is_found_in_the_hubs_cache_without_a_network(
    in_hub_cache: str, tiny_bert: Path
) -> None:
    base = bases.resolve(in_hub_cache)
    assert base.ref == BaseRef("owner/tiny", bases.resolve(str(tiny_bert)).ref.sha256)
    assert bases.resolve(f"{in_hub_cache}@{REVISION}").ref.sha256 == base.ref.sha256


def test_a_hub_id_that_is_not_cached_says_how_to_go_on() -> None:
    with pytest.raises(ModelError, match=r"not in the local hub cache.*local folder"):
        bases.resolve("owner/absent")


def test_parameters_are_counted_from_the_file_as_torch_counts_them(tiny_bert: Path) -> None:
    model = AutoModel.from_pretrained(tiny_bert)
    counted = bases.count_parameters(bases.resolve(str(tiny_bert)))
    assert counted == sum(p.numel() for p in model.parameters())


def test_the_same_weights_with_another_tokenizer_hash_differently(
    tiny_bert: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(tiny_bert, tmp_path / "other")
    text = (other / "tokenizer.json").read_text(encoding="utf-8")
    (other / "tokenizer.json").write_text(text.replace('"film"', '"movie"'), encoding="utf-8")
    first, second = bases.resolve(str(tiny_bert)), bases.resolve(str(other))
    assert first.ref.sha256 == second.ref.sha256
    assert first.tokenizer_sha256 != second.tokenizer_sha256


def test_another_base_is_refused_by_name(tiny_bert: Path) -> None:
    with pytest.raises(ArtifactError, match="On another base it would predict nonsense"):
        bases.resolve_exactly(BaseRef(str(tiny_bert), "0" * 64), Path("out"))


@pytest.mark.parametrize(("asked", "fits"), [(64, True), (65, False)])
def test_a_length_beyond_the_positions_is_refused(tiny_bert: Path, asked: int, fits: bool) -> None:
    base = bases.resolve(str(tiny_bert))
    if fits:
        bases.check_length(base, asked)
    else:
        with pytest.raises(ModelError, match="--max-length 64"):
            bases.check_length(base, asked)
