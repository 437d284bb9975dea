"""A submission's answers: its network runs in a process of its own, under limits, and sees low alone.

The parent writes low as bytes and reads the outputs as bytes of the size that they must have; every figure is computed
in the parent, from its own ground truth. So even a student's own code (`own_code`) cannot state a figure.

    python -m srkit.course.measuring JOB
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from srkit import inference, models
from srkit.course.rules import Rules
from srkit.data.images import from_uint8, to_uint8
from srkit.models.files import read
from srkit.models.presets import fill
from srkit.settings import SRKitError

HOME = Path(__file__).resolve().parents[2]
PATIENCE = 4  # times the seconds that the rules allow, by the clock on the wall
KEPT = ("PATH", "OMP_NUM_THREADS", "SYSTEMROOT", "LANG", "TEMP", "TMP")  # of the environment


# ---------------------------------------------------------------------------------- in the process of its own


def load(folder: Path, own_code: bool) -> nn.Module:
    """The network that is handed in: rebuilt from its config, or, with `own_code`, by running model.py.

    Raises:
        SRKitError: no network comes of it, or its weights do not fit or are no numbers.
    """
    weights = read(folder / "model.safetensors")
    if own_code:
        sys.path.insert(0, str(folder))
        try:
            model = runpy.run_path(str(folder / "model.py"))["network"]()
            model.load_state_dict(weights)
        except Exception as error:  # it is anybody's code
            raise SRKitError(f"model.py: {type(error).__name__}: {str(error)[:150]}") from None
    else:
        config = json.loads((folder / "model.json").read_text("utf-8")).get("config")
        if not isinstance(config, dict) or not config.get("architecture"):
            raise SRKitError("model.json names no architecture of srkit, and no student's code is run here")
        model = fill(config, weights)
    if not weights:
        raise SRKitError("the network has no weights: nothing was trained")
    if not all(weight.isfinite().all() for weight in weights.values()):
        raise SRKitError("the weights hold NaN or infinite values: the training failed")
    return model.eval()


def _limit(job: dict[str, Any]) -> None:
    """No more memory, processor time and file size than the rules allow, where the system has such limits."""
    with contextlib.suppress(ImportError):
        import resource

        cores = torch.get_num_threads()
        limits = {"DATA": job["memory"] * 2**30, "CPU": job["seconds"] * cores, "FSIZE": job["file_size"] * 2**30}
        for name, most in limits.items():
            later = 5 if name == "CPU" else 0  # s; at the first limit SIGXCPU says why, at the second SIGKILL ends it
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (int(most), int(most) + later))


@torch.inference_mode()
def answer(folder: Path) -> None:
    """Run the network on every low of a job; writes out/N for each and result.json."""
    job = json.loads((folder / "job.json").read_text("utf-8"))
    result: dict[str, Any] = {}
    try:
        model = load(folder / "submission", job["own_code"])
        scale = job["scale"]
        if scale not in models.scales_of(model):
            raise SRKitError(f"the network enlarges by {models.scales_of(model)[-1]}, and the rules want {scale}")
        result["parameters"] = sum(models.count(model))
        if job["ensemble"]:
            model = inference.SelfEnsemble(model, scale)
        seconds = 0.0
        for index, shape in enumerate(job["shapes"]):
            low = from_uint8(_unpack(folder / "low" / str(index), shape))[None]
            begin = time.perf_counter()
            output = models.output_at(model, low, scale)[0]
            seconds += time.perf_counter() - begin
            (folder / "out" / str(index)).write_bytes(to_uint8(output.float()).numpy().tobytes())
        pixels = scale**2 * sum(height * width for _, height, width in job["shapes"])
        result["seconds per megapixel"] = 1e6 * seconds / pixels
    except SRKitError as error:
        result["error"] = str(error)
    except (MemoryError, RuntimeError) as error:
        full = isinstance(error, MemoryError) or "alloc" in str(error)
        why = f"more than the {job['memory']:g} GB of memory that the rules allow" if full else str(error)[:150]
        result["error"] = f"the network could not be run: {why}"
    except Exception as error:
        result["error"] = f"the network could not be run ({type(error).__name__}: {str(error)[:100]})"
    (folder / "result.json").write_text(json.dumps(result), "utf-8")


def _unpack(path: Path, shape: Sequence[int]) -> Tensor:
    """A picture's bytes as uint8 (3, H, W).

    Raises:
        SRKitError: not as many bytes as the shape has.
    """
    if not path.is_file() or path.stat().st_size != int(np.prod(shape)):
        raise SRKitError("the network's outputs are missing, or not as large as the rules want")
    return torch.from_numpy(np.fromfile(path, np.uint8).reshape(shape))


# ---------------------------------------------------------------------------------- in the process that marks


def sandbox(folder: Path) -> list[str]:
    """The command, bubblewrap's, in which code sees Python, srkit and its job, and neither network nor home.

    Raises:
        SRKitError: bubblewrap is not installed.
    """
    if not shutil.which("bwrap"):
        raise SRKitError("students' code is run in bubblewrap: install bwrap, or give --no-sandbox in a container")
    seen = ["/usr", "/bin", "/lib", "/lib64", "/etc/alternatives", str(HOME / "srkit"), sys.prefix, sys.base_prefix]
    binds = [word for path in seen for word in ("--ro-bind-try", path, path)]
    empty = ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]  # first: what is bound may lie below
    alone = ["--unshare-all", "--die-with-parent", "--new-session"]
    return ["bwrap", *empty, *binds, "--bind", str(folder), str(folder), *alone]


def measure(
    submission: Path, lows: Sequence[Tensor], rules: Rules, ensemble: bool = False, sandboxed: bool = True
) -> tuple[list[Tensor], dict[str, Any]]:
    """The outputs of a submission's network, uint8 (3, scale * h, scale * w), and what else was found.

    Args:
        submission: the folder with model.safetensors and model.json, or model.py where the rules say own_network.
        lows: uint8 (3, h, w) each.
        ensemble: the mean over eight flips and turns.
        sandboxed: run a student's own code in bubblewrap; False only in a container made for it.

    Returns:
        The outputs, and "parameters" and "seconds per megapixel".

    Raises:
        SRKitError: the network cannot be loaded or run, or needs more than the rules allow.
    """
    with TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        job = Path(scratch).resolve()
        (job / "low").mkdir()
        (job / "out").mkdir()
        shutil.copytree(submission, job / "submission")
        for index, low in enumerate(lows):
            (job / "low" / str(index)).write_bytes(low.numpy().tobytes())
        limits = {"seconds": rules.seconds, "memory": rules.memory, "file_size": rules.file_size}
        facts = {**limits, "scale": rules.scale, "ensemble": ensemble, "own_code": rules.own_network}
        facts["shapes"] = [list(low.shape) for low in lows]
        (job / "job.json").write_text(json.dumps(facts), "utf-8")
        begin = sandbox(job) if rules.own_network and sandboxed else []
        ended = _run([*begin, sys.executable, "-m", "srkit.course.measuring", str(job)], job, rules.seconds)
        try:
            result = json.loads((job / "result.json").read_text("utf-8"))
            found = {name: float(result[name]) for name in ("parameters", "seconds per megapixel") if name in result}
            if result.get("error"):
                said = str(result["error"]).replace(f"{job / 'submission'}{os.sep}", "")
                raise SRKitError(" ".join(said.split())[:300])
            shapes = [(3, rules.scale * low.shape[1], rules.scale * low.shape[2]) for low in lows]
            return [_unpack(job / "out" / str(index), shape) for index, shape in enumerate(shapes)], found
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            if isinstance(error, SRKitError):
                raise
            raise SRKitError(ended or "measuring it ended without a result: usually it needs too much memory") from None


def _run(command: list[str], job: Path, seconds: float) -> str:
    """Run it with neither the environment nor a terminal; "" or, if it had to be ended, why."""
    environment = {name: os.environ[name] for name in KEPT if name in os.environ} | {"PYTHONPATH": str(HOME)}
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        command, cwd=job, env=environment, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=os.name != "nt"
    )
    with process:
        try:
            status = process.wait(PATIENCE * seconds)  # its processor time is limited inside; a machine may be busy
        except BaseException as error:  # Ctrl-C too
            with contextlib.suppress(OSError):
                process.kill() if os.name == "nt" else os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            status = -int(getattr(signal, "SIGXCPU", 24))
    late = status == -int(getattr(signal, "SIGXCPU", 24))
    return f"stopped: it takes longer than the {seconds:g} s that the rules allow" if late else ""


if __name__ == "__main__":
    _limit(json.loads((Path(sys.argv[1]) / "job.json").read_text("utf-8")))
    answer(Path(sys.argv[1]))
