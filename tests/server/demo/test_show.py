import io

import pytest
from rich.console import Console

from tercet_server.demo import show
from tercet_server.demo.passages import Passage
from tercet_server.demo.search import Ranking

PASSAGES = [
    Passage("csv", "DictReader", "(f)", "Reads rows as dictionaries.\nMore."),
    Passage("concurrent.futures.thread", "ThreadPoolExecutor.submit", "(fn)", "Submits a callable to be executed."),
    Passage("csv", "", "", "About [bold]csv[/bold] files."),
]
RANKINGS = [
    Ranking("dense", {0: 0.6774, 1: 0.5, 2: 0.25}, 1234.56),
    Ranking("sparse", {}, 0.4),
    Ranking("hybrid", {2: 0.0328}, 1.0),
    Ranking("hybrid + rerank", {1: 8.125}, 2.0),
]


def printed(width: int) -> list[str]:
    screen = Console(file=io.StringIO(), width=width, highlight=False)
    show.answer(screen, "what [red]is[/red] it?", RANKINGS, PASSAGES, top=3)
    return screen.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_table_fits_and_shows_names_scores_and_times(width: int) -> None:
    lines = printed(width)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= width
    for part in ("“what [red]is[/red] it?”", "csv.DictReader", "0.677", "cosine, 1,235 ms", "BM25, 0.4 ms"):
        assert part in text
    assert "cutor.submit" in text and "0.033" in text and "8.125" in text and "About [" in text


def test_rankings_that_end_early_are_marked() -> None:
    assert sum(line.count("–") for line in printed(100)) == 3 + 2 + 2


def test_output_to_a_pipe_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    screen = show.console()
    with show.progress(screen, "encoding") as progress:
        progress(1, 2)
    show.answer(screen, "a question", RANKINGS, PASSAGES, top=1)
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\r" not in out and "csv.DictReader" in out and "encoding" not in out
