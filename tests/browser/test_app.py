"""The class's page in a real browser: every tab, what is hostile, and many clients at once."""

from __future__ import annotations

import concurrent.futures
import io
import os
import zlib

import psutil
import pytest
import torch
from conftest import photograph
from PIL import Image

from srkit import models
from srkit.app import pages
from srkit.data import images
from srkit.models import pretrained
from srkit.settings import SRKitError

pytest.importorskip("gradio", reason="needs the extra app")


@pytest.fixture(scope="module")
def server():
    """The page on a free port, and its address."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    page = pages.build()
    _, address, _ = page.launch(prevent_thread_lock=True, **pages.launch_options())
    yield address
    page.close()


@pytest.fixture(scope="module")
def client(server, tmp_path_factory):
    from gradio_client import Client

    # Not into the server's own folder of results, which is the default where both are one machine.
    folder = str(tmp_path_factory.mktemp("downloads"))
    return Client(server, verbose=False, download_files=folder, httpx_kwargs={"timeout": 300})


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """Uploads by name: good ones, and what a stranger may send."""
    folder = tmp_path_factory.mktemp("uploads")
    images.write(photograph(40, 52), folder / "photo.png")
    images.write(photograph(80, 104), folder / "truth.png")
    Image.new("CMYK", (40, 40), (90, 20, 0, 0)).save(folder / "cmyk.jpg")
    frames = [Image.new("P", (24, 24), number) for number in range(3)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    (folder / "text.png").write_text("no picture at all")
    (folder / "vector.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    (folder / "bomb.png").write_bytes(bomb(13_000, 13_000))
    (folder / "cut.png").write_bytes((folder / "photo.png").read_bytes()[:-900])
    torch.manual_seed(0)
    pretrained.publish(models.create("srcnn915", 2), "mine", {}, folder)
    torch.save({"format": "of another program"}, folder / "other.pt")
    return {path.name: str(path) for path in folder.iterdir()}


def bomb(width: int, height: int) -> bytes:
    """A PNG of so many black pixels, in a few hundred kilobytes."""
    file, row = io.BytesIO(), b"\0" * (width + 1)
    packer = zlib.compressobj(9)
    data = b"".join([packer.compress(row) for _ in range(height)]) + packer.flush()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)

    header = width.to_bytes(4) + height.to_bytes(4) + bytes([8, 0, 0, 0, 0])
    file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return file.getvalue()


def said(client, *arguments, api_name: str) -> str:
    """The one line of an error."""
    with pytest.raises(Exception) as caught:
        client.predict(*arguments, api_name=api_name)
    text = str(caught.value)
    assert "\n" not in text.strip() and "Traceback" not in text and "/tmp" not in text
    return text


def test_api_enlarges_and_measures_against_a_truth(client, files):
    from gradio_client import handle_file

    (_, after), text = client.predict(
        handle_file(files["photo.png"]), "efficient-x2", handle_file(files["truth.png"]), api_name="/upscale"
    )
    assert Image.open(after).size == (104, 80) and "104 x 80 pixels" in text and "dB" in text


def test_api_paints_and_compares(client, files):
    from gradio_client import handle_file

    photo = handle_file(files["photo.png"])
    (before, after), text = client.predict(photo, pretrained.styles()[0], 1.0, None, api_name="/style")
    assert Image.open(before).size == Image.open(after).size == (52, 40) and "52 x 40 pixels" in text
    painting = handle_file(files["truth.png"])
    (_, after), text = client.predict(photo, pretrained.styles()[0], 1.0, painting, api_name="/style")
    assert Image.open(after).size == (52, 40) and text.startswith("Gatys") and "small VGG" in text
    shown, table = client.predict(photo, ["efficient-x4", "srcnn915-x4"], api_name="/compare")
    assert len(shown) == 3 and [row[0] for row in table["data"]] == ["efficient-x4", "srcnn915-x4"]
    assert all(float(row[1]) > 5 for row in table["data"])


@pytest.mark.parametrize("name", ["cmyk.jpg", "moving.gif", "dot.png"])
def test_unusual_pictures_are_enlarged(client, files, name):
    from gradio_client import handle_file

    (_, after), _ = client.predict(handle_file(files[name]), "efficient-x2", None, api_name="/upscale")
    assert Image.open(after).size == tuple(2 * side for side in Image.open(files[name]).size)


@pytest.mark.parametrize(("name", "words"), [
    ("text.png", "not a picture"), ("vector.png", "not a picture"), ("cut.png", "damaged or truncated"),
    ("bomb.png", "13000 x 13000 pixels are too many"),
])  # fmt: skip
def test_hostile_uploads_are_one_line_and_little_memory(client, files, name, words):
    from gradio_client import handle_file

    before = psutil.Process().memory_info().rss
    assert words in said(client, handle_file(files[name]), "efficient-x2", None, api_name="/upscale")
    assert psutil.Process().memory_info().rss - before < 2**28


def test_names_are_no_paths_and_nothing_given_is_said(client, files):
    assert "give a picture" in said(client, None, "efficient-x2", None, api_name="/upscale")
    with pytest.raises(SRKitError, match="no network"):  # the page's own check, behind Gradio's
        pages.upscale(files["photo.png"], files["mine.safetensors"])
    with pytest.raises(SRKitError, match="16 or more"):
        pages.style(files["dot.png"], pretrained.styles()[0], 1.0)
    with pytest.raises(SRKitError, match="one to four"):
        pages.compare(files["photo.png"], [])


def test_own_network_is_read_and_another_programs_file_is_not(client, files):
    from gradio_client import handle_file

    photo = handle_file(files["photo.png"])
    assert "no picture" not in said(client, photo, handle_file(files["text.png"]), api_name="/own_network")
    assert "other.pt" in said(client, photo, handle_file(files["other.pt"]), api_name="/own_network")
    assert "give a checkpoint" in said(client, photo, None, api_name="/own_network")


def test_fifty_clients_at_once_all_get_their_picture(server, files):
    from gradio_client import Client, handle_file

    client = Client(server, verbose=False, download_files=False, httpx_kwargs={"timeout": 300})
    photo, before = handle_file(files["photo.png"]), psutil.Process().memory_info().rss
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        jobs = [pool.submit(client.predict, photo, "efficient-x2", None, api_name="/upscale") for _ in range(50)]
        answers = [job.result()[1] for job in jobs]
    assert len(answers) == 50 and all("104 x 80 pixels" in answer for answer in answers)
    grown = psutil.Process().memory_info().rss - before
    print(f"50 clients: memory {before / 2**20:.0f} MiB, {grown / 2**20:.0f} MiB more afterwards")
    assert grown < 2**29


def test_every_tab_in_the_browser_asks_nobody_else(browser, server, files):
    page, outside = browser.new_page(viewport={"width": 1280, "height": 1000}), []
    page.on("request", lambda request: outside.append(request.url) if server.rstrip("/") not in request.url else None)
    page.set_default_timeout(60_000)
    page.goto(server)
    page.locator("input[type=file]").first.set_input_files(files["photo.png"])
    page.get_by_role("button", name="Upscale", exact=True).click()
    page.wait_for_function("[...document.querySelectorAll('textarea')].some(one => one.value.includes('pixels in'))")
    for tab in ("Style", "Compare", "Own network"):
        page.get_by_role("tab", name=tab).click()
        page.get_by_role("tabpanel").filter(visible=True).first.wait_for()
    if os.environ.get("SRKIT_SCREENSHOTS"):
        for width in (1280, 400):
            page.set_viewport_size({"width": width, "height": 1000})
            for tab in ("Upscale", "Style", "Compare", "Own network"):
                page.get_by_role("tab", name=tab).click(force=True)
                page.screenshot(path=f"{os.environ['SRKIT_SCREENSHOTS']}/app_{width}_{tab.split()[0]}.png")
    assert not [url for url in outside if url.startswith("http")]
    page.close()


def test_a_space_is_three_files(tmp_path):
    folder = pages.write_space(tmp_path / "space", "https://example.org/srkit")
    assert {path.name for path in folder.iterdir()} == {"app.py", "requirements.txt", "README.md"}
    assert "sdk: gradio" in (folder / "README.md").read_text("utf-8")
    assert (folder / "requirements.txt").read_text("utf-8") == "srkit[app] @ git+https://example.org/srkit\n"
    compile((folder / "app.py").read_text("utf-8"), "app.py", "exec")
