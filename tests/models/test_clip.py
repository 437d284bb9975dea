"""models.clip.TwoTowers: open_clip's towers in a tiny construction, sentences that are too long, what is missing."""

from __future__ import annotations

import pytest
import torch
from conftest import photograph
from safetensors.torch import save_file

from srkit import figures
from srkit.models import clip
from srkit.models.clip import TwoTowers
from srkit.settings import SRKitError

SENTENCES = ["a cat", "a woman in an orange suit", "a cup of coffee"]


@pytest.fixture(scope="module")
def package():
    return pytest.importorskip("open_clip", reason="CLIP's text tower is open_clip's")


@pytest.fixture(scope="module")
def towers(package):
    return TwoTowers("random")


def test_the_matrix_is_that_of_open_clips_own_embeddings(towers, package):
    pictures = [photograph(40, 48), photograph(64, 30, 1)]
    found = towers.cosines(pictures, SENTENCES)
    assert found.shape == (2, 3) and found.abs().max() <= 1 + 1e-5 and found.std() > 0
    tokens = package.SimpleTokenizer(context_length=77)(SENTENCES)
    with torch.no_grad():
        texts = towers.towers.encode_text(tokens, normalize=True)
        own = towers.towers.encode_image(towers._prepared(pictures[1][None]), normalize=True)
    assert torch.allclose(found[1:], own @ texts.T, atol=1e-5)
    assert torch.equal(towers.cosines(pictures[:1], SENTENCES), TwoTowers("random").cosines(pictures[:1], SENTENCES))


def test_frozen_and_marked_as_untrained(towers):
    assert "UNTRAINED" in towers.describe() and not towers.train().training
    assert not any(parameter.requires_grad for parameter in towers.parameters())


def test_a_long_sentence_is_cut_and_told_of_in_a_line(towers, capsys):
    words = "cat " * 75
    cut = towers.encode_sentences([words])
    assert capsys.readouterr().err == ""
    longer = towers.encode_sentences([words + "cat dog"])
    said = capsys.readouterr().err
    assert "79 tokens, cut to CLIP's 77" in said and said.count("\n") == 1 and torch.equal(cut, longer)


@pytest.mark.parametrize("sentences", [[], ["a cat", "  "], "a cat"])
def test_no_picture_and_no_sentence_are_one_line(towers, sentences):
    with pytest.raises(SRKitError, match="no sentence"):
        towers.cosines([photograph(32, 32)], sentences)
    with pytest.raises(SRKitError, match="no picture"):
        towers.cosines([], SENTENCES)


def test_weights_from_a_file_and_what_is_missing(towers, package, tmp_path, monkeypatch):
    monkeypatch.setattr(package, "create_model", lambda name: package.CLIP(**clip.TINY))
    changed = {key: value + 0.01 if value.ndim == 2 else value for key, value in towers.towers.state_dict().items()}
    save_file(changed, tmp_path / "my_clip.safetensors")
    own = TwoTowers(tmp_path)
    assert own.describe() == "CLIP ViT-B/32, weights of my_clip.safetensors"
    assert torch.equal(own.towers.text_projection, changed["text_projection"])
    save_file({"a": torch.zeros(1)}, tmp_path / "my_clip.safetensors")
    with pytest.raises(SRKitError, match="another network"):
        TwoTowers(tmp_path)

    def offline(name, **options):
        raise OSError("no network\nat all")

    monkeypatch.setattr(package, "create_model", offline)
    with pytest.raises(SRKitError, match="could not be had") as error:
        TwoTowers()
    assert "\n" not in str(error.value)


def test_without_open_clip_it_is_one_line(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(clip, "import_module", missing)
    with pytest.raises(SRKitError, match=r"pip install open_clip_torch$"):
        TwoTowers("random")


def test_the_heat_map_frames_each_rows_best_and_counts_the_diagonal():
    values = torch.tensor([[0.3, 0.1], [0.4, 0.2]])
    pictures = {"cat": photograph(32, 40), "$cup": photograph(40, 32)}
    page = figures.heat_map(values, pictures, ["a cat", "a cup for $3 and $4"], "by hand")
    told = [text.get_text() for text in page.texts]
    assert told == ["1 of 2 pictures find the sentence of their own place; by hand"]
    assert [patch.get_xy() for patch in page.axes[0].patches] == [(-0.48, -0.48), (-0.48, 0.52)]
    assert tuple(page.get_size_inches() * page.dpi) == (3600, 3600)
    page.draw_without_rendering()
    with pytest.raises(SRKitError, match="2 pictures and 1 sentence"):
        figures.heat_map(values, pictures, ["a cat"])
