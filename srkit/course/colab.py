"""On Colab: work that outlives the session, on the student's own Google Drive."""

from __future__ import annotations

import os

from srkit import settings
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
