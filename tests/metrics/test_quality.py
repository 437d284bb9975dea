"""metrics.quality: BRISQUE's regression by hand, LPIPS as its package has it, columns, bad input."""

from __future__ import annotations

import math
from functools import partial
from hashlib import sha256

import pytest
import torch
from conftest import photograph

from srkit import metrics, models
from srkit.data.images import degrade
from srkit.metrics import quality
from srkit.models.features import SqueezeNet
from srkit.settings import SRKitError

WEIGHTS = "brisque_svm.txt"


@pytest.fixture
def two_vectors(tmp_path, monkeypatch):
    """A regression of two support vectors with zeros left out, had from a mirror as the real one would be."""
    pytest.importorskip("piq", reason="BRISQUE's statistics are piq's")
    text = "svm_type epsilon_svr\nkernel_type rbf\ngamma 0.05\ntotal_sv 2\nrho -30\nSV\n40 1:0.5 36:-1 \n-20 2:1 \n"
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / WEIGHTS).write_text(text)
    hashed = f"sha256:{sha256(text.encode()).hexdigest()}"
    monkeypatch.setattr(quality, "VECTORS", quality.VECTORS._replace(hash=hashed, urls=()))
    monkeypatch.setenv("SRKIT_MIRROR", str(tmp_path / "mirror"))


def test_the_regression_is_the_one_that_libsvm_writes(two_vectors):
    least, most = torch.tensor(quality.LEAST), torch.tensor(quality.MOST)
    assert len(least) == len(most) == 36 and (least < most).all()
    middle = (least.double() + most.double())[None] / 2  # scaled, all are 0
    expected = 40 * math.exp(-0.05 * (0.25 + 1)) - 20 * math.exp(-0.05) + 30
    assert quality.score(middle).item() == pytest.approx(expected, abs=1e-5)


def test_brisque_of_grey_constant_and_tiny_pictures(two_vectors):
    picture = photograph(40, 48)
    gray = picture.mean(0, keepdim=True).expand(3, -1, -1)
    scores = metrics.brisque(torch.stack([picture, gray, torch.full_like(picture, 0.5)]))
    assert scores[:2].isfinite().all() and scores[2].isnan()
    assert metrics.brisque(picture) == scores[0] and metrics.brisque(picture).shape == ()
    assert metrics.brisque(picture * 3 - 1) == metrics.brisque((picture * 3 - 1).clamp(0, 1))
    with pytest.raises(SRKitError, match="31"):
        metrics.brisque(torch.rand(3, 40, 31))
    flat = torch.full((3, 24, 24), 0.5)
    assert metrics.ssim(flat, flat).item() == pytest.approx(1)


def test_a_column_is_named_with_its_implementation(two_vectors):
    from piq import __version__

    pictures = [("a", photograph(48, 48)), ("b", photograph(48, 64, 1))]
    table = metrics.evaluate(models.create("bicubic", 2), pictures, measures=["brisque"])
    title = f"BRISQUE (piq {__version__})"
    assert list(table.terms) == [title] and title in str(table).splitlines()[0]
    bicubic = models.create("bicubic", 2)
    output = bicubic(degrade(pictures[1][1], 2)[None])[0]
    assert table.rows[1].figures[title] == pytest.approx(metrics.brisque(output).item())
    change = metrics.paired(table, table).changes[title]
    assert change.difference == 0
    with pytest.raises(SRKitError, match="small"):
        metrics.evaluate(bicubic, [("small", photograph(28, 40))], measures=["brisque"])


@pytest.mark.parametrize(("name", "package"), [("brisque", "piq"), ("lpips", "lpips")])
def test_what_is_missing_is_one_line_before_the_model_runs(name, package, monkeypatch, tmp_path):
    def never(low):
        raise AssertionError

    model = models.create("bicubic", 2)
    monkeypatch.setattr(model, "forward", never)
    ask = partial(metrics.evaluate, model, [("a", photograph(32, 32))])
    with pytest.raises(SRKitError, match="lpips"):
        ask(measures=["lpisp"])
    found = quality.find_spec
    monkeypatch.setattr(quality, "find_spec", lambda asked: None if asked == package else found(asked))
    with pytest.raises(SRKitError, match=f"pip install {package}$"):
        ask(measures=[name])
    monkeypatch.setattr(quality, "VECTORS", quality.VECTORS._replace(urls=()))
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("SRKIT_MIRROR", str(tmp_path / "empty"))
    with pytest.raises(SRKitError, match=f"^{WEIGHTS}: could not be had.*without brisque") as error:
        quality._fetch_vectors()
    assert "\n" not in str(error.value)


def test_lpips_is_its_packages(monkeypatch):
    package = pytest.importorskip("lpips", reason="LPIPS' weights of channels come with it")
    monkeypatch.setattr(quality, "SqueezeNet", partial(SqueezeNet, weights="random"))
    quality._lpips_network.cache_clear()
    try:
        network, _ = quality._lpips_network()
        other = package.LPIPS(net="squeeze", pnet_rand=True, verbose=False)
        names = {key: key.split(".", 1)[1] for key in other.net.state_dict()}  # slice3.6.squeeze.weight
        own = {key.replace("squeeze1x1", "squeeze"): value for key, value in network.features.state_dict().items()}
        other.net.load_state_dict({key: own[name] for key, name in names.items()})
        pair = torch.stack([photograph(40, 48), photograph(40, 48, 1)]), torch.stack([photograph(40, 48, 2)] * 2)
        expected = other(*pair, normalize=True).flatten()
        assert metrics.lpips(*pair).tolist() == pytest.approx(expected.tolist(), rel=1e-3)
        assert metrics.lpips(pair[1], pair[1]).tolist() == [0, 0]
        with pytest.raises(SRKitError):
            metrics.lpips(pair[0][..., :31], pair[1][..., :31])
    finally:
        quality._lpips_network.cache_clear()
