"""Bases that can be had without asking anybody: bundled, fetched before, or lying in a folder."""

from __future__ import annotations

from pathlib import Path

from tunelab.core.artifact import MANIFEST
from tunelab.models.bases import BUNDLED

__all__ = ["bases_fetched", "bases_in"]


def bases_fetched() -> tuple[str, ...]:
    """The bundled base, and the hub ids whose config and weights lie in the hub's cache."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except (CacheNotFound, OSError):
        return (BUNDLED,)
    models = (repo for repo in repos if repo.repo_type == "model")
    fetched = (
        m.repo_id for m in models if any(_is_base_folder(r.snapshot_path) for r in m.revisions)
    )
    return (BUNDLED, *sorted(fetched))


def bases_in(folder: Path) -> tuple[str, ...]:
    """Bases that lie in a folder, as name or owner/name: their paths from there."""
    configs = (p for pattern in ("*/config.json", "*/*/config.json") for p in folder.glob(pattern))
    return tuple(
        sorted(
            p.parent.relative_to(folder).as_posix() for p in configs if _is_base_folder(p.parent)
        )
    )


def _is_base_folder(folder: Path) -> bool:
    """Whether a folder holds a model that is no classifier of ours, and no adapter."""
    own = (folder / MANIFEST).exists() or (folder / "adapter_config.json").exists()
    whole = (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
    return whole and not own
