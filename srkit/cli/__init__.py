"""The command `srkit`: run lessons, train, resume, compare, inspect, upscale, style, export, evaluate, data, teach.

Each command is a dataclass whose fields are its flags; tyro shows the comment above a field as its help.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from srkit import __version__
from srkit.cli.app import App
from srkit.cli.style import Style
from srkit.cli.teach import Contest, Grade, Handout, Poll, Submit
from srkit.cli.train import Compare, Pictures, Resume, Train
from srkit.cli.upscale import Upscale
from srkit.cli.use import Data, Evaluate, Export, Inspect, Run
from srkit.settings import SRKitError, printable, unknown
from srkit.training import GANConfig
from srkit.training.devices import check_alone

COMMANDS: dict[str, type] = {
    "run": Run, "train": Train, "resume": Resume, "compare": Compare, "inspect": Inspect, "upscale": Upscale,
    "style": Style, "export": Export, "evaluate": Evaluate, "data": Data, "app": App,
    "handout": Handout, "submit": Submit, "grade": Grade, "contest": Contest, "poll": Poll,
}  # fmt: skip
ABOUT = "Learn image super-resolution: lessons, training, measuring, upscaling. `srkit --version` says which srkit."
RULES = ConstructorRegistry()


@RULES.primitive_rule
def _weights_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """`--loss mse 1 relu2_2 0.01` is {"mse": 1.0, "relu2_2": 0.01}."""
    if info.type_origin is not dict:
        return None

    def read(words: list[str]) -> dict[str, float]:
        if not words or len(words) % 2:
            raise ValueError("each term needs a weight, as in --loss mse 1 l1 0.1")
        return {term: float(weight) for term, weight in zip(words[::2], words[1::2], strict=True)}

    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="TERM WEIGHT …",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda weights: [str(word) for pair in weights.items() for word in pair],
    )


@dataclass(frozen=True)
class _AnyConfig(GANConfig):
    """Every setting that some training has, unchecked."""

    def __post_init__(self) -> None:
        pass


def parse(name: str, words: Sequence[str]) -> Any:
    """A command from its words.

    Those of `train` and `resume` are parsed twice: first to learn which network or checkpoint they name, then with
    the settings of that one as defaults.

    Raises:
        SRKitError: settings that no training can use, or a checkpoint that cannot be read.
        SystemExit: the words do not fit the command, or ask for help.
    """

    def cli(**options: Any) -> Any:
        return tyro.cli(COMMANDS[name], prog=f"srkit {name}", args=words, registry=RULES, **options)

    if name not in ("train", "resume"):
        return cli()
    blank = Train("", Pictures("")) if name == "train" else Resume(Path())
    draft, _ = cli(default=replace(blank, config=_AnyConfig()), add_help=False, return_unknown_args=True)
    if name == "train":
        return cli(default=Train(tyro.MISSING, Pictures(tyro.MISSING), config=draft.settings()))
    return cli(default=Resume(tyro.MISSING, config=draft.settings()))


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; what it raises that a person can put right becomes one line here, and nowhere else.

    Returns:
        0; 1 if a lesson failed; 2 after one line on standard error; 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words == ["--version"]:
            print(f"srkit {__version__}")
            return 0
        if not words or words[0].startswith("-"):
            tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="srkit", description=ABOUT, args=words, registry=RULES)
        if words[0] not in COMMANDS:
            raise unknown("command", words[0], COMMANDS)
        command = parse(words[0], words[1:])
        if not isinstance(command, Train | Resume):
            check_alone(f"srkit {words[0]}")
        status = command() or 0
        sys.stdout.flush()  # now, while a full disk can still be told of
        return status
    except KeyboardInterrupt:
        return 130
    except (SRKitError, OSError, MemoryError) as error:  # OSError: a folder without permission, a full disk
        _drop_output(error)
        if isinstance(error, MemoryError):
            error = "out of memory: close other programs, or take smaller pictures or a smaller network"
        if os.environ.get("RANK", "0") != "0":
            time.sleep(3)  # the first process says the same: then the launcher ends this one meanwhile
        print(printable(f"srkit: {error}"), file=sys.stderr)
        return 2


def _drop_output(error: BaseException) -> None:
    """What could not be printed, to a full disk or to `| head`, Python would try to print again at its end."""
    if isinstance(error, OSError):
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
