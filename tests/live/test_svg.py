"""live.svg: every term on one axis of steps, never off, marked where a weight was moved, small however long the run."""

from __future__ import annotations

import time
from xml.etree import ElementTree

import torch

from srkit.live import svg
from srkit.live.film import Film, Frame
from srkit.training import History, Move

TERMS = {"mse": 0.01, "relu2_2": 2.0, "x2/psnr": 0.03}


def history(steps: int = 200, off: range = range(0)) -> History:
    made = History()
    for step in range(1, 1 + steps):
        terms = {name: value / step**0.2 for name, value in TERMS.items()}
        if step in off:
            del terms["relu2_2"]
        weighted = {f"weighted/{name}": value for name, value in terms.items()}
        made.add({"step": step, "seconds": 1.0, "lr": 1e-3, "loss": 1.0, **terms, **weighted})
    return made


def film_of(steps: int = 200, every: int = 10, **terms: float) -> Film:
    made = Film({"picture": torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0))}, 2)
    terms, details = terms or TERMS, torch.zeros(1, 3, 24, 24, dtype=torch.uint8)
    made.bicubic = Frame(0, 28.0, terms, 0.0, details)
    for step in range(0, steps + 1, every):
        part = {name: value / (1 + step) ** 0.1 for name, value in terms.items()}
        made.frames.append(Frame(step, 27 + step / steps, part, 0.0, details))
    return made


def draw(made: Film, rows: History, at: Frame | None = None) -> ElementTree.Element:
    return ElementTree.fromstring(svg.draw(made, rows, at))


def lines(graph: ElementTree.Element, role: str = "line") -> dict[str, str]:
    """Each line's path by its name."""
    return {path.find("title").text: path.get("d") for path in graph.iter("path") if path.get("class") == role}


def words(graph: ElementTree.Element) -> str:
    return " ".join(" ".join(graph.itertext()).split())


def test_every_term_has_its_line_one_of_weight_0_too():
    graph = draw(film_of(), history(off=range(300)))
    assert list(lines(graph)) == ["PSNR", *TERMS] and all(f"■ {name}" in words(graph) for name in TERMS)
    assert list(lines(graph, "raw")) == ["mse", "x2/psnr"]  # the batches knew nothing of it
    assert "bicubic 28.00" in words(graph) and "step" in words(graph)
    assert lines(draw(film_of(steps=1, every=1), History()))  # before the first row, too


def test_a_mark_for_each_step_with_moves_says_what_moved():
    made = history()
    moves = Move(100, "relu2_2", 0.0, 0.05), Move(200, "mse", 1.0, 0.0), Move(200, "lr", 1e-3, 2.2e-5)
    for move in (*moves, Move(201, "accumulate", 1, 2)):
        made.add_move(move)
    assert [mark.find("title").text for mark in draw(film_of(), made).iter("g")] == [
        "step 100: λ relu2_2 off → 0.05",
        "step 200: λ mse 1 → off\nstep 200: learning rate 0.001 → 2.2e-5",
        "step 201: accumulate 1 → 2",
    ]


def test_no_effect_shows_before_its_cause():
    step = [(float(i), 1.0 if i < 100 else 2.0) for i in range(200)]
    assert all(value == 1.0 for at, value in svg.smoothed(step) if at < 100)


def test_the_cursor_and_the_future_that_was_left():
    made = film_of()
    made.ghost = made.frames[12:]
    made.frames = made.frames[:13]
    graph = draw(made, history(120), made.frames[6])
    assert set(lines(graph, "ghost")) == {"PSNR", *TERMS}
    (cursor,) = [path for path in graph.iter("path") if path.get("class") == "cursor"]
    place = float(cursor.get("transform")[10:-1])
    assert abs(place - (svg.LEFT + (svg.RIGHT - svg.LEFT) * 60 / 200)) < 0.1


def test_a_long_run_is_drawn_quickly_and_small():
    made, rows = film_of(20_000, 50), history(20_000)
    start = time.perf_counter()
    text = svg.draw(made, rows)
    assert time.perf_counter() - start < 0.6 and len(text) < 90_000  # on a busy machine
    assert all(path.count("L") <= svg.POINTS for path in lines(ElementTree.fromstring(text), "raw").values())


def test_numbers_as_labels_and_round_ticks():
    values = (0, 1, 0.05, 0.0125, 1e-4, 2.2e-5, 320, 1e6)
    assert [svg.short(value) for value in values] == ["0", "1", "0.05", "0.0125", "1e-4", "2.2e-5", "320", "1e6"]
    for low, high in ((0.9, 1.1), (1e-3, 4e-3), (1e-3, 9e-3), (1e-6, 10), (2.2, 2.9), (0.3, 95), (1e-12, 1e6)):
        ticks = svg.log_ticks(low, high)
        assert 2 <= len(ticks) <= 10 and all(low <= tick <= high for tick in ticks), (low, high, ticks)


def test_a_discriminators_probabilities_stand_between_0_and_1_beside_a_coins():
    made = History()
    for step in range(1, 50):
        made.add({"step": step, "lr": 1e-3, "D/real": 0.5 + step / 100, "D/fake": 0.5 - step / 100, "D/loss": 0.6})
    graph = draw(film_of(50), made)
    assert {"D/real", "D/fake"} < set(lines(graph)) and "a coin" in words(graph)
    assert "a coin" not in words(draw(film_of(), history()))


def test_a_curve_has_the_colour_of_its_weights_slider():
    terms = {"x2/mse": 1.0, "x4/mse": 1.0, "x2/l1": 1.0, "x4/l1": 1.0}
    made = film_of(**terms)
    made.frames[-1].weights = {"l1": 1.0, "mse": 0.0, "x2/mse": 0.5, "lr": 1e-3}
    of = svg.colors_of(["l1", "mse", "x2/mse"])
    assert svg.term_colors(made) == {"x2/mse": of["x2/mse"], "x4/mse": of["mse"], "x2/l1": of["l1"], "x4/l1": of["l1"]}
    graph = draw(made, history())
    assert list(lines(graph, "coarse")) == ["x2/l1"] and {"x4/l1", "x2/mse", "x4/mse"} < set(lines(graph))
