"""sketch: curves as SVG, broken where a term was off, marked where a weight was moved, small however long the run."""

from __future__ import annotations

import io
import math
import time
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import torch
from PIL import Image

from srkit import sketch
from srkit.training import History


def history(steps: int = 200, off: range = range(0), **move: float) -> History:
    made = History()
    for step in range(1, steps + 1):
        terms = {"mse": 0.01 / step**0.3, "relu2_2": 2 / step**0.2, "x2/psnr": 0.03}
        if step in off:
            del terms["relu2_2"]
        made.add({"step": step, "seconds": 1.0, "learning_rate": 1e-3, "loss": 1.0, **terms}
                 | {f"weighted/{name}": value for name, value in terms.items()})  # fmt: skip
    return made


def drawn(made: History) -> list[ElementTree.Element]:
    curves = sketch.Curves(made, "VGG-16, random weights")
    assert curves.read() and not curves.read()
    return list(ElementTree.fromstring(curves.svg()))


def of_class(graph: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [element for element in graph.iter() if element.get("class") == name]


def words(graph: ElementTree.Element) -> str:
    return " ".join(graph.itertext())


def test_one_line_a_term_in_the_graph_it_belongs_to():
    pixels, layers = drawn(history())
    assert [line.find("title").text for line in of_class(pixels, "line")] == ["mse", "x2/psnr"]
    assert [line.find("title").text for line in of_class(layers, "line")] == ["relu2_2"]
    assert "Pixel terms" in words(pixels) and "VGG-16, random weights" in words(layers) and "step" in words(layers)


def test_a_graph_without_terms_is_left_out():
    only = History()
    assert sketch.Curves(only).svg() == ""
    only.add({"step": 1, "loss": 0.5, "mse": 0.5, "weighted/mse": 0.5, "val/mse": 0.4})
    (graph,) = drawn(only)
    assert "MSE" in words(graph) and len(of_class(graph, "line")) == 1  # one row is drawn too


def test_a_mark_for_each_move_with_what_moved():
    made = history(100)
    made.add({"step": 100, "from/relu2_2": 0.0, "to/relu2_2": 0.05})
    made.rows += [{**row, "step": row["step"] + 100} for row in history(100).rows]
    made.add({"step": 200, "from/mse": 1.0, "to/mse": 0.0})
    made.add({"step": 200, "from/learning_rate": 1e-3, "to/learning_rate": 2.2e-5})
    for graph in drawn(made):
        first, second = of_class(graph, "move")
        assert first.find("title").text == "step 100: λ relu2_2 off → 0.05"
        assert second.find("title").text == "step 200: λ mse 1 → off\nstep 200: learning rate 0.001 → 2.2e-5"
        assert "relu2_2 → 0.05" in words(graph) and "2 moves" in words(graph)


def test_a_line_is_broken_where_its_term_was_off():
    curves = sketch.Curves(history(300, off=range(100, 200)))
    curves.read()
    assert [(piece[0][0], piece[-1][0]) for piece in curves.lines["relu2_2"]] == [(1, 99), (200, 300)]
    _, graph = drawn(history(300, off=range(100, 200)))
    assert of_class(graph, "line")[0].get("d").count("M") == 2
    assert "relu2_2 off" in words(drawn(history(300, off=range(290, 301)))[1])


def test_a_long_run_is_drawn_quickly_and_small():
    curves = sketch.Curves(history(20_000))
    curves.read()
    start = time.perf_counter()
    text = curves.svg()
    assert time.perf_counter() - start < 0.2 and len(text) < 60_000  # on a busy machine; 20 ms on a quiet one
    for graph in ElementTree.fromstring(text):
        for line in of_class(graph, "line"):
            assert 200 <= line.get("d").count("L") <= sketch.POINTS


def test_only_new_rows_are_read():
    made = history(10)
    curves = sketch.Curves(made)
    curves.read()
    made.rows[:5] = [{"step": 0}] * 5  # what was read is not looked at again
    made.add({**made.rows[-1], "step": 11})
    assert curves.read() and [step for step, _ in curves.lines["mse"][0]] == list(range(1, 12))


def test_numbers_as_labels():
    values = (0, 1, 0.05, 0.0125, 1e-4, 2.2e-5, 320, 1e6)
    assert [sketch.short(value) for value in values] == ["0", "1", "0.05", "0.0125", "1e-4", "2.2e-5", "320", "1e6"]


def test_axes_have_round_ticks():
    for low, high in ((0.9, 1.1), (1e-3, 4e-3), (1e-6, 10), (2.2, 2.9), (1e-12, 1e6)):
        ticks = sketch._log_ticks(low, high)
        assert 2 <= len(ticks) <= 12 and all(low <= tick <= high for tick in ticks), (low, high, ticks)
    assert sketch._ticks(4137) == [0, 1000, 2000, 3000, 4000] and sketch._ticks(3)[-1] <= 3
    assert math.prod(sketch._spread(1, 1)) > 0 and sketch._spread(1, 1)[0] < 1 < sketch._spread(1, 1)[1]


def test_labels_do_not_cover_each_other():
    places = sketch._apart({"a": 50.0, "b": 51.0, "c": 52.0, "d": 200.0}, 12, 40, 60)
    heights = sorted(places.values())
    assert all(b - a >= 12 for a, b in pairwise(heights)) and heights[-1] <= 60


def test_pictures_are_enlarged_in_whole_squares():
    picture = torch.rand(3, 5, 7).round()
    file = Image.open(io.BytesIO(sketch.jpeg(picture, 40)))
    assert file.format == "JPEG" and file.size == (280, 200)
    values = torch.from_numpy(np.array(file)).permute(2, 0, 1)[:, 20::40, 20::40] / 255
    assert (values - picture).abs().max() < 0.05
    assert Image.open(io.BytesIO(sketch.jpeg(torch.rand(3, 300, 1000)))).size == (500, 150)


def test_what_a_discriminator_believes_stands_between_0_and_1():
    made = History()
    for step in range(1, 50):
        warm = {} if step < 10 else {"loss": 1.0, "content": 0.1, "adversarial": 0.7, "weighted/content": 0.1,
                                     "weighted/adversarial": 0.01}  # fmt: skip
        made.add({"step": step, "D/real": 0.5 + step / 100, "D/fake": 0.5 - step / 100, "D/loss": 0.6, **warm})
    graphs = {words(graph)[:25]: graph for graph in drawn(made)}
    chances = next(graph for title, graph in graphs.items() if title.startswith("How real D finds them"))
    assert [line.find("title").text for line in of_class(chances, "line")] == ["D/real", "D/fake"]
    ticks = [
        element.text for element in chances.iter() if element.tag == "text" and element.get("text-anchor") == "end"
    ]
    assert ticks == ["0", "0.25", "0.5", "0.75", "1"] and "random weights" not in words(chances)
    curves = sketch.Curves(made)
    curves.read()
    axes = {ax.get_title(): ax for ax in sketch.still(curves, {}, "").get_axes() or sketch.still(curves, {}, "").axes}
    assert axes["How real D finds them"].get_ylim() == (0, 1) and axes["Other terms"].get_yscale() == "log"
