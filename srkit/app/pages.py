"""The class's page: upscale, style, compare and one's own network, in a browser, by Gradio.

Whatever comes from outside is looked at before it is decoded: its header says how many pixels it has. One picture is
computed at a time, the others wait in a queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from srkit import inference, metrics, models
from srkit.data import images
from srkit.models import pretrained
from srkit.settings import SRKitError, choose_device, current_profile, printable
from srkit.training import gatys

MEGABYTES = 20  # of an uploaded file
MEGAPIXELS = 4.0  # of a picture: they bound the seconds that it can take
GATYS_SIZE, GATYS_STEPS = 192, 10  # pixels a side; a minute or two of a processor
QUEUE = 80  # clients that wait; who comes then is told so
HOUR = 3600  # seconds after which uploads and results are deleted
NETWORKS = ("efficient-x2", "efficient-x3", "efficient-x4", "srgan-small-x4", "srresnet-small-x4", "srcnn915-x4")


def read(path: str | None) -> Tensor:
    """An upload, (3, H, W) in [0, 1].

    Raises:
        SRKitError: none, not a picture, more pixels than this page takes, or damaged: one line without the path.
    """
    if not path:
        raise SRKitError("give a picture first")
    try:
        height, width = images.dimensions(path)
        if height * width > MEGAPIXELS * 1e6:
            size = f"{width} x {height} pixels"
            raise SRKitError(f"{size} are too many for this page: at most {MEGAPIXELS:g} megapixels; srkit takes any")
        return images.read(path)
    except SRKitError as error:
        raise SRKitError(str(error).replace(str(path), Path(path).name)) from None


def upscale(path: str | None, name: str, ground_truth: str | None = None) -> tuple[tuple[Any, Any], str]:
    """Enlarge an upload: before and after as arrays, and what there is to say."""
    model, high = models.load(_known(name, pretrained.names())), read(ground_truth) if ground_truth else None
    return _enlarge(model, name, read(path), high)


def own_network(path: str | None, checkpoint: str | None) -> tuple[tuple[Any, Any], str]:
    """As `upscale`, by a student's checkpoint, of which nothing is run; a style's repaints."""
    if not checkpoint:
        raise SRKitError("give a checkpoint: last.pt or best.pt of your training")
    try:
        model = models.load(checkpoint, closed=True)
    except SRKitError as error:
        raise SRKitError(str(error).replace(str(checkpoint), Path(checkpoint).name)) from None
    picture = read(path)
    if isinstance(model, models.TransformerNet):
        return _repaint(model, picture, 1.0)
    return _enlarge(model, "your network", picture, None)


def style(path: str | None, name: str, strength: float, painting: str | None = None) -> tuple[tuple[Any, Any], str]:
    """Repaint an upload in a trained style; or in that of a painting, small, by Gatys' optimisation."""
    if not painting:
        model: Any = models.load(_known(name, pretrained.styles()))
        return _repaint(model, read(path), strength)
    picture, example = (images.within(read(one), GATYS_SIZE) for one in (path, painting))
    profile = current_profile()
    loss = gatys.gatys_loss(example, feature_weights=profile.feature_weights, features=profile.features)
    trainer = gatys.Gatys(picture, loss, GATYS_STEPS)
    trainer.fit()
    output = torch.lerp(picture, trainer.picture, strength)
    return (_array(picture), _array(output)), f"Gatys, {trainer.seconds:.0f} s; features: {loss.describe()}"


def compare(path: str | None, names: list[str]) -> tuple[list[tuple[Any, str]], list[list[str]]]:
    """Shrink an upload, enlarge it by several networks, and measure each against it: pictures and a table."""
    high = read(path)
    if not 1 <= len(names) <= 4:
        raise SRKitError(f"{len(names)} networks: choose one to four")
    shown, rows = [(_array(high), "the picture")], []
    for name in names:
        model: Any = models.load(_known(name, pretrained.names())).to(choose_device())
        wanted = images.crop_to_multiple(high, model.scale)
        start = time.perf_counter()
        output = inference.upscale(model, images.degrade(wanted, model.scale))
        seconds = time.perf_counter() - start
        pair = (output[None], wanted[None], model.scale)
        psnr, ssim = metrics.psnr(*pair).item(), metrics.ssim(*pair).item()
        shown.append((_array(output), f"{name}: {psnr:.2f} dB"))
        rows.append([name, f"{psnr:.2f}", f"{ssim:.4f}", f"{seconds:.2f}"])
    return shown, rows


def _enlarge(model: nn.Module, name: str, low: Tensor, high: Tensor | None) -> tuple[tuple[Any, Any], str]:
    scale = models.scales_of(model)[-1]
    start = time.perf_counter()
    output = inference.upscale(model.to(choose_device()), low)
    said = f"{name}: {output.shape[2]} x {output.shape[1]} pixels in {time.perf_counter() - start:.1f} s"
    if high is not None:
        if high.shape != output.shape:
            size = f"{high.shape[2]} x {high.shape[1]}"
            raise SRKitError(f"the ground truth has {size} pixels, the result {output.shape[2]} x {output.shape[1]}")
        said += f"; {metrics.psnr(output[None], high[None], scale).item():.2f} dB"
    return (_array(images.resize(low, scale=scale)), _array(output)), said


def _repaint(model: models.TransformerNet, picture: Tensor, strength: float) -> tuple[tuple[Any, Any], str]:
    start = time.perf_counter()
    output = inference.stylize(model.to(choose_device()), picture, strength)
    size = f"{picture.shape[2]} x {picture.shape[1]} pixels"
    return (_array(picture), _array(output)), f"{size} in {time.perf_counter() - start:.1f} s"


def _known(name: str, names: list[str]) -> str:
    """The name, if it is one of these: what a client sends is no path to a file of this machine."""
    if name not in names:
        raise SRKitError(f"no network {printable(str(name))[:40]!r} on this page: choose one of {', '.join(names)}")
    return name


def _array(picture: Tensor) -> Any:
    return images.to_uint8(picture).permute(1, 2, 0).numpy()


# ---------------------------------------------------------------------------------- the page


def build() -> Any:
    """The page as a `gradio.Blocks`, with its queue: `build().launch(**launch_options())`.

    Raises:
        SRKitError: Gradio is not installed.
    """
    gr = gradio()

    def told(answer: Callable[..., Any]) -> Callable[..., Any]:
        def call(*inputs: Any) -> Any:
            try:
                return answer(*inputs)
            except SRKitError as error:
                raise gr.Error(str(error), print_exception=False) from None

        return call

    def upload(label: str) -> Any:  # a File, not an Image, which would decode whatever comes before we see it
        return gr.File(label=label, file_types=["image"], type="filepath")

    def run(button: Any, answer: Callable[..., Any], inputs: list[Any], outputs: list[Any]) -> None:
        names = {"api_name": answer.__name__, "concurrency_id": "one", "concurrency_limit": 1}
        button.click(told(answer), inputs, outputs, **names)

    def slider() -> list[Any]:
        return [gr.ImageSlider(label="before and after", format="png"), gr.Textbox(label="what was done")]

    known = [name for name in NETWORKS if name in pretrained.names()]
    with gr.Blocks(title="srkit", delete_cache=(HOUR // 4, HOUR), analytics_enabled=False) as page:
        limits = f"{MEGAPIXELS:g} megapixels and {MEGABYTES} MB"
        gr.Markdown(f"# srkit\nPictures up to {limits}; what was uploaded is deleted within an hour or so.")
        with gr.Tab("Upscale"):
            given, truth = upload("picture"), upload("ground truth, if you have it")
            name = gr.Dropdown(known, value=known[0], label="network")
            run(gr.Button("Upscale"), upscale, [given, name, truth], slider())
        with gr.Tab("Style"):
            given = upload("photograph")
            name = gr.Dropdown(pretrained.styles(), value=pretrained.styles()[0], label="style")
            strength = gr.Slider(0, 1, value=1, label="strength")
            painting = upload("or a painting of your own: small, and a minute or two")
            run(gr.Button("Paint"), style, [given, name, strength, painting], slider())
        with gr.Tab("Compare"):
            given = upload("picture, which is made small first")
            chosen = gr.CheckboxGroup(known, value=["efficient-x4"], label="networks, one to four")
            button, gallery = gr.Button("Compare"), gr.Gallery(label="pictures", format="png")
            table = gr.Dataframe(headers=["network", "PSNR in dB", "SSIM", "s"], label="measured on luma")
            run(button, compare, [given, chosen], [gallery, table])
        with gr.Tab("Own network"):
            given, checkpoint = upload("picture"), gr.File(label="checkpoint", type="filepath")
            run(gr.Button("Run"), own_network, [given, checkpoint], slider())
    return page.queue(max_size=QUEUE)


def launch_options() -> dict[str, Any]:
    """What `launch` is told: the limits, and that errors are shown."""
    return {"show_error": True, "max_file_size": f"{MEGABYTES}mb", "footer_links": ["api"], "quiet": True}


def gradio() -> Any:
    """The module.

    Raises:
        SRKitError: it is not installed.
    """
    try:
        return import_module("gradio")
    except ImportError:
        raise SRKitError("Gradio is not installed: pip install 'srkit[app]'") from None


# ---------------------------------------------------------------------------------- a Space

FRONT = """---
title: srkit
emoji: 🔍
sdk: gradio
sdk_version: {version}
python_version: "3.12"
app_file: app.py
license: mit
---

The page of the course kit srkit: upscale, style, compare, and your own network.
"""
APP = """from srkit.app import pages

pages.build().launch(**pages.launch_options())
"""


def write_space(folder: str | Path, repository: str) -> Path:
    """Write app.py, requirements.txt and README.md of a Hugging Face Space; returns the folder.

    Args:
        folder: a new one, or one that this has written before.
        repository: where srkit is installed from, https://….

    Raises:
        SRKitError: the folder holds something else; Gradio is not installed.
    """
    folder, version = Path(folder), gradio().__version__
    written = folder / "app.py"
    if folder.is_dir() and any(folder.iterdir()) and not (written.is_file() and written.read_text("utf-8") == APP):
        raise SRKitError(f"{folder} is not empty: name a new folder")
    files = {"app.py": APP, "requirements.txt": f"srkit[app] @ git+{repository}\n"}
    files["README.md"] = FRONT.format(version=version)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder
