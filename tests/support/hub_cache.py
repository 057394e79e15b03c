"""Models in a hub cache, as if they had been downloaded."""

from __future__ import annotations

from pathlib import Path

REVISION = "0123456789abcdef0123456789abcdef01234567"


def cached(cache: Path, model: str) -> Path:
    """Return the directory, made and empty, in which a model's files belong; put them there."""
    repository = cache / f"models--{model.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(REVISION)
    directory = repository / "snapshots" / REVISION
    directory.mkdir(parents=True)
    return directory
