"""A network on one HTML page: it runs in the browser of whoever opens it, and no picture leaves there.

onnxruntime-web does the computing, from its CDN or from a local copy beside the page.
"""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
from html import escape
from pathlib import Path

from torch import nn

from srkit.inference import to_onnx
from srkit.models import TransformerNet, complexity, count_parameters, scales_of
from srkit.settings import SRKitError, atomic_write

TEMPLATE = Path(__file__).with_name("page.html")
VERSION = "1.30.0"  # of onnxruntime-web
CDN = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{VERSION}/dist/"
RUNTIME = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")  # of onnxruntime-web's folder dist
TILE = 128  # pixels of low: a browser shows progress after each
PIXELS = {"tiled": 4_000_000, "whole": 1_100_000}  # of a picture that it takes: memory is the browser's


def write_page(model: nn.Module, name: str, folder: str | Path, runtime: Path | None = None) -> Path:
    """Write FOLDER/index.html with the network inside: drop a picture, wipe, download.

    Args:
        model: enlarges, or repaints (`TransformerNet`).
        name: what the page calls it.
        folder: is made.
        runtime: onnxruntime-web's folder dist, as its package has it, of which two files are copied to FOLDER/ort;
            its CDN if not given.

    Returns:
        The page. From a file it works with the CDN alone, for browsers load no modules from files: it says so.

    Raises:
        SRKitError: the runtime lacks a file; what `to_onnx` raises.
    """
    folder, scale = Path(folder), scales_of(model)[-1]
    if runtime and (missing := [one for one in RUNTIME if not (runtime / one).is_file()]):
        raise SRKitError(f"{runtime}: no {missing[0]}: give the folder dist of the package onnxruntime-web")
    with tempfile.TemporaryDirectory() as temporary:
        onnx = to_onnx(model, Path(temporary) / "network.onnx").read_bytes()
    reach = complexity.reach(model, scale)
    paints = isinstance(model, TransformerNet)
    network = {
        **{"scale": scale, "tile": TILE, "reach": reach and reach.pixels, "grid": reach.grid if reach else 1},
        **{"pixels": PIXELS["tiled" if reach else "whole"], "runtime": "./ort/" if runtime else CDN},
        "onnx": base64.b64encode(onnx).decode(),
        "suffix": f"_{name}.png" if paints else f"_x{scale}.png",
    }
    what = "repaints pictures" if paints else f"enlarges pictures {scale} times"
    words = {
        "title": f"{name} {what}",
        **{"before": "the picture" if paints else "interpolated", "after": name},
        "about": f"{name}: {count_parameters(model):,} weights, made with srkit, run by onnxruntime-web.",
    }
    page = TEMPLATE.read_text(encoding="utf-8")
    for key, value in words.items():
        page = page.replace(f"{{{key}}}", escape(value))
    page = page.replace("{network}", json.dumps(network).replace("<", "\\u003c"))
    if runtime:
        (folder / "ort").mkdir(parents=True, exist_ok=True)
        for one in RUNTIME:
            shutil.copyfile(runtime / one, folder / "ort" / one)
    with atomic_write(folder / "index.html") as draft:
        draft.write_text(page, encoding="utf-8")
    return folder / "index.html"
