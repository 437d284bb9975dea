"""live.svg: curves broken where a term was off, marked where a weight was moved, small however long the run."""

from __future__ import annotations

import time
from xml.etree import ElementTree

from srkit.live import svg
from srkit.training import History, Move


def history(steps: int = 200, off: range = range(0)) -> History:
    made = History()
    for step in range(1, 1 + steps):
        terms = {"mse": 0.01 / step**0.3, "relu2_2": 2 / step**0.2, "x2/psnr": 0.03}
        if step in off:
            del terms["relu2_2"]
        weighted = {f"weighted/{name}": value for name, value in terms.items()}
        made.add({"step": step, "seconds": 1.0, "lr": 1e-3, "loss": 1.0, **terms, **weighted})
    return made


def draw(made: History) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg.draw(made, "VGG-16, random weights")))


def lines(graph: ElementTree.Element) -> dict[str, str]:
    """Each smoothed line's path by its name."""
    return {path.find("title").text: path.get("d") for path in graph.iter("path") if path.get("class") == "line"}


def words(graph: ElementTree.Element) -> str:
    return " ".join(graph.itertext())


def test_one_line_a_term_in_the_graph_it_belongs_to():
    pixels, layers = draw(history())
    assert list(lines(pixels)) == ["mse", "x2/psnr"] and list(lines(layers)) == ["relu2_2"]
    assert "Pixel terms" in words(pixels) and "VGG-16, random weights" in words(layers) and "step" in words(layers)
    only = History()
    assert svg.draw(only) == ""
    only.add({"step": 1, "lr": 1e-3, "loss": 0.5, "mse": 0.5, "weighted/mse": 0.5, "val/mse": 0.4})
    (graph,) = draw(only)
    assert list(lines(graph)) == ["mse"]  # one row is drawn too


def test_a_mark_for_each_step_with_moves_says_what_moved():
    made = history()
    moves = Move(100, "relu2_2", 0.0, 0.05), Move(200, "mse", 1.0, 0.0), Move(200, "lr", 1e-3, 2.2e-5)
    for move in (*moves, Move(201, "accumulate", 1, 2)):
        made.add_move(move)
    for graph in draw(made):
        assert [mark.find("title").text for mark in graph.iter("g")] == [
            "step 100: λ relu2_2 off → 0.05",
            "step 200: λ mse 1 → off\nstep 200: learning rate 0.001 → 2.2e-5",
            "step 201: accumulate 1 → 2",
        ]


def test_a_line_is_broken_where_its_term_was_off():
    _, graph = draw(history(300, off=range(100, 200)))
    assert lines(graph)["relu2_2"].count("M") == 2 and "relu2_2 off" not in words(graph)
    assert "relu2_2 off" in words(draw(history(300, off=range(290, 301)))[1])


def test_a_long_run_is_drawn_quickly_and_small():
    made = history(20_000)
    start = time.perf_counter()
    text = svg.draw(made)
    assert time.perf_counter() - start < 0.6 and len(text) < 60_000  # on a busy machine
    for graph in ElementTree.fromstring(text):
        assert all(200 <= path.count("L") <= svg.POINTS for path in lines(graph).values())


def test_numbers_as_labels_and_round_ticks():
    values = (0, 1, 0.05, 0.0125, 1e-4, 2.2e-5, 320, 1e6)
    assert [svg.short(value) for value in values] == ["0", "1", "0.05", "0.0125", "1e-4", "2.2e-5", "320", "1e6"]
    for low, high in ((0.9, 1.1), (1e-3, 4e-3), (1e-3, 9e-3), (1e-6, 10), (2.2, 2.9), (0.3, 95), (1e-12, 1e6)):
        ticks = svg.log_ticks(low, high)
        assert 2 <= len(ticks) <= 10 and all(low <= tick <= high for tick in ticks), (low, high, ticks)


def test_a_discriminators_probabilities_stand_between_0_and_1():
    made = History()
    for step in range(1, 50):
        made.add({"step": step, "lr": 1e-3, "D/real": 0.5 + step / 100, "D/fake": 0.5 - step / 100, "D/loss": 0.6})
    (graph,) = draw(made)
    ticks = [text.text for text in graph.iter("text") if text.get("text-anchor") == "end"]
    assert list(lines(graph)) == ["D/real", "D/fake"] and ticks == ["0", "0.25", "0.5", "0.75", "1"]
    assert "random weights" not in words(graph)
