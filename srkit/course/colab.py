"""On Colab: work that outlives the session, on the student's own Google Drive; files in and out."""

from __future__ import annotations

import os
from pathlib import Path

from srkit import settings
from srkit.data import sources
from srkit.settings import SRKitError, writing


def on_colab(drive: bool = False, mirror: str = "") -> None:
    """What every lesson's set-up cell calls; anywhere but on Colab it only notes the mirror.

    Args:
        drive: mount the student's Drive and keep runs/ and figures/ in its folder srkit. Downloads stay on Colab's own
            disk: a Drive is slow with many files.
        mirror: a folder or web address with the data sets' files, where SRKIT_MIRROR names none.

    Raises:
        SRKitError: the Drive was not mounted, or cannot be written.
    """
    if mirror:
        os.environ.setdefault("SRKIT_MIRROR", mirror)
    try:
        from google.colab import drive as google_drive  # type: ignore[import-not-found]
    except ImportError:
        return
    if drive:
        try:
            google_drive.mount(str(settings.DRIVE))
        except Exception as error:  # of several kinds, when the student says no or the browser keeps cookies out
            raise SRKitError(f"no Drive ({error}): run this cell again and allow it, or untick DRIVE") from None
        os.environ["SRKIT_ROOT"] = str(settings.DRIVE / "MyDrive" / "srkit")
        os.environ.setdefault("SRKIT_DATA", "/content/data")
        with writing(settings.root()):
            settings.root().mkdir(parents=True, exist_ok=True)
    kept = settings.root().is_relative_to(settings.DRIVE)
    advice = "kept" if kept else "gone when the session ends, unless you tick DRIVE and run this cell again"
    print(f"your work goes to {settings.root()}: {advice}")


def photo(name: str = "") -> Path:
    """A photograph to try: the file of this name; or on Colab what is uploaded; or else one that comes along.

    Raises:
        SRKitError: no such file.
    """
    if name:
        path = Path(name).expanduser()
        if not path.is_file():
            raise SRKitError(f"{path}: no such file: write its whole path, or leave it empty")
        return path
    try:
        from google.colab import files  # type: ignore[import-not-found]

        uploaded = list(files.upload())
    except ImportError:
        uploaded = []
    if uploaded:
        return Path(uploaded[0]).resolve()
    return next(path for path in sources.pictures("bundled") if path.stem == "chelsea")


def keep(path: Path) -> None:
    """Say where a file lies; on Colab the browser downloads it, too."""
    print(f"{path}, {path.stat().st_size / 1e6:.1f} MB")
    try:
        from google.colab import files  # type: ignore[import-not-found]
    except ImportError:
        return
    files.download(str(path))
