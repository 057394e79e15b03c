"""What the benchmark scripts compute besides time: ratios, tables, batches, operations, and what is kept."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from support.scripts import FOLDER, modules

NAMES = ("agreement", "cache", "facts", "gemm", "gpu_bulk", "gpu_gemm", "gpu_swap", "harness", "ingest", "markers")
NAMES += ("minilm_graph", "models", "outcome", "report", "run")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    yield from modules(NAMES, monkeypatch)


def test_a_ratio_is_the_median_over_rounds_and_above_one_for_the_better(scripts: SimpleNamespace) -> None:
    row = scripts.outcome.Row.of_rates("bulk", "peer", [1.0, 2.0, 4.0], [3.0, 4.0, 4.0], 10, "texts/s", bar=2.0)
    assert (row.ours, row.theirs, row.ratio, row.reached) == (5.0, 2.5, 2.0, True)
    times = scripts.outcome.Row.of_times("query", "peer", [0.002], [0.001], bar=1.0)
    assert (times.ours, times.unit, times.ratio, times.reached) == (2.0, "ms", 0.5, False)
    assert scripts.harness.percentile([4, 1, 3, 2], 0.5) == 3 and scripts.harness.percentile([1], 0.99) == 1


def test_the_time_outside_the_model_has_a_bar_too(scripts: SimpleNamespace) -> None:
    seconds = {"ours": [10.0], "usual": [30.0], "model": [8.0]}
    faster, inside = scripts.ingest.rows("store", "its own path", seconds, 100)
    assert faster.ratio == 3.0 and faster.reached and inside.ratio == 0.8 and not inside.reached


def test_sorted_batches_give_rows_in_the_order_of_the_texts(scripts: SimpleNamespace) -> None:
    sequences = [[i + 1] * n for i, n in enumerate((3, 1, 5, 2, 5, 4, 1))]
    widths = []

    def forward(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        widths.append(ids.shape[1])
        assert ((ids != 0) == mask).all()
        return np.stack([ids.max(1), mask.sum(1)], axis=1).astype(np.float32)

    rows = scripts.minilm_graph.in_batches(sequences, 3, forward)
    assert rows.tolist() == [[s[0], len(s)] for s in sequences]
    assert widths == [5, 3, 1]


def test_only_what_tells_texts_apart_counts_as_agreement(scripts: SimpleNamespace) -> None:
    cosine, common = scripts.agreement.least_cosine, np.full((1, 4), 100.0)
    ours = np.eye(4)
    assert cosine(ours + common, ours + common) == pytest.approx(1)
    assert cosine(ours + common, ours[::-1] + common) < 0
    assert cosine([1.0, 2.0, 3.0], [11.0, 12.0, 13.0]) == pytest.approx(1)  # the scores of one list
    assert (ours == np.eye(4)).all()


def test_an_exact_contender_that_is_off_ends_the_script(scripts: SimpleNamespace) -> None:
    def answering(rows: list[list[float]]) -> SimpleNamespace:
        return SimpleNamespace(answers=lambda _: rows)

    ours, off = answering([[1.0, 0.0], [0.0, 1.0]]), answering([[0.0, 1.0], [1.0, 0.0]])
    assert scripts.agreement.check({"ours": ours, "rounded": off}, ["ours"], ["a", "b"])["rounded"] < -0.99
    for wrong in (off, answering([[1.0, 1.0], [1.0, 1.0]])):  # the second has no direction at all
        with np.errstate(invalid="ignore"), pytest.raises(SystemExit, match="peer: a cosine below"):
            scripts.agreement.check({"ours": ours, "peer": wrong}, ["ours", "peer"], ["a", "b"])


def test_operations_are_counted_by_hand(scripts: SimpleNamespace) -> None:
    layers = scripts.gemm.LAYERS["MiniLM"]
    weights = 384 * (3 * 384) + 384 * 384 + 2 * 384 * 1536
    assert layers.encoding([10, 20]) == 6 * (2 * weights * 30 + 4 * 384 * (100 + 400))
    assert layers.products(1024) == 6 * 2 * weights * 1024


def test_an_outcome_is_kept_whole(scripts: SimpleNamespace, tmp_path: Path) -> None:
    made = scripts.facts.Facts("2 × one", {"Python": "3"}, "abc", "python x.py")
    rows = [scripts.outcome.Row("bulk", "peer", 2.0, 1.0, "texts/s", 2.0, 1.5, "a note")]
    kept = tmp_path / "new" / "bulk.json"
    assert scripts.outcome.finish(rows, made, kept) == 0
    assert scripts.outcome.Outcome.read(kept) == scripts.outcome.Outcome("bulk", rows, made)
    failed = scripts.outcome.Outcome("swap", [], failure="ended")
    failed.write(kept)
    assert scripts.outcome.Outcome.read(kept) == failed


def test_the_report_shows_what_was_missed_and_what_failed(scripts: SimpleNamespace) -> None:
    row, facts = scripts.outcome.Row, scripts.facts.Facts
    rows = [
        row("bulk", "peer", 1234.4, 500.04, "texts/s", 2.47, 2.8),
        row("query", "peer", 4.0, 12.34, "ms", 3.085, 1.0, "a note"),
        row("bulk", "slow peer", 1234.4, 100, "texts/s", 12.3),
    ]
    made = [
        facts("2 × one", {"torch": "2", "onnx": "1"}, "abc", "python a.py"),
        facts("2 × one", {"torch": "2"}, "d", "b"),
    ]
    outcome = scripts.outcome.Outcome
    text = scripts.report.block(
        [outcome("a", rows, made[0]), outcome("b", [], made[1]), outcome("c", [], None, "ended")]
    )
    assert "1 of 2 bars reached" in text
    assert "| bulk | peer | 1,234 | 500 | texts/s | 2.47× | 2.8× | **not reached** |" in text
    assert "| query (a note) | peer | 4.00 | 12.3 | ms | 3.08× | 1× | reached |" in text
    assert "| bulk | slow peer | 1,234 | 100 | texts/s | 12.30× |  |  |" in text
    assert "| c | | | | | | | **failed**: ended |" in text
    assert "2 × one; torch 2, onnx 1; commit abc and d." in text


def test_only_what_stands_between_the_markers_is_replaced(scripts: SimpleNamespace, tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text("before\n<!-- measured -->\n<!-- end -->\nafter\n")
    for text in ("one", r"two \1"):
        scripts.markers.write(document, text)
    assert document.read_text() == "before\n<!-- measured -->\n\ntwo \\1\n\n<!-- end -->\nafter\n"
    scripts.markers.write(document, "three", "measured")
    document.write_text(document.read_text() + "<!-- measured on a GPU -->\n<!-- end -->\n")
    scripts.markers.write(document, "four", scripts.markers.ON_GPU)
    scripts.markers.write(document, "five")
    parts = document.read_text().split("<!-- end -->")
    assert "five" in parts[0] and "after" in parts[1] and "four" in parts[1] and "three" not in parts[0]
    document.write_text("no markers")
    with pytest.raises(SystemExit, match="holds no"):
        scripts.markers.write(document, "text")


def test_the_documents_have_their_markers(scripts: SimpleNamespace) -> None:
    text = scripts.report.DOCUMENT.read_text("utf-8")
    assert all(
        scripts.markers.between(label).search(text) for label in (scripts.markers.MEASURED, scripts.markers.ON_GPU)
    )


def test_the_sets_name_scripts_and_models_that_are_there(scripts: SimpleNamespace) -> None:
    runs = scripts.run.RUNS | scripts.run.GPU_RUNS
    assert len(runs) == len(scripts.run.RUNS) + len(scripts.run.GPU_RUNS)
    assert {run.script for run in runs.values() if not (FOLDER / run.script).is_file()} == set()
    for script in (scripts.gpu_bulk, scripts.gpu_gemm, scripts.gpu_swap):
        name = f"{script.__name__}.py"
        asked = [run.arguments[1] for run in scripts.run.GPU_RUNS.values() if run.script == name]
        assert asked == list(getattr(script, "MODELS", None) or script.LAYERS)


def test_a_gpu_report_has_no_plot(scripts: SimpleNamespace) -> None:
    row = scripts.outcome.Row("swapped in", "the copy", 9.0, 8.0, "ms", 0.89, scripts.gpu_swap.BAR)
    text = scripts.report.block([scripts.outcome.Outcome("gpu-swap", [row])], None)
    assert "| 0.89× | 0.769× | reached |" in text and ".svg" not in text


def test_a_command_says_how_to_run_again_but_not_where_its_outcome_went(scripts: SimpleNamespace) -> None:
    assert scripts.facts.command(["x.py", "--json", "some/place", "--rounds", "5"]) == "python x.py --rounds 5"


def test_a_build_that_failed_is_never_taken_for_whole(
    scripts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts.cache, "CACHE", tmp_path)

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        scripts.cache.built("model", fail)
    whole = scripts.cache.built("model", lambda folder: (folder / "whole").touch())
    assert [path.name for path in whole.iterdir()] == ["whole"] and scripts.cache.built("model", fail) == whole
