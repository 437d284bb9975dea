"""live.blind: a blind test asks each pair, hides whose pictures they are, keeps each answer, and goes on later."""

from __future__ import annotations

import base64
import io
import re

import pytest
import torch
from conftest import photograph
from PIL import Image

from srkit import live, metrics, models, settings
from srkit.live import blind
from srkit.metrics import opinions
from srkit.settings import SRKitError

METHODS = ("bicubic", "srgan", "<b>efficient</b>")


@pytest.fixture
def here(capsys):
    return settings.setup("01b", settings.Student("Ada", "18/15"), "quick")


@pytest.fixture
def outputs():
    return {
        method: {
            picture: torch.full((3, 8, 6), (60 * i + 20 * j) / 255) for j, picture in enumerate(("face", "letters"))
        }
        for i, method in enumerate(METHODS)
    }


@pytest.fixture
def asked(outputs, here, monkeypatch):
    monkeypatch.delenv("SRKIT_HEADLESS", raising=False)
    monkeypatch.setattr(blind, "display", lambda *shown: None)
    monkeypatch.setattr(blind, "PAUSE", -1)
    return live.blind_test(outputs, here)


def shown(asked) -> list[float]:
    """The grey of the two pictures in the page."""
    packed = re.findall(r'alt="(?:left|right) picture" src="data:image/png;base64,([^"]+)"', asked.pair)
    return [Image.open(io.BytesIO(base64.b64decode(one))).getpixel((0, 0))[0] for one in packed]


def press(asked, label):
    next(one for one in asked._row.children if one.description == label).click()


def test_asks_each_pair_of_each_picture_once_with_both_sides_and_says_no_name(asked, outputs):
    assert len({(picture, frozenset(pair)) for picture, *pair in asked.trials}) == len(asked.trials) == 6
    assert len({frozenset(pair) for _, *pair in asked.trials[:3]}) == 3  # each pair before any comes again
    for picture, left, right in asked.trials:
        wanted = [round(255 * outputs[method][picture][0, 0, 0].item()) for method in (left, right)]
        assert shown(asked) == wanted
        page = asked.pair + asked.told
        assert not any(name in page for name in (*METHODS, picture, "efficient"))
        asked.answer("right")
    assert [answer.better for answer in asked.answers] == [right for _, _, right in asked.trials]
    assert "all 6 pairs are answered" in asked.told and all(one.disabled for one in asked._buttons)
    asked.answer("left")
    assert len(asked.answers) == 6


def test_sides_and_order_differ_from_person_to_person_and_not_for_one(outputs):
    first, other = blind._trials(outputs, "Ada"), blind._trials(outputs, "Bob")
    assert first == blind._trials(outputs, "Ada") and first != other
    lefts = [left for person in range(60) for _, left, _ in blind._trials(outputs, str(person))]
    assert all(100 < lefts.count(method) < 140 for method in METHODS)


def test_buttons_keys_and_undo_reach_the_file(asked):
    press(asked, "left (1)")
    asked._keys.value = "2"
    assert asked._keys.value == "" and [one.better for one in asked.answers] == [asked.trials[0][1], asked.trials[1][2]]
    asked._keys.value = "x"
    assert len(asked.answers) == 2 and "pair 3 of 6" in asked.told
    assert opinions.read(asked.path).answers == asked.answers and asked.path.name == "18_15.json"
    press(asked, "undo")
    assert opinions.read(asked.path).answers == asked.answers == asked.answers[:1] and "pair 2 of 6" in asked.told


def test_the_second_half_of_a_double_click_is_no_answer(asked, monkeypatch):
    monkeypatch.setattr(blind, "PAUSE", 60)
    press(asked, "left (1)")
    press(asked, "left (1)")
    assert len(asked.answers) == 0


def test_a_second_time_goes_on_where_the_first_ended(asked, outputs, here):
    asked.answer("left")
    asked.answer("right")
    table = metrics.evaluate(models.create("bicubic", 2), [("face", photograph(32, 32))])
    later = live.BlindTest(outputs, here, {"bicubic": table}, count=4)
    assert later.answers == asked.answers and "pair 3 of 4" in later.told
    later.answer("left")
    assert opinions.read(asked.path).measures["bicubic"]["psnr"] == pytest.approx(table.psnr)
    later.undo()
    later.undo()
    later.undo()
    later.undo()
    assert not asked.path.exists()
    assert live.BlindTest(outputs, here).answers == []


def test_nobody_is_asked_headless(outputs, here, monkeypatch):
    monkeypatch.setenv("SRKIT_HEADLESS", "1")
    seen = []
    monkeypatch.setattr(blind, "display", seen.append)
    asked = live.blind_test(outputs, here)
    assert seen[0].data.count("<img ") == 2 and "nobody is here to answer" in seen[0].data and not asked.path.exists()


def test_what_cannot_be_compared_or_kept_is_one_line(asked, outputs, here, monkeypatch):
    for wrong, words in (
        ({}, "two methods"),
        ({"bicubic": outputs["bicubic"]}, "two methods"),
        ({"a": {}, "b": {}}, "a picture"),
        ({"a": outputs["bicubic"], "b": {"face": outputs["srgan"]["face"]}}, "same pictures"),
        ({"a": outputs["bicubic"], "b": {name: x[:, :4] for name, x in outputs["srgan"].items()}}, "same sizes"),
    ):
        with pytest.raises(SRKitError, match=words):
            live.BlindTest(wrong, here)

    def full(*arguments):
        raise SRKitError("the disk is <full>")

    monkeypatch.setattr(opinions, "write", full)
    press(asked, "left (1)")
    assert "the disk is &lt;full&gt;" in asked.told and asked.answers == [] and len(asked._left) == 6
    asked.path.parent.mkdir(parents=True)
    asked.path.write_text("{")
    with pytest.raises(SRKitError, match=r"18_15\.json"):
        live.BlindTest(outputs, here)
