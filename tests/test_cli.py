"""The command line: what students type, JSON for programs, and one clear line for every mistake."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import photograph
from PIL import Image

from srkit import __version__, cli, inference, models
from srkit.cli.train import Pictures, Train
from srkit.cli.use import facts
from srkit.data.images import read, write
from srkit.models import pretrained
from srkit.training import GANConfig, TrainConfig, checkpoint

SMALL = ["--steps", 4, "--patch-size", 24, "--batch-size", 2, "--device", "cpu", "--log-freq", 2]
RANDOM = ["--feature-weights", "random"]
GAN = [*SMALL, "--patch-size", 32, "--steps", 2, "--log-freq", 1, "--val", 1, "--discriminator", 4]
GAN += ["--features", "squeezenet", "--content", "fire2", *RANDOM]
START = "srresnet-small-x4"
PICTURE = Path(__file__).parents[1] / "figures" / "reference" / "upscale.jpg"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Six small pictures: four to train on, one to validate, one to test."""
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(6):
        write(photograph(40, 44, index), folder / f"{index}.png")
    return folder


@pytest.fixture
def call(capsys):
    """Run a command; return its exit status, standard output and standard error."""

    def run(*words):
        try:
            status = cli.main([str(word) for word in words])
        except SystemExit as stop:  # tyro leaves this way
            status = stop.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def trained(pictures, tmp_path_factory) -> Path:
    """The folder of a short training: whoever changes it works on a copy."""
    out = tmp_path_factory.mktemp("trained")
    words = ["train", "srcnn915", "--data", pictures, "--scale", 3, "--out", out, *SMALL, "--student.name", "Ada"]
    assert cli.main([str(word) for word in words]) == 0
    return out


# ---------------------------------------------------------------------------------- train, resume, compare


def test_train_writes_and_inspect_tells(trained, call, pictures):
    assert {"last.pt", "best.pt", "history.jsonl"} <= {path.name for path in trained.iterdir()}
    found = json.loads(call("inspect", trained / "last.pt", "--json")[1])
    assert (found["model"], found["parameters"], found["scale"], found["step"]) == ("srcnn915", 20_099, 3, 4)
    assert found["student"]["name"] == "Ada" and found["hyper-parameters"]["batch_size"] == 2
    assert found["data"]["source"] == str(pictures) and found["metrics"]["val/dB"] > 10
    assert "20099" in call("inspect", trained / "last.pt")[1]
    status, _, err = call("train", "srcnn915", "--data", pictures, "--scale", 3, "--out", trained, *SMALL)
    assert status == 2 and "srkit resume" in err  # a training is not begun anew in its folder


def test_half_and_half_resumed_is_the_whole(call, pictures, tmp_path):
    command = ("train", "srcnn915", "--data", pictures, *SMALL)
    status, out, _ = call(*command, "--steps", 6, "--out", tmp_path / "whole")
    assert status == 0 and "training on 4 pictures" in out and "validating on 1, on which bicubic reaches" in out
    assert call(*command, "--steps", 3, "--out", tmp_path / "half")[0] == 0
    last = [tmp_path / name / "last.pt" for name in ("half", "whole")]
    assert len({facts(str(path))["weights_sha256"] for path in last}) == 2
    status, out, _ = call("resume", last[0], "--steps", 6)
    assert status == 0 and "changed" not in out
    assert len({facts(str(path))["weights_sha256"] for path in last}) == 1
    status, _, err = call("resume", last[0])
    assert status == 2 and "--steps" in err


def test_resume_with_other_settings_says_that_it_is_no_longer_exact(call, trained, tmp_path):
    last = tmp_path / "last.pt"
    words = ["--batch-size", 4, "--num-epoch", 9, "--out", tmp_path]
    status, out, err = call("resume", trained / "last.pt", *words)
    found = facts(str(last))
    assert status == 0 and "batch_size changed" in out, err
    assert found["step"] == 9 and found["hyper-parameters"]["batch_size"] == 4  # four pictures nine times
    status, out, err = call("resume", last, "--steps", 11, "--lr", 1e-4, "--loss", "l1", 1)
    found = facts(str(last))
    assert status == 0 and found["step"] == 11 and found["hyper-parameters"]["num_epoch"] is None, err
    assert "l1" in found["metrics"] and any("lr" in move for move in found["moves by hand"])


def test_frozen_features_two_outputs_and_a_perceptual_loss(call, pictures, tmp_path):
    last = tmp_path / "run" / "last.pt"
    command = ("train", "superresnet-vgg", "--data", pictures, "--out", last.parent, *SMALL, *RANDOM)
    status, said, err = call(*command, "--loss", "mse", 1, "relu1_2", 0.1)
    assert status == 0 and "55,558 parameters and 260,160 frozen (VGG-16, random weights)" in said, err
    assert "the loss compares VGG-16, random weights" in said
    found = facts(str(last))
    assert found["frozen parameters"] == 260_160 and {"val/x2/relu1_2", "val/x4/mse"} <= found["metrics"].keys()
    words = ("--checkpoint", last, "--scale", 2, "-o", tmp_path / "double.png")
    assert call("upscale", pictures / "0.png", *words)[0] == 0
    assert read(tmp_path / "double.png").shape == (3, 80, 88)
    status, _, err = call("evaluate", last, "--data", pictures, "--scale", 3)
    assert status == 2 and "by 2 or 4, not by 3" in err


def test_the_model_is_the_first_word_and_no_value_of_a_flag():
    for name in ("srcnn915", "srgan-small"):
        preset = models.PRESETS[name]
        command = cli.parse("train", ["--out", "srresnet-small", name, "--data", "srgan"])
        assert (command.model, str(command.out), command.pictures.data) == (name, "srresnet-small", "srgan")
        assert command.config == (GANConfig if preset.gan else TrainConfig)(**preset.training)
    config = cli.parse("train", ["srcnn", "--data", "x", "--lr", "0.5", "--loss", "mse", "1", "relu2_2", "0.01"]).config
    assert config == TrainConfig(**models.PRESETS["srcnn"].training | {"lr": 0.5, "loss": {"mse": 1, "relu2_2": 0.01}})


@pytest.mark.slow
def test_both_stages_of_srgan(call, pictures, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    status, _, err = call("train", "srresnet-small", "--data", pictures, "--out", one, *SMALL, "--patch-size", 32)
    assert status == 0, err
    words = ("train", "srgan-small", "--data", pictures, "--out", two, *GAN)
    status, _, err = call(*words)
    assert status == 2 and "--start" in err  # a generator that was never trained
    status, said, err = call(*words, "--start", one / "last.pt", "--discriminator-warmup", 1)
    assert status == 0 and "SqueezeNet, random weights" in said, err
    found, first = facts(str(two / "last.pt")), facts(str(one / "last.pt"))
    assert found["model"] == "srgan-small" and found["discriminator"] > 10_000
    assert found["diagnosis"] == said.splitlines()[-1]
    assert found["started from"] == first["weights_sha256"] and first["started from"] == "nothing"
    status, _, err = call("resume", two / "last.pt", "--steps", 3)
    assert status == 0 and facts(str(two / "last.pt"))["step"] == 3, err


def test_start_must_be_of_the_network_that_is_named(call, pictures, tmp_path):
    for words in (["srresnet"], ["srcnn"], ["srresnet-small", "--scale", 2]):
        status, _, err = call("train", *words, "--data", pictures, "--start", START, "--out", tmp_path)
        assert status == 2 and f"holds srresnet-small x4, not {words[0]}" in err
    words = ["--start", START, "--out", tmp_path, *SMALL, "--steps", 1, "--warp", 0.5, "--photo", 0.3]
    assert call("train", "srresnet-small", "--data", pictures, *words)[0] == 0
    found = facts(str(tmp_path / "last.pt"))
    assert found["data"]["warp"] == 0.5 and found["data"]["photo"] == 0.3 and len(found["started from"]) == 64


@pytest.mark.parametrize("name", [name for name in pretrained.names() if "clip" not in name])
def test_every_pretrained_network_can_be_a_start(name):
    preset, _, scale = name.removeprefix("srcnn-perceptual").replace("-photo", "").rpartition("-x")
    model = Train(preset or "srcnn", Pictures("bundled"), start=name).network()
    assert models.scales_of(model)[-1] == int(scale)


def test_compare_trains_once_and_then_only_prints(call, pictures, tmp_path):
    words = ["--data", pictures, "--size", 32, *SMALL, "--steps", 1, "--out", tmp_path / "out"]
    command = ("compare", "superresnet", *words, "--skip")
    status, first, err = call(*command)
    assert status == 0 and "bicubic" in first and "superresnet+skip" in first, err
    assert "superresnet+skip/last.pt: going on from step 1 of 1" in call(*command)[1]


# ---------------------------------------------------------------------------------- evaluate, upscale, export, data


def test_evaluate_never_takes_by_default_what_the_checkpoint_was_trained_on(trained, call, pictures):
    def evaluated(*words):
        return json.loads(call("evaluate", *words, "--json")[1])

    found = evaluated("bicubic", "--data", pictures, "--scale", 3)
    assert len(found["pictures"]) == 6 and found["split"] == "all"
    assert found["psnr"] == pytest.approx(sum(row["psnr"] for row in found["pictures"]) / 6)
    for folder in (pictures, f"{pictures.parent}/./{pictures.name}/"):
        found = evaluated(trained / "best.pt", "--data", folder)
        assert found["split"] == "test" and len(found["pictures"]) == 1 and found["scale"] == 3
    assert len(evaluated(trained / "best.pt", "--data", pictures, "--split", "all")["pictures"]) == 6
    assert "mean" in call("evaluate", "nearest", "--data", pictures, "--scale", 3)[1]


def test_upscale_keeps_odd_sizes_gray_and_alpha_in_tiles(trained, call, tmp_path):
    write(photograph(37, 25), tmp_path / "odd.png")
    write(photograph(28, 28)[:1].expand(3, -1, -1), tmp_path / "gray.png")
    write(torch.cat([photograph(26, 39), torch.linspace(0, 1, 39).expand(1, 26, 39)]), tmp_path / "rgba.png")
    for tile in (16, 100):
        words = ["--checkpoint", trained / "best.pt", "--tile", tile, "-o", tmp_path / str(tile)]
        assert call("upscale", *tmp_path.glob("*.png"), *words)[0] == 0
    for name, mode, size in (("odd", "RGB", (75, 111)), ("gray", "L", (84, 84)), ("rgba", "RGBA", (117, 78))):
        files = [tmp_path / side / f"{name}_x3.png" for side in ("16", "100")]
        with Image.open(files[0]) as picture:
            assert picture.mode == mode and picture.size == size
        tiles, whole = (read(file, alpha="keep") for file in files)
        assert (tiles - whole).abs().max() < 1.5 / 255
        if mode == "RGBA":
            assert whole[3, :, 0].max() < 0.1 and whole[3, :, -1].min() > 0.9


def test_upscale_takes_the_default_of_each_scale_and_leaves_what_is_there(call, tmp_path):
    photo = tmp_path / "photo.jpg"
    write(photograph(10, 12), photo)
    for scale in (2, 3):
        status, out, err = call("upscale", photo, "--scale", scale)
        assert status == 0 and f"{12 * scale} x {10 * scale}, by efficient-x{scale}" in out, err
    assert "48 x 40, by efficient-x4" in call("upscale", photo)[1]
    before = (tmp_path / "photo_x4.jpg").read_bytes()
    assert "exists already" in call("upscale", photo, "--ensemble")[1]
    assert (tmp_path / "photo_x4.jpg").read_bytes() == before
    assert call("upscale", photo, "--ensemble", "--overwrite")[0] == 0
    assert (tmp_path / "photo_x4.jpg").read_bytes() != before


def test_upscale_a_folder(call, tmp_path):
    folder = tmp_path / "photos"
    for index, name in enumerate(("a.png", "b.jpg", "sub/b.png", "trip_x2.png")):
        write(photograph(8, 9, index), folder / name)
    (folder / "c.png").write_text("not a picture")
    (folder / "empty").mkdir()
    command = ("upscale", folder, "--checkpoint", "bicubic", "--scale", 2)
    status, out, err = call(*command)
    assert status == 2 and out.count("18 x 16") == 4 and "c.png" in err and err.count("\n") == 1
    made = {path.relative_to(folder).as_posix() for path in folder.rglob("*_x2.*")}
    assert {"a_x2.png", "b_x2.jpg", "sub/b_x2.png", "trip_x2_x2.png"} <= made
    (folder / "c.png").unlink()
    status, out, err = call(*command)  # again: nothing is enlarged twice, nothing written anew
    assert status == 0 and out.count("exists already") == 4 and "4 of 4" in out
    write(photograph(8, 9, 5), folder / "b.png")  # now there are two b, whose formats are named
    status, out, err = call(*command, "-o", tmp_path / "large", "--format", "webp")
    made = {path.relative_to(tmp_path / "large").as_posix() for path in (tmp_path / "large").rglob("*.*")}
    assert status == 0 and made == {"a_x2.webp", "b_jpg_x2.webp", "b_png_x2.webp", "sub/b_x2.webp", "trip_x2_x2.webp"}
    write(photograph(8, 9, 6), tmp_path / "other" / "a.png")  # of two a.png from different folders one is refused
    several = (folder / "a.png", tmp_path / "other" / "a.png", "-o", tmp_path / "both")
    status, out, err = call("upscale", *several, "--checkpoint", "bicubic", "--scale", 2)
    assert status == 2 and "other" in err and err.count("\n") == 1 and out.count("18 x 16") == 1
    for words in (("upscale", folder / "empty"), (*command, "-o", tmp_path / "one.png"), (*command, "--format", "xyz")):
        status, _, err = call(*words)
        assert status == 2 and err.count("\n") == 1


def test_upscale_writes_a_page_that_wipes_and_tells_what_to_know(call, tmp_path):
    write(photograph(48, 64), tmp_path / "photo.jpg", quality=5)
    status, out, err = call("upscale", tmp_path / "photo.jpg", "--compare", "--strip", "--quality", 80)
    assert status == 0 and "blocks" in out, err
    page = (tmp_path / "photo_x4.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2 and "http" not in page


def test_a_large_picture_that_was_interrupted_is_gone_on_with(call, tmp_path, monkeypatch):
    write(photograph(64, 40), tmp_path / "photo.png")
    command = ("upscale", tmp_path / "photo.png", "--scale", 2, "--tile", 16, "-o", tmp_path / "large.png")
    assert call(*command)[0] == 0
    whole, folder = (tmp_path / "large.png").read_bytes(), tmp_path / ".large.png.unfinished"
    (tmp_path / "large.png").unlink()
    monkeypatch.setattr("srkit.cli.upscale.PATIENCE", -1.0)  # from now on every picture is large
    tiles, tile = [], inference.Upscaler._tile

    def interrupted(*arguments):
        tiles.append(arguments[2])
        if len(tiles) == 8:
            raise KeyboardInterrupt
        return tile(*arguments)

    monkeypatch.setattr(inference.Upscaler, "_tile", interrupted)
    assert call(*command)[0] == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == [".large.png.unfinished", "photo.png"]
    bands = len(list(folder.glob("*.npy")))
    assert 0 < bands < 4
    status, out, _ = call(*command)
    assert status == 0 and f"going on from row {32 * bands}" in out and "take about 0 minutes" in out
    assert tiles[8][0] == 16 * bands and (tmp_path / "large.png").read_bytes() == whole and not folder.exists()
    (folder / "about.json").parent.mkdir()
    (folder / "about.json").write_text("{}")  # of another picture, or network
    np.save(folder / "0.npy", np.zeros((3, 32, 80), np.uint8))
    assert call(*command, "--overwrite")[0] == 0 and (tmp_path / "large.png").read_bytes() == whole


@pytest.mark.slow
def test_sigterm_leaves_no_draft_and_what_is_done_of_a_large_picture(tmp_path):
    write(photograph(240, 240), tmp_path / "photo.png")
    words = ["upscale", "photo.png", "--tile", "16", "--device", "cpu"]
    code = "import sys, srkit.cli.upscale as u, srkit.__main__ as m; u.PATIENCE = -1.0; sys.exit(m.main())"
    process = subprocess.Popen([sys.executable, "-c", code, *words], cwd=tmp_path, stdout=subprocess.DEVNULL)
    while not list(tmp_path.glob(".photo_x4.png.unfinished/*.npy")):
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    assert sorted(path.name for path in tmp_path.iterdir()) == [".photo_x4.png.unfinished", "photo.png"]


def test_lists_of_data_sets_and_of_pretrained_networks(call):
    listed = call("data")[1]
    assert all(name in listed for name in ("bundled", "voc2011", "t91", "set5", "licence"))
    assert "9 pictures" in call("data", "bundled")[1]
    cards = json.loads(call("inspect", "--json")[1])
    assert json.loads(call("inspect", "srcnn915-x3", "--json")[1]) == cards["srcnn915-x3"]
    assert all(name in call("inspect")[1] for name in cards)


def test_inspect_prints_no_terminal_escapes_and_downloads_nothing(call, trained, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a download")

    monkeypatch.setattr("srkit.models.features.fetch_file", refuse)
    state = checkpoint.load(trained / "last.pt")
    model = models.create("superresnet-vgg", feature_weights="random")
    config = {**model.config, "feature_weights": "imagenet", "name": "\x1b[2Jnew"}
    own = {"model_config": config, "model": model.state_dict(), "ema": {}}
    path = checkpoint.save({**state, **own}, tmp_path / "last.pt")
    status, out, err = call("inspect", path)
    assert status == 0 and "\\x1b[2Jnew" in out and "\x1b" not in out and "260160" in out, err


def test_a_folder_is_found_from_everywhere(call, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(pictures.parent)
    assert call("train", "srcnn915", "--data", pictures.name, "--out", tmp_path / "out", *SMALL, "--steps", 1)[0] == 0
    monkeypatch.chdir(tmp_path)
    status, _, err = call("resume", "out/last.pt", "--steps", 2)
    assert status == 0, err


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_output_that_cannot_be_written_is_one_line():
    with open("/dev/full", "w") as full:
        ended = subprocess.run([sys.executable, "-m", "srkit", "data"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1 and "No space left" in ended.stderr


# ---------------------------------------------------------------------------------- help and mistakes


def test_version_and_help(call, trained):
    assert call("--version")[1] == f"srkit {__version__}\n"
    status, out, _ = call("--help")
    assert status == 0 and all(name in out for name in cli.COMMANDS)
    status, out, _ = call("train", "srcnn915", "--help")
    assert status == 0 and "default: 12000" in out and "--discriminator" not in out  # what suits srcnn915
    assert "default: 150" in call("train", "srgan-small", "-h")[1]
    assert "default: 24" in call("resume", trained / "last.pt", "-h")[1]  # what the checkpoint has


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("trian", "did you mean 'train'"),
        ("train srcn --data bundled", "did you mean 'srcnn'"),
        ("train srcnn --data bundled --scale 5", "2, 3, 4"),
        ("train srcnn --data bundled --loss msee 1 --device cpu", "did you mean 'mse'"),
        ("train srcnn --data bundled --steps 0", "steps"),
        ("train srcnn --data bundled --out /dev/null", "/dev/null"),
        ("train srcnn --data bundled --device cude", "did you mean 'cuda'"),
        ("evaluate bicubic --data bundled", "--scale 3"),
        ("evaluate srcnn --data bundled", "not trained yet"),
        ("upscale photo.png --scale 5", "2, 3, 4"),
        ("upscale none.png --checkpoint bicubic --scale 2", "none.png"),
        ("upscale photo.png --checkpoint srcnn915-x5", "did you mean 'srcnn915-x"),
        ("resume nothing.pt", "nothing.pt"),
        ("upscale photo.png -o out.xyz", "unknown picture type '.xyz'"),
        (f"inspect {PICTURE}", "a picture, where weights are wanted: srkit upscale"),
        ("run 99", "unknown lesson '99'"),
        ("compare srcnn --data bundled", "unknown network 'srcnn'"),
    ],
)
def test_mistakes_are_one_line_on_standard_error(words, message, call):
    status, out, err = call(*words.split())
    assert status == 2 and message in err and out == "" and err.count("\n") == 1


def test_what_a_command_does_not_know_names_the_nearest(call):
    for words, hint in ((["--stps", 4], "--steps"), (["--loss", "mse"], "each term needs a weight")):
        status, out, err = call("train", "srcnn", "--data", "bundled", *words)
        assert status == 2 and hint in out + err


# ---------------------------------------------------------------------------------- style


@pytest.fixture
def painter(tmp_path) -> Path:
    torch.manual_seed(0)
    return pretrained.publish(models.create("style", channels=4, blocks=1), "mine", {}, tmp_path)


def test_style_repaints_by_a_network_and_by_gatys(tmp_path, painter, capsys):
    photo = write(photograph(40, 64), tmp_path / "photo.png")
    painting = write(photograph(70, 70, 3), tmp_path / "painting.jpg")
    assert cli.main(["style", str(photo), "--checkpoint", str(painter), "--size", "32"]) == 0
    assert read(tmp_path / "photo_mine.png").shape == (3, 20, 32)
    before = (tmp_path / "photo_mine.png").stat().st_mtime_ns
    assert cli.main(["style", str(photo), "--checkpoint", str(painter)]) == 0
    assert "left as it is" in capsys.readouterr().out and (tmp_path / "photo_mine.png").stat().st_mtime_ns == before
    gatys = ["style", str(photo), "--style", str(painting), "--steps", "1", "--feature-weights", "random"]
    assert cli.main([*gatys, "--device", "cpu"]) == 0
    assert read(tmp_path / "photo_painting.png").shape == (3, 40, 64)


@pytest.mark.parametrize(("words", "message"), [
    (["style", "photo.png"], "either --checkpoint"),
    (["style", "photo.png", "--checkpoint", "srcnn-x2"], "repaints nothing"),
    (["style", "photo.png", "--checkpoint", "mine.safetensors", "--strength", "2"], "strength 0 to 1"),
    (["style", "photo.png", "--style", "small.png", "--feature-weights", "random"], "too small"),
    (["upscale", "photo.png", "--checkpoint", "mine.safetensors"], "srkit style photo.jpg"),
    (["train", "style", "--data", "photos", "--size", "160", "--device", "cpu"], "--style painting.jpg"),
])  # fmt: skip
def test_styles_are_refused_where_they_do_not_fit(tmp_path, painter, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    write(photograph(160, 160), tmp_path / "photo.png")
    write(photograph(20, 20), tmp_path / "small.png")
    for number in range(3):
        write(photograph(160, 160, number), tmp_path / "photos" / f"{number}.png")
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
