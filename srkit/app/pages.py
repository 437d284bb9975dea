"""The class's page: upscale, style, compare and one's own network, in a browser, by Gradio.

One picture is computed at a time, the others wait in a queue; `answers` has what is computed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from srkit.app import answers
from srkit.models import pretrained
from srkit.settings import SRKitError

MEGABYTES = 20  # of an uploaded file
QUEUE = 80  # clients that wait; who comes then is told so
HOUR = 3600  # seconds after which uploads and results are deleted
NETWORKS = (
    "efficient-x2", "efficient-x3", "efficient-x4", "efficient-photo-x4", "efficient-gan-x4", "srresnet-small-x4",
    "srcnn915-x4",
)  # fmt: skip
ABOUT = f"""# srkit
Enlarge or paint pictures by the networks of a course on super-resolution, or by one that you trained.
Up to {answers.MEGAPIXELS:g} megapixels and {MEGABYTES} MB; what you upload is deleted within an hour or so.
"""


def build() -> Any:
    """The page as a `gradio.Blocks`, with its queue: `build().launch(**launch_options())`.

    Raises:
        SRKitError: Gradio is not installed.
    """
    gr = gradio()

    def told(answer: Callable[..., Any]) -> Callable[..., Any]:
        def call(*inputs: Any) -> Any:
            try:
                return answer(*inputs[:-1])  # the last one is Gradio's own, below
            except SRKitError as error:
                raise gr.Error(str(error), duration=30, print_exception=False) from None

        # Gradio shows the bars of tqdm, which the tiles have, and names the API's arguments by the signature.
        bar = inspect.Parameter("progress", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=gr.Progress(True))
        signature = inspect.signature(answer)
        call.__signature__ = signature.replace(parameters=[*signature.parameters.values(), bar])  # type: ignore
        return call

    # A File, not an Image, which would open whatever comes before we see it.
    def upload(label: str, kinds: list[str] | None) -> Any:
        return gr.File(label=label, file_types=kinds, type="filepath", height=150)

    def picture(label: str) -> Any:
        return upload(label, ["image"])

    def run(button: Any, answer: Callable[..., Any], inputs: list[Any], outputs: list[Any]) -> None:
        names = {"api_name": answer.__name__, "concurrency_id": "one", "concurrency_limit": 1}
        button.click(told(answer), inputs, outputs, show_progress_on=outputs[0], **names)

    def left() -> Any:
        return gr.Column(scale=2, min_width=320)

    def right() -> Any:
        return gr.Column(scale=3, min_width=320)

    def wipe() -> list[Any]:
        return [gr.ImageSlider(label="Before | after", format="png"), gr.Textbox(label="What was done", lines=1)]

    known = [name for name in NETWORKS if name in pretrained.names()]
    with gr.Blocks(title="srkit", delete_cache=(HOUR // 4, HOUR), analytics_enabled=False) as page:
        gr.Markdown(ABOUT)
        with gr.Tab("Upscale"), gr.Row():
            with left():
                given, name = picture("Picture"), gr.Dropdown(known, value=known[0], label="Network")
                truth = picture("Ground truth, for the PSNR, if you have it")
                button = gr.Button("Upscale", variant="primary")
            with right():
                run(button, answers.upscale, [given, name, truth], wipe())
        with gr.Tab("Style"), gr.Row():
            with left():
                given, styles = picture("Photograph"), pretrained.styles()
                name = gr.Dropdown(styles, value=styles[0], label="Style")
                strength = gr.Slider(0, 1, value=1, label="Strength")
                painting = picture("Or a painting of your own: small, takes a minute or two")
                button = gr.Button("Paint", variant="primary")
            with right():
                run(button, answers.style, [given, name, strength, painting], wipe())
        with gr.Tab("Compare"), gr.Row():
            with left():
                given = picture("Picture: made small first, then enlarged")
                chosen = gr.CheckboxGroup(known, value=["efficient-x4"], label="Networks, one to four")
                button = gr.Button("Compare", variant="primary")
            with right():
                gallery = gr.Gallery(label="The same square", format="png", columns=3, height="auto")
                table = gr.Dataframe(
                    headers=["Network", "PSNR", "SSIM", "s"],
                    label="PSNR in dB and SSIM, on luma",
                    column_widths=["40%", "20%", "22%", "18%"],
                )
                run(button, answers.compare, [given, chosen], [gallery, table])
        with gr.Tab("Own network"), gr.Row():
            with left():
                given, checkpoint = picture("Picture"), upload("Checkpoint: best.pt or last.pt", None)
                button = gr.Button("Run my network", variant="primary")
            with right():
                run(button, answers.own_network, [given, checkpoint], wipe())
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
