"""A page on which one wipes between two pictures: one HTML file that needs neither a server nor a network."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path

from PIL import Image
from torch import Tensor

from srkit.data.images import to_uint8
from srkit.settings import atomic_write

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ margin: 0; background: #222; color: #eee; font: 15px system-ui, sans-serif; text-align: center }}
main {{ position: relative; display: inline-block; margin: 1em; line-height: 0; max-width: calc(100vw - 2em) }}
img {{ width: {width}px; max-width: 100%; image-rendering: auto }}
#after {{ position: absolute; left: 0; top: 0; clip-path: inset(0 0 0 var(--at)) }}
#line {{ position: absolute; top: 0; bottom: 0; left: var(--at); width: 2px; margin-left: -1px; background: #fff }}
input {{ position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize }}
input:focus-visible ~ #line {{ background: #fd0 }}
b {{ position: absolute; top: .5em; padding: .4em .6em; background: #000a; line-height: 1 }}
</style>
<p>{title}</p>
<main style="--at: 50%">
<img id="before" src="{before}" alt="{first}"><img id="after" src="{after}" alt="{second}">
<b style="left: .5em">{first}</b><b style="right: .5em">{second}</b>
<input type="range" min="0" max="100" value="50" step="0.1" aria-label="how much of {first} is shown, in percent"
 oninput="this.parentNode.style.setProperty('--at', this.value + '%')"><div id="line"></div>
</main>
</html>
"""


def wipe(before: Tensor, after: Tensor, names: tuple[str, str], title: str, path: Path) -> Path:
    """Write a page that wipes from one picture to another of its size.

    Args:
        before, after: (1 or 3, H, W) in [0, 1], or bytes.
        names: of the two, in words.
        title: over both.
        path: of the HTML file.
    """
    words = {"title": escape(title), "first": escape(names[0]), "second": escape(names[1]), "width": after.shape[-1]}
    with atomic_write(path) as draft:
        draft.write_text(PAGE.format(before=_embedded(before), after=_embedded(after), **words), encoding="utf-8")
    return path


def _embedded(picture: Tensor) -> str:
    """A picture as an address that holds it: JPEG without loss of colour's sharpness."""
    array = (to_uint8(picture) if picture.is_floating_point() else picture).permute(1, 2, 0).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(array if array.shape[2] > 1 else array[..., 0]).save(file, "JPEG", quality=95, subsampling="4:4:4")
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
