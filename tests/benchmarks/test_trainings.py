"""The trainings behind published numbers, in a few steps each: they run, say what they found, and publish it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import classic, distil, domain, efficient, film, grid, perceptual, speedrun, srgan, strip, transfer
from benchmarks.speedruns import muon
from benchmarks.textbook import make_folder
from srkit import models
from srkit.models.features import load_features
from srkit.settings import SRKitError

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def photos(tmp_path, monkeypatch) -> str:
    """A folder of ten small photographs; nothing is written outside the test's own folder."""
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "photos", 10)
    return str(tmp_path / "photos")


def published(name: str) -> dict:
    """The provenance of a picture that was published."""
    assert Path(f"figures/reference/{name}.jpg").exists()
    return json.loads(Path(f"figures/reference/{name}.json").read_text())


def test_classic_measures_every_seed_and_shows_the_median(photos):
    options = classic.Options(seeds=(0, 1), steps=2, train_data=photos, test_data=photos, publish=True)
    facts, text = classic.run(options)
    assert set(facts["seeds"]) == {"0", "1"} and abs(facts["psnr"] - facts["bicubic"]) < 1
    assert f"mean {facts['psnr']:.2f}" in text and published("comparison")["steps"] == 2
    assert classic.run(options)[0]["seeds"] == facts["seeds"]  # trained already: only measured again


def test_perceptual_compares_recipes_and_publishes_the_chosen_one(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(perceptual.published, "SIDE", 48)
    make_folder(tmp_path / "five", 1)
    weights = {"feature_weights": "random", "second_weights": "random"}
    five, out = str(tmp_path / "five"), tmp_path / "out"
    options = perceptual.Options(data=photos, held_out=2, set5=five, **weights, steps=2, out=out)
    facts, text = perceptual.run(options)
    assert list(facts["measured"]) == ["bicubic", *perceptual.RECIPES] and "random" in text and "fire9" in text
    for recipe, model in published("perceptual_x2")["models"].items():
        assert model["loss"].keys() == perceptual.RECIPES[recipe].keys() and min(model["loss"].values()) > 0
    model = models.load(out / "weights" / "srcnn-perceptual-x2.safetensors")
    trained = models.load(out / "x2" / perceptual.CHOSEN.replace(" ", "-") / "last.pt")
    low = torch.rand(1, 3, 24, 24)
    assert torch.allclose(model(low), trained(low), atol=2e-3)
    assert not torch.equal(model(low), models.load("srcnn-x2")(low))
    with pytest.raises(SRKitError, match="did you mean 'features'"):
        perceptual.run(replace(options, recipes=("feature",)))
    with pytest.raises(SRKitError, match="must name"):
        perceptual.run(replace(options, recipes=("MSE",)))


def test_a_recorded_run_moves_as_its_script_says_and_is_a_page(photos, tmp_path):
    options = film.Options(
        data=photos, features="small-vgg", steps=8, batch_size=1, patch_size=48, out=tmp_path / "out"
    )
    facts, text = film.run(options)
    assert {move["step"] for move in facts["moves"]} == {1, 5, 6} and "small VGG" in text
    last = facts["frames"][-1]
    assert last["step"] == 8 and last["loss"]["mse"] == pytest.approx(0.5, abs=0.3)
    for name in ("live.html", "live.gif", "live.json"):
        assert 0 < (tmp_path / "out" / name).stat().st_size < 1_500_000


@pytest.fixture
def small(photos, tmp_path, monkeypatch):
    """Settings of six steps on features that need no download."""
    monkeypatch.setattr(srgan.published, "SIDE", 48)
    make_folder(tmp_path / "five", 1)
    weights = {"feature_weights": "random", "second_weights": "random"}
    return {
        "data": photos,
        "held_out": 2,
        "set5": str(tmp_path / "five"),
        "steps": 6,
        "out": tmp_path / "out",
        **weights,
    }


def test_srgan_mixes_its_runs_and_publishes_what_load_reads(small, tmp_path):
    options = srgan.Options(**small)
    assert "GAN, 10%" in srgan.run(replace(options, shares=(0.1,)))[1]  # one run, beside another
    facts, text = srgan.run(options)
    names = ["bicubic", "efficient-x4", "features alone", "GAN, 10%", "GAN, 90%"]
    assert list(facts["measured"])[:5] == names and "efficient-gan-x4" in facts["measured"] and "relu5_3" in text
    loss = facts["models"]["features alone"]["loss"]
    assert loss["adversarial"] == 0 and "tv" not in loss
    assert srgan.train(replace(options, steps=1, tv=0.1, out=tmp_path / "tv"), 0.1).loss.weights["tv"] > 0
    histories = published("srgan")["histories"]
    assert [row["step"] for row in histories["GAN, 90%"] if "val/dB" in row] == [1, 2, 3, 4, 5, 6]
    for name in ("srgan_runs", "srgan_tradeoff"):
        assert published(name)
    model = models.load(tmp_path / "out" / "weights" / "efficient-gan-x4.safetensors")
    ends = [models.load(one).state_dict() for one in ("efficient-x4", tmp_path / "out" / "share-0.1" / "last.pt")]
    for key, value in model.state_dict().items():
        assert torch.allclose(value, (ends[0][key] + ends[1][key]) / 2, atol=1e-3)


def test_the_grid_is_measured_for_a_recipe(small):
    options = grid.Options(**small)
    facts, text = grid.run(options)
    assert {"features", "features, even", "mean, even"} < set(facts["measured"]) and "relu5_3" in text
    assert published("grid_features")["measured"] == facts["measured"]
    with pytest.raises(SRKitError, match="did you mean 'features'"):
        grid.run(replace(options, recipe="feature"))


def test_a_network_made_even_answers_a_flat_picture_flat():
    torch.manual_seed(0)
    model = models.create("efficient", 4)
    torch.nn.init.normal_(model.tail.weight, std=0.1)
    torch.nn.init.normal_(model.tail.bias, std=0.1)
    grey = torch.full((1, 3, 40, 40), 0.4)
    with torch.no_grad():
        rough, smooth = (one(grey)[..., 72:88, 72:88] for one in (model, grid.even(model)))  # far from the border
    assert rough.flatten(2).std(2).min() > 0.01 and smooth.flatten(2).std(2).max() < 1e-5
    assert torch.allclose(rough.mean((2, 3)), smooth.mean((2, 3)), atol=1e-5)


def test_a_mixture_lies_between_two_networks():
    zero = models.load("efficient-x4")
    zero.load_state_dict({name: torch.zeros_like(value) for name, value in zero.state_dict().items()})
    found = srgan.published.mixed(models.load("efficient-x4"), zero, 0.25).state_dict()
    for name, value in models.load("efficient-x4").state_dict().items():
        assert torch.allclose(found[name], 0.75 * value) and found[name].abs().max() > 0


def test_a_domain_is_drawn_and_measured(tmp_path):
    folder = tmp_path / "pages"
    facts, _ = domain.run(domain.Options(folder=folder, pages=4))
    assert len(list((folder / "train").glob("*.png"))) == facts["train"] == 44 and facts["test"] == 16
    first = (folder / "test" / f"{domain.SHOWN}.png").read_bytes()
    checkpoint = Path(models.__file__).parents[1] / "weights" / "srcnn915-x4.safetensors"
    facts, text = domain.run(domain.Options(folder=folder, checkpoint=checkpoint))
    assert (folder / "test" / f"{domain.SHOWN}.png").read_bytes() == first  # measured, not drawn anew
    assert list(facts["measured"]) == ["bicubic", "srresnet-small-x4", "efficient-x4", "fine-tuned"]
    assert (
        published("domain")["measured"]["fine-tuned"]["psnr"] > facts["measured"]["bicubic"]["psnr"] and "fine" in text
    )


def test_efficient_cools_down_goes_on_and_publishes_what_load_reads(photos, tmp_path):
    few = {"steps": 4, "cooldown": 0.5, "finetune": 2, "batch_size": 2}
    options = efficient.Options(data=photos, held_out=2, set5=photos, **few, out=tmp_path / "out")
    with pytest.raises(SRKitError, match="train it first"):
        efficient.run(replace(options, networks=("x2",)))
    cards = efficient.run(options)[0]["networks"]
    assert cards["efficient-x4"]["stages"] == {"charbonnier": 2, "mse, cooling": 2}
    assert cards["efficient-x4"]["loss"] == {"charbonnier": 0, "mse": 1}
    for name, card in cards.items():
        model = models.load(tmp_path / "out" / "weights" / f"{name}.safetensors")
        assert name.endswith(f"x{model.scale}") and not model.expand and card["steps"] in (4, 2)
        assert all(("spoilt" in test) == ("photo" in name) for test in card["measured"])
    path = tmp_path / "out" / "weights" / "efficient-x4.safetensors"
    shorter = shutil.copytree(path.parent, tmp_path / "shorter") / path.name  # with its card
    longer = efficient.run(replace(options, steps=6, networks=("x4",)))[0]["networks"]["efficient-x4"]
    assert longer["steps"] == 6 and longer["stages"] == {"charbonnier": 3, "mse, cooling": 3}
    ends = [models.load(one).state_dict() for one in (shorter, path)]
    options = replace(options, steps=6, networks=("x4",), average=shorter)
    assert "averaged with" in efficient.run(options)[0]["networks"]["efficient-x4"]
    for name, value in models.load(path).state_dict().items():
        assert torch.allclose(value, (ends[0][name] + ends[1][name]) / 2, atol=1e-3)


def test_efficient_goes_on_from_what_ships(photos, tmp_path):
    wide, plain = models.create("efficient", 2, expand=True), models.load("efficient-x2")
    efficient.expand(plain, wide)
    low = torch.rand(1, 3, 12, 12)
    with torch.no_grad():
        assert (wide(low) - plain(low)).abs().max() < 1e-5
    options = efficient.Options(data=photos, held_out=2, set5=photos, again=True, finetune=1, out=tmp_path)
    card = efficient.run(replace(options, networks=("x2",)))[0]["networks"]["efficient-x2"]
    assert "as it was" in card["start"] and not (tmp_path / "x4").exists()


def test_distillation_goes_on_and_writes_a_network_that_load_features_reads(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(distil, "MEASURED", 32)
    monkeypatch.setattr(distil, "SAVE_FREQ", 1)
    few = {"held_out": 2, "feature_weights": "random", "batch_size": 1, "patch_size": 32, "out": tmp_path / "out"}
    distil.run(distil.Options(data=photos, steps=1, **few))
    facts, text = distil.run(distil.Options(data=photos, steps=2, **few))
    assert facts["steps"] == 2 and "VGG-16, random, relu4_3" in text
    assert facts["agreement"]["VGG-16, random"]["relu3_3"]["all"] == pytest.approx(1)  # it is the teacher here
    assert facts["cosine of gradients"]["VGG-16, random"]["relu3_3"] == pytest.approx(1, abs=1e-4)
    assert abs(facts["cosine of gradients"]["small VGG"]["relu3_3"]) < 0.5
    made = load_features("small-vgg", ["relu4_3"], tmp_path / "out" / "weights" / "small-vgg.safetensors")
    assert made.channels("relu4_3") == 112


@pytest.mark.parametrize("entry", ["muon", "srresnet"])
def test_an_entry_of_the_speed_run_is_timed_and_measured(entry, photos, monkeypatch):
    monkeypatch.setattr(muon, "STEPS", 2)
    monkeypatch.setitem(models.PRESETS["srresnet-small"].training, "steps", 2)
    facts, text = speedrun.run(speedrun.Options(data=photos, set5=photos, entry=entry, seeds=(1,)))
    assert facts["runs"]["1"]["seconds"] > 0 and facts["psnr"] > 10 and entry in text
    with pytest.raises(SRKitError, match="did you mean 'muon'"):
        speedrun.run(speedrun.Options(data=photos, entry="moun"))


def test_strips_show_the_networks_ahead(photos):
    facts, _ = strip.run(strip.Options())
    assert facts["upscale"]["efficient-x4"] > facts["upscale"]["bicubic"]
    assert facts["photo"]["efficient-photo-x4"] > max(facts["photo"][name] for name in ("efficient-x4", "bicubic"))
    for name, found in facts.items():
        assert published(name) == found


def test_transfer_compares_before_and_after_on_a_bundled_domain():
    options = transfer.Options(data=("histology",), feature_weights="random", deepest="relu3_1")
    options.training |= {"steps": 2, "batch_size": 2, "val_freq": 1}
    facts, text = transfer.run(options)
    assert set(facts["domains"]["histology"]) >= {"bicubic", "before", *transfer.ARMS}
    assert "histology, warp" in text and len(published("transfer")["shown"]) == 2
