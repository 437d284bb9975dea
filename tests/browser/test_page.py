"""The page of a network in a real browser: its pixels are PyTorch's, and what is no picture is one line."""

from __future__ import annotations

import functools
import http.server
import io
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from srkit import inference, models
from srkit.app.static import write_page
from srkit.data import images
from srkit.settings import SRKitError


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = models.create("efficient", 2, channels=8, blocks=2).eval()
    for parameter in model.parameters():
        parameter.data += 0.03 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def address(network, runtime, tmp_path_factory):
    """The pages of a network and of a style, served on this machine."""
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("pages")
    write_page(network, "mine", folder / "mine", runtime)
    torch.manual_seed(0)
    write_page(models.create("style", channels=4, blocks=1), "paint", folder / "paint", runtime)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def give(page, name: str, content: bytes) -> str:
    """Give the page a file; returns what it says when it is done."""
    said = page.locator("#said")
    page.set_default_timeout(120_000)
    page.wait_for_function("document.getElementById('said').textContent != 'Loading the network …'", timeout=120_000)
    assert not (said.get_attribute("class") or "") or "network" not in (said.text_content() or ""), said.text_content()
    page.evaluate("document.getElementById('said').textContent = ''")
    page.set_input_files("#file", [{"name": name, "mimeType": "image/png", "buffer": content}])
    deadline = time.monotonic() + 300
    while not (text := said.text_content() or "") or text.endswith("%"):
        assert time.monotonic() < deadline, f"still {text!r}"
        time.sleep(0.1)
    return text


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def shown(page) -> np.ndarray:
    """The pixels of the canvas with the result, (H, W, 3)."""
    bytes_ = page.evaluate(
        "(() => { const c = document.getElementById('after'); return [c.width, c.height,"
        " Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)] })()"
    )
    return np.array(bytes_[2], np.uint8).reshape(bytes_[1], bytes_[0], 4)[..., :3]


def test_pixels_are_pytorchs_to_one_grey_level_in_one_tile_and_in_several(browser, address, network):
    page, outside = browser.new_page(), []
    page.on("request", lambda request: outside.append(request.url) if address not in request.url else None)
    page.goto(f"{address}/mine/")
    for height, width in ((40, 57), (150, 290)):
        array = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        assert "pixels in" in give(page, "photo.png", png(array))
        wanted = inference.upscale(network, images.from_uint8(torch.from_numpy(array).permute(2, 0, 1)))
        wanted = images.to_uint8(wanted).permute(1, 2, 0).numpy()
        assert np.abs(shown(page).astype(int) - wanted).max() <= 1
    page.locator("main input").fill("20")
    assert "20%" in (page.locator("main").get_attribute("style") or "")
    with page.expect_download() as download:
        page.locator("#save").click()
    assert download.value.suggested_filename == "photo_x2.png"
    assert not [url for url in outside if not url.startswith(("blob:", "data:"))]
    page.close()


def test_a_style_repaints_there(browser, address):
    page = browser.new_page()
    page.goto(f"{address}/paint/")
    assert "41 x 50 pixels" in give(page, "photo.png", png(np.full((50, 41, 3), 90, np.uint8)))
    page.close()


def test_bad_files_are_one_line_and_the_next_one_works(browser, address):
    page = browser.new_page()
    page.goto(f"{address}/mine/")
    assert "no picture" in give(page, "text.png", b"not a picture")
    assert "too few" in give(page, "dot.png", png(np.zeros((1, 1, 3), np.uint8)))
    assert "too many" in give(page, "huge.png", png(np.zeros((3000, 3000), np.uint8)))
    assert "pixels in" in give(page, "good.png", png(np.zeros((20, 20, 3), np.uint8)))
    page.close()


def test_from_a_file_a_local_runtime_says_what_to_do(browser, network, runtime, tmp_path):
    pytest.importorskip("onnxscript")
    page = browser.new_page()
    page.goto(write_page(network, "mine", tmp_path, runtime).as_uri())
    page.wait_for_function("document.getElementById('said').className == 'bad'", timeout=60_000)
    assert "python -m http.server" in (page.locator("#said").text_content() or "")
    page.close()


def test_a_folder_without_the_runtime_is_refused(network, tmp_path):
    with pytest.raises(SRKitError, match="onnxruntime-web"):
        write_page(network, "mine", tmp_path / "page", tmp_path)
