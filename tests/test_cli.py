"""The command line: what students type, JSON for programs, and one clear line for every mistake."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import photograph
from PIL import Image

from srkit import cli
from srkit.images import read, write

SMALL = ["--steps", "4", "--crop", "24", "--batch-size", "2", "--device", "cpu", "--log-freq", "2"]


@pytest.fixture
def pictures(tmp_path):
    for index in range(6):
        write(photograph(40, 44, index), tmp_path / "in" / f"{index}.png")
    return tmp_path / "in"


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


@pytest.fixture
def trained(call, pictures, tmp_path):
    out = tmp_path / "run"
    status, _, err = call("train", "srcnn915", "--data", pictures, "--scale", 3, "--out", out, *SMALL,
                          "--student.name", "Ada")  # fmt: skip
    assert status == 0, err
    return out


def test_train_writes_and_inspect_tells(trained, call, pictures):
    assert {"last.pt", "best.pt", "history.jsonl"} <= {path.name for path in trained.iterdir()}
    status, out, _ = call("inspect", trained / "last.pt", "--json")
    facts = json.loads(out)
    assert status == 0 and facts["model"] == "srcnn915" and facts["parameters"] == 20_099 and facts["scale"] == 3
    assert facts["step"] == 4 and facts["student"]["name"] == "Ada" and len(facts["weights_sha256"]) == 64
    assert facts["hyper-parameters"]["batch_size"] == 2 and facts["data"]["source"] == str(pictures)
    assert facts["metrics"]["val/dB"] > 10
    assert "20099" in call("inspect", trained / "last.pt")[1]


def test_200_steps_are_100_and_resume_to_200(call, pictures, tmp_path):
    def sha(folder):
        return json.loads(call("inspect", tmp_path / folder / "last.pt", "--json")[1])["weights_sha256"]

    command = ("train", "srcnn915", "--data", pictures, "--scale", 2, *SMALL)
    assert call(*command, "--steps", 6, "--out", tmp_path / "whole")[0] == 0
    assert call(*command, "--steps", 3, "--out", tmp_path / "half")[0] == 0
    assert sha("half") != sha("whole")
    assert call("resume", tmp_path / "half" / "last.pt", "--steps", 6)[0] == 0
    assert sha("half") == sha("whole")


def test_resume_of_a_finished_training_says_so(trained, call):
    status, _, err = call("resume", trained / "last.pt")
    assert status == 2 and "is at step 4 already: give --steps more" in err


def test_train_by_epochs_and_refusing_to_overwrite(trained, call, pictures):
    command = ("train", "srcnn", "--data", pictures, "--out", trained, *SMALL, "--num-epoch", 2)
    status, _, err = call(*command)
    assert status == 2 and "holds a training already" in err and "srkit resume" in err
    assert call(*command, "--overwrite")[0] == 0
    facts = json.loads(call("inspect", trained / "last.pt", "--json")[1])
    assert facts["model"] == "srcnn" and facts["step"] == 4  # 4 pictures twice, two at a time


def test_a_perceptual_training_and_what_its_loss_looks_through(call, pictures, tmp_path):
    command = (
        "train",
        "srcnn",
        "--data",
        pictures,
        "--out",
        tmp_path / "run",
        *SMALL,
        "--loss",
        "mse",
        1,
        "relu1_2",
        0.1,
    )
    status, out, err = call(*command, "--feature-weights", "random")
    assert status == 0 and "VGG-16, random weights" in out, err
    facts = json.loads(call("inspect", tmp_path / "run" / "last.pt", "--json")[1])
    assert facts["metrics"]["relu1_2"] > 0 and facts["hyper-parameters"]["feature_weights"] == "random"
    assert call("resume", tmp_path / "run" / "last.pt", "--steps", 6)[0] == 0
    status, _, err = call(*command, "--overwrite", "--feature-weights", tmp_path / "nowhere.pth")
    assert status == 2 and "no such weights file" in err


def test_a_model_with_two_outputs_and_frozen_features(call, pictures, tmp_path):
    out = tmp_path / "run"
    status, said, err = call("train", "superresnet-vgg", "--data", pictures, "--out", out, *SMALL,
                             "--feature-weights", "random")  # fmt: skip
    assert status == 0 and "55,558 parameters and 260,160 frozen (VGG-16, random weights)" in said, err
    facts = json.loads(call("inspect", out / "last.pt", "--json")[1])
    assert facts["frozen parameters"] == 260_160 and {"val/x2/psnr", "val/x4/psnr"} <= facts["metrics"].keys()
    rates = [
        json.loads(call("evaluate", out / "last.pt", "--data", pictures, "--scale", n, "--json")[1])["scale"]
        for n in (2, 4)
    ]
    assert rates == [2, 4]
    picture = next(pictures.iterdir())
    assert call("upscale", picture, "--checkpoint", out / "last.pt", "-o", tmp_path / "large.png")[0] == 0
    assert read(tmp_path / "large.png").shape == (3, 160, 176)
    assert call("upscale", picture, "--checkpoint", out / "last.pt", "--scale", 2, "-o", tmp_path / "mid.png")[0] == 0
    assert read(tmp_path / "mid.png").shape == (3, 80, 88)
    status, _, err = call("evaluate", out / "last.pt", "--data", pictures, "--scale", 3)
    assert status == 2 and "enlarges by 2 or 4, not by 3" in err


def test_compare_trains_once_and_then_only_prints(call, pictures, tmp_path):
    command = ("compare", "superresnet", "superresnet-vgg", "--data", pictures, "--size", "32", *SMALL,
               "--feature-weights", "random", "--out", tmp_path / "out", "--skip")  # fmt: skip
    status, out, err = call(*command, "--json")
    facts = json.loads(out)
    names = ["superresnet", "superresnet-vgg", "superresnet+skip", "superresnet-vgg+skip"]
    assert status == 0 and [network["name"] for network in facts["networks"]] == names, err
    assert facts["networks"][1]["frozen"] == 260_160 and facts["networks"][1]["features"] == "VGG-16, random weights"
    assert len(facts["networks"][1]["losses"]["large"]) == 2 and facts["networks"][0]["losses"]["large"] == []
    status, out, err = call(*command)
    assert status == 0 and "superresnet-vgg+skip/last.pt: going on from step 4 of 4" in out, err
    assert "bicubic" in out and "260,160" in out and "VGG-16, random weights" in out
    assert f"{facts['bicubic']['large']['psnr']:.2f}" in out


def test_evaluate_json_and_table(call, pictures):
    status, out, _ = call("evaluate", "bicubic", "--data", pictures, "--scale", 3, "--json")
    facts = json.loads(out)
    assert status == 0 and len(facts["pictures"]) == 6
    assert facts["psnr"] == pytest.approx(sum(row["psnr"] for row in facts["pictures"]) / 6)
    assert 0 < facts["ssim"] <= 1
    assert "mean" in call("evaluate", "nearest", "--data", pictures, "--scale", 3)[1]


def test_evaluate_of_a_checkpoint_leaves_out_what_it_was_trained_on(trained, call, pictures):
    facts = json.loads(call("evaluate", trained / "best.pt", "--data", pictures, "--json")[1])
    assert facts["part"] == "test" and len(facts["pictures"]) == 1 and facts["scale"] == 3
    spelt = f"{pictures.parent}/./{pictures.name}/"
    assert json.loads(call("evaluate", trained / "best.pt", "--data", spelt, "--json")[1])["part"] == "test"
    assert (
        len(
            json.loads(call("evaluate", trained / "best.pt", "--data", pictures, "--part", "all", "--json")[1])[
                "pictures"
            ]
        )
        == 6
    )


def test_upscale_odd_rgba_and_grey(trained, call, tmp_path):
    write(photograph(7, 5), tmp_path / "odd.png")
    grey = photograph(8, 8)[:1].expand(3, -1, -1)
    write(grey, tmp_path / "grey.png")
    write(torch.cat([photograph(6, 9), torch.linspace(0, 1, 9).expand(1, 6, 9)]), tmp_path / "rgba.png")
    names = ["odd", "grey", "rgba"]
    status, out, _ = call("upscale", *(tmp_path / f"{name}.png" for name in names), "--checkpoint", trained / "best.pt",
                          "-o", tmp_path / "out")  # fmt: skip
    assert status == 0 and "15 x 21" in out
    assert read(tmp_path / "out" / "odd_x3.png").shape == (3, 21, 15)
    output = read(tmp_path / "out" / "grey_x3.png")
    assert torch.equal(output[0], output[1]) and torch.equal(output[1], output[2])
    assert Image.open(tmp_path / "out" / "grey_x3.png").mode == "L"
    assert Image.open(tmp_path / "out" / "rgba_x3.png").mode == "RGBA"
    alpha = read(tmp_path / "out" / "rgba_x3.png", alpha="keep")[3]
    assert alpha[:, 0].max() < 0.1 and alpha[:, -1].min() > 0.9
    assert (
        call("upscale", tmp_path / "odd.png", "--checkpoint", "bicubic", "--scale", 2, "-o", tmp_path / "one.jpg")[0]
        == 0
    )
    assert Image.open(tmp_path / "one.jpg").size == (10, 14)


def test_upscale_works_at_once_and_leaves_what_is_there(call, tmp_path):
    write(photograph(10, 12), tmp_path / "photo.jpg")
    status, out, _ = call("upscale", tmp_path / "photo.jpg")
    assert status == 0 and "photo_x4.png: 48 x 40" in out
    before = (tmp_path / "photo_x4.png").read_bytes()
    status, out, _ = call("upscale", tmp_path / "photo.jpg", "--ensemble")
    assert status == 0 and "exists already and was left as it is" in out
    assert (tmp_path / "photo_x4.png").read_bytes() == before
    assert call("upscale", tmp_path / "photo.jpg", "--ensemble", "--overwrite")[0] == 0
    assert (tmp_path / "photo_x4.png").read_bytes() != before


def test_upscale_a_folder(call, tmp_path):
    folder = tmp_path / "photos"
    for index, name in enumerate(("a.png", "b.jpg", "d.png", "trip_x2.png")):
        write(photograph(8, 9, index), folder / name)
    (folder / "c.png").write_text("not a picture")
    (folder / "notes.txt").write_text("nor this")
    (folder / "sub").mkdir()
    command = ("upscale", folder, "--checkpoint", "bicubic", "--scale", 2)
    status, out, err = call(*command)
    assert status == 1 and "5 pictures" in out and out.count("18 x 16") == 4
    assert "c.png: not a picture" in err and "1 of 5 pictures could not be enlarged" in err
    files = sorted(path.name for path in folder.iterdir())
    assert {"a_x2.png", "b_x2.png", "d_x2.png", "trip_x2_x2.png"} <= set(files)
    (folder / "c.png").unlink()
    status, out, err = call(*command)  # again: nothing is enlarged twice, nothing written anew
    assert status == 0 and "4 pictures, and 4 enlarged before" in out and out.count("exists already") == 4
    assert sorted(path.name for path in folder.iterdir()) == [name for name in files if name != "c.png"]
    assert call(*command, "-o", tmp_path / "large")[0] == 0 and len(list((tmp_path / "large").iterdir())) == 4
    write(photograph(8, 9), folder / "a.jpg")
    status, out, err = call(*command, "--overwrite")
    assert status == 1 and err.count("rename one of the two") == 1
    status, _, err = call("upscale", folder / "sub")
    assert status == 2 and "no pictures in this folder" in err
    status, _, err = call(*command, "-o", tmp_path / "one.png")
    assert status == 2 and "do not fit into the one file" in err


def test_upscale_in_tiles_keeps_rotation_16_bits_grey_and_alpha(call, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    tall = photograph(70, 40)
    Image.fromarray(tall.mul(255).byte().permute(1, 2, 0).numpy()).save(tmp_path / "turned.png", exif=exif)
    write(photograph(40, 70)[:1], tmp_path / "grey.png")
    Image.fromarray((photograph(40, 70)[0] * 65535).numpy().astype("uint16")).save(tmp_path / "deep.png")
    write(torch.cat([tall, tall[:1]]), tmp_path / "clear.png")
    for side in (16, 100):
        command = ("upscale", tmp_path, "--checkpoint", "bicubic", "--scale", 2, "--tile", side)
        assert call(*command, "-o", tmp_path / str(side))[0] == 0
    for name, mode, size in (
        ("turned", "RGB", (140, 80)), ("grey", "L", (140, 80)), ("deep", "L", (140, 80)), ("clear", "RGBA", (80, 140)),
    ):  # fmt: skip
        tiles, whole = (Image.open(tmp_path / side / f"{name}_x2.png") for side in ("16", "100"))
        assert tiles.mode == mode and tiles.size == size and tiles.tobytes() == whole.tobytes()


def test_export_of_a_checkpoint(trained, call, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="pip install 'srkit[onnx]'")
    status, out, err = call("export", trained / "best.pt", "-o", tmp_path / "mine.onnx")
    assert status == 0 and "mine.onnx: low to output" in out and "differ by" in out, err
    assert (tmp_path / "mine.onnx").stat().st_size > 80_000
    assert "not trained yet" in call("export", "srresnet")[2]


def test_data_lists_and_counts(call):
    names = [row["name"] for row in json.loads(call("data", "--json")[1])]
    assert names[0] == "bundled" and {"voc2011", "t91", "set5"} <= set(names)
    assert "licence" in call("data")[1] and "9 pictures" in call("data", "bundled")[1]


def test_preset_settings_are_the_defaults_of_train():
    for name, preset in cli.models.PRESETS.items():
        command = cli._command(["train", name, "--data", "x"])
        for setting, value in preset.training.items():
            assert getattr(command.config, setting) == value
        assert cli._command(["train", name, "--data", "x", "--lr", "0.5"]).config.learning_rate == 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "did you mean 'train'"),
        (["train", "srcn", "--data", "bundled"], "did you mean 'srcnn'"),
        (["train", "bicubic", "--data", "bundled"], "nothing to train"),
        (["train", "srcnn", "--data", "bundeld"], "did you mean 'bundled'"),
        (["train", "srcnn", "--data", "bundled", "--scale", "5"], "not one of 2, 3, 4"),
        (["train", "srcnn", "--data", "bundled", "--loss", "msee", "1", "--device", "cpu"], "did you mean 'mse'"),
        (["train", "srcnn", "--data", "bundled", "--crop", "4000", "--device", "cpu"], "does not fit into"),
        (["train", "srcnn", "--data", "bundled", "--device", "gpu"], "unknown device 'gpu'"),
        (["evaluate", "bicubic", "--data", "bundled"], "--scale 3"),
        (["evaluate", "srcnn", "--data", "bundled"], "not trained yet"),
        (["evaluate", "nothing.pt", "--data", "bundled"], "nothing.pt: no such checkpoint"),
        (["inspect", "nothing.pt"], "nothing.pt: no such checkpoint"),
        (["resume", "nothing.pt"], "nothing.pt: no such checkpoint"),
        (["upscale", "none.png", "--checkpoint", "bicubic", "--scale", "2"], "none.png: no such file"),
        (["run", "99"], "unknown lesson '99'"),
        (["compare", "superresnet-mutli", "--data", "bundled"], "did you mean 'superresnet-multi'"),
        (["compare", "srcnn", "--data", "bundled"], "unknown network 'srcnn'"),
        (["compare", "superresnet-multi", "--data", "bundled", "--size", "73", "--device", "cpu"], "try 72"),
    ],
)
def test_mistakes_are_one_line_on_standard_error(words, message, call):
    status, out, err = call(*words)
    assert status == 2 and message in err and out == "" and err.count("\n") == 1 and "Traceback" not in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
def test_cuda_asked_for_where_there_is_none(call):
    assert "no cuda device" in call("train", "srcnn", "--data", "bundled", "--cuda")[2]


def test_unknown_flag_names_the_nearest(call):
    status, out, err = call("train", "srcnn", "--data", "bundled", "--stps", "4")
    assert status == 2 and "--steps" in out + err


def test_help_speaks_to_students(call):
    status, out, _ = call("train", "srcnn915", "--help")
    assert status == 0
    flags = "--data --scale --lr --batch-size --num-epoch --steps --save-freq --seed --device --cuda --out"
    for flag in flags.split():
        assert flag in out


def test_inspect_lists_what_comes_trained_and_shows_a_card(call):
    status, out, _ = call("inspect")
    assert status == 0 and "srcnn915-x3" in out and "(30.41)" in out  # bicubic on Set5, x3
    cards = json.loads(call("inspect", "--json")[1])
    assert cards["srcnn915-x3"]["recipe"]["scale"] == 3
    assert json.loads(call("inspect", "srcnn915-x3", "--json")[1]) == cards["srcnn915-x3"]
    assert "T91" in call("inspect", "srcnn915-x3")[1]


def test_a_misspelt_trained_network_is_told_the_nearest(call, tmp_path):
    for words in (("inspect", "srcnn915-x5"), ("evaluate", "srcnn915-x5", "--data", tmp_path),
                  ("upscale", tmp_path / "0.png", "--checkpoint", "srcnn915-x5")):  # fmt: skip
        status, _, err = call(*words)
        assert status == 2 and "trained network" in err and "srcnn915-x" in err
    assert "no such checkpoint" in call("inspect", "runs/lost.pt")[2]
