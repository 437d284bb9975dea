"""The two stages of SRGAN, fine-tuning and the networks that come trained, on the command line."""

from __future__ import annotations

import json

import pytest
from test_cli import call, pictures  # noqa: F401  (fixtures)

from srkit.images import read
from srkit.models import trained

SMALL = ["--steps", "2", "--crop", "32", "--batch-size", "2", "--device", "cpu", "--log-freq", "1", "--val", "1"]
EYE = ["--features", "squeezenet", "--feature-weights", "random", "--content", "fire2", "--discriminator", "4"]
START = "srresnet-small-x4"


@pytest.fixture
def stage1(call, pictures, tmp_path):  # noqa: F811
    status, _, err = call("train", "srresnet-small", "--data", pictures, "--out", tmp_path / "one", *SMALL)
    assert status == 0, err
    return tmp_path / "one" / "last.pt"


def test_stage_two_starts_from_stage_one_and_resumes(call, pictures, stage1, tmp_path):  # noqa: F811
    out = tmp_path / "two"
    words = ("train", "srgan-small", "--data", pictures, "--start", stage1, "--out", out, *SMALL, *EYE)
    status, said, err = call(*words, "--discriminator-warmup", 1)
    assert status == 0, err
    assert "SqueezeNet, random weights" in said and "try a tenth of its weight" in said.splitlines()[-1]
    facts = json.loads(call("inspect", out / "last.pt", "--json")[1])
    assert (
        facts["model"] == "srgan-small"
        and facts["discriminator"] > 10_000
        and facts["verdict"] == said.splitlines()[-1]
    )
    first = json.loads(call("inspect", stage1, "--json")[1])
    assert facts["started from"] == first["weights_sha256"] and first["started from"] == "nothing"
    status, _, err = call("resume", out / "last.pt", "--steps", 3)
    assert status == 0, err
    assert json.loads(call("inspect", out / "last.pt", "--json")[1])["step"] == 3


def test_stage_two_without_stage_one_is_refused_unless_asked_for(call, pictures, tmp_path):  # noqa: F811
    words = ("train", "srgan-small", "--data", pictures, "--out", tmp_path / "two", *SMALL, *EYE)
    status, _, err = call(*words)
    assert status == 2 and "never trained" in err and "--start" in err
    assert call(*words, "--from-scratch")[0] == 0


def test_scale_three_is_refused_with_the_reason(call, pictures):  # noqa: F811
    status, _, err = call("train", "srgan-small", "--data", pictures, "--scale", 3)
    assert status == 2 and "doubles once or twice, so choose 2 or 4" in err


def test_fine_tuning_starts_from_a_trained_network_of_the_same_kind(call, pictures, tmp_path):  # noqa: F811
    tuned = tmp_path / "tuned"
    status, _, err = call("train", "srresnet-small", "--data", pictures, "--start", START, "--out", tuned, *SMALL,
                          "--warp", 0.5)  # fmt: skip
    assert status == 0, err
    assert json.loads(call("inspect", tuned / "last.pt", "--json")[1])["data"]["warp"] == 0.5
    assert len(json.loads(call("inspect", tuned / "last.pt", "--json")[1])["started from"]) == 64
    status, _, err = call(
        "train", "srresnet", "--data", pictures, "--start", START, "--out", tmp_path / "other", *SMALL
    )
    assert status == 2 and "holds srresnet-small x4, not srresnet" in err
    status, _, err = call("train", "srgan", "--data", pictures, "--start", START, "--out", tmp_path / "other", *SMALL)
    assert status == 2 and "holds srresnet-small x4, not srgan" in err


@pytest.mark.parametrize("name", trained.names())
def test_the_networks_that_come_trained_are_known_by_name(call, pictures, name, tmp_path):  # noqa: F811
    facts = json.loads(call("inspect", name, "--json")[1])
    scale = facts["recipe"]["scale"]
    assert name.endswith(f"-x{scale}") and facts["trained on"] and facts["measured"]
    if facts["recipe"].get("features") == "clip":
        pytest.importorskip("timm", reason="it looks through CLIP, which timm makes")
    status, said, err = call("upscale", pictures / "0.png", "--checkpoint", name, "-o", tmp_path / "large.png")
    assert status == 0 and f"{44 * scale} x {40 * scale}" in said, err
    assert read(tmp_path / "large.png").shape == (3, 40 * scale, 44 * scale)
    status, said, _ = call("evaluate", name, "--data", pictures)
    assert status == 0 and "mean" in said


def test_a_network_that_was_never_trained_is_not_offered_for_use(call, pictures):  # noqa: F811
    status, _, err = call("upscale", pictures / "0.png", "--checkpoint", "srresnet-small")
    assert status == 2 and "not trained yet" in err and START in err
