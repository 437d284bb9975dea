"""The class's page in a real browser: every tab, what is hostile, and many clients at once."""

from __future__ import annotations

import concurrent.futures
import io
import os
import socket
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest
import torch
from conftest import photograph
from PIL import Image

from srkit import inference, metrics, models
from srkit.app import answers, pages
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
    images.write(photograph(300, 600), folder / "tiles.png")
    images.write(photograph(1000, 1000), folder / "mega.png")
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
    assert [one["caption"] for one in shown[2:]] == [row[0] for row in table["data"]]
    assert [row[0] for row in table["data"]] == ["bicubic-x4", "efficient-x4", "srcnn915-x4"]
    sides = {Image.open(one["image"]).size for one in shown[1:]}
    assert sides == {(3 * 40, 3 * 40)}  # the same square of all, three times as large
    high = images.read(files["photo.png"])
    bicubic = inference.upscale(models.create("bicubic", 4), images.degrade(high, 4))
    assert table["data"][0][1] == f"{metrics.psnr(bicubic, high, 4).item():.2f}"


def test_tiles_are_told_while_they_are_made(client, files):
    from gradio_client import handle_file

    job, told = client.submit(handle_file(files["tiles.png"]), "efficient-x2", None, api_name="/upscale"), []
    while not job.done():
        told += [one.index for one in job.status().progress_data or [] if one.unit == "px"]
        time.sleep(0.01)
    assert "1200 x 600 pixels" in job.result()[1]
    assert told and told == sorted(told) and len(set(told)) > 1 and max(told) <= 1200 * 600


@pytest.mark.parametrize("name", ["cmyk.jpg", "moving.gif", "dot.png"])
def test_unusual_pictures_are_enlarged(client, files, name):
    from gradio_client import handle_file

    (_, after), _ = client.predict(handle_file(files[name]), "efficient-x2", None, api_name="/upscale")
    assert Image.open(after).size == tuple(2 * side for side in Image.open(files[name]).size)


HOSTILE = {
    "text.png": "not a picture",
    "vector.png": "not a picture",
    "cut.png": "damaged or truncated",
    "bomb.png": "13000 x 13000 pixels are too many",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_uploads_are_one_line(client, files, name):
    from gradio_client import handle_file

    assert HOSTILE[name] in said(client, handle_file(files[name]), "efficient-x2", None, api_name="/upscale")


def test_a_result_too_large_and_a_picture_too_slow_are_one_line(files, monkeypatch):
    monkeypatch.setattr(answers, "RESULT", 80 * 104 / 1e6)
    answers.upscale(files["photo.png"], "efficient-x2")
    with pytest.raises(SRKitError, match="156 x 120 pixels would be too large"):
        answers.upscale(files["photo.png"], "efficient-x3")
    monkeypatch.setattr(answers, "SECONDS", -1)
    with pytest.raises(SRKitError, match="stopped after 0 s"):
        answers.upscale(files["photo.png"], "efficient-x2")


def test_names_are_no_paths_and_nothing_given_is_said(client, files):
    assert "give a picture" in said(client, None, "efficient-x2", None, api_name="/upscale")
    with pytest.raises(SRKitError, match="no network"):  # the page's own check, behind Gradio's
        answers.upscale(files["photo.png"], files["mine.safetensors"])
    with pytest.raises(SRKitError, match="16 or more"):
        answers.style(files["dot.png"], pretrained.styles()[0], 1.0)
    with pytest.raises(SRKitError, match="one to four"):
        answers.compare(files["photo.png"], [])


def test_own_network_is_read_and_another_programs_file_is_not(client, files):
    from gradio_client import handle_file

    photo = handle_file(files["photo.png"])
    assert "no picture" not in said(client, photo, handle_file(files["text.png"]), api_name="/own_network")
    assert "other.pt" in said(client, photo, handle_file(files["other.pt"]), api_name="/own_network")
    assert "give a checkpoint" in said(client, photo, None, api_name="/own_network")


@pytest.fixture
def served(tmp_path):
    """`srkit app` in a process of its own, whose memory is its alone: the process and the address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "srkit", "app", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout and f":{port}; Ctrl-C ends it" in process.stdout.readline()
        yield process, f"http://127.0.0.1:{port}"
        process.terminate()


def peak(process: subprocess.Popen) -> int:
    """The most memory that the process has had, in MiB."""
    (line,) = (one for one in Path(f"/proc/{process.pid}/status").read_text().splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1]) // 2**10


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux, which keeps the peak of the memory")
def test_a_crowd_is_answered_in_bounded_memory(served, files):
    """`pytest -n 0 -s tests/browser/test_app.py -k crowd` prints the memory."""
    from gradio_client import Client, handle_file

    process, address = served

    def connect() -> Client:
        return Client(address, verbose=False, download_files=False, httpx_kwargs={"timeout": 600})

    def ask(client: Client, name: str, network: str = "efficient-x2") -> str:
        return client.predict(handle_file(files[name]), network, None, api_name="/upscale")[1]

    client = connect()
    ask(client, "photo.png")
    one = peak(process)
    for name, words in HOSTILE.items():
        with pytest.raises(Exception, match=words):
            ask(client, name)
    hostile = peak(process)
    leaving = connect()
    leaving.submit(handle_file(files["tiles.png"]), "efficient-x2", None, api_name="/upscale")
    leaving.close()
    start, names = time.monotonic(), ["photo.png", "photo.png", "photo.png", "photo.png", "text.png"] * 10
    with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
        jobs = [pool.submit(ask, client, name) for name in names]
        concurrent.futures.wait(jobs)
    seconds, crowd = time.monotonic() - start, peak(process)
    for name, job in zip(names, jobs, strict=True):
        if name == "photo.png":
            assert "104 x 80 pixels" in job.result()
        else:
            assert HOSTILE[name] in str(job.exception())
    ask(client, "mega.png", "efficient-x4")
    largest = peak(process)
    print(f"peak in MiB: {one} after one picture, {hostile} after hostile ones, {largest} after a megapixel by x4")
    print(f"and {crowd} after {len(names)} clients at once, answered in {seconds:.0f} s")
    assert hostile - one < 2**8 and crowd - one < 2**9 and largest - one < 2**10


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
