"""The command `srkit app`: the class's page."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import metadata
from pathlib import Path

from srkit.settings import SRKitError


@dataclass
class App:
    """Serve a page that upscales, paints and compares pictures: open the address that it prints.

    Needs Gradio: pip install 'srkit[app]'. Nothing is loaded from outside; no file is kept for much over an hour.
    """

    # Where it listens; 0.0.0.0 for everyone in the network.
    host: str = "127.0.0.1"
    # On which port.
    port: int = 7860
    # Write the folder of a Hugging Face Space instead.
    space: Path | None = None

    def __call__(self) -> None:
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
        from srkit.app import pages

        if self.space:
            links = dict(link.split(", ") for link in metadata("srkit").get_all("Project-URL") or [])
            print(f"{pages.write_space(self.space, links['Repository'])}: app.py, requirements.txt, README.md")
            return
        page, where = pages.build(), {"server_name": self.host, "server_port": self.port}
        try:
            page.launch(**where, prevent_thread_lock=True, **pages.launch_options())
        except OSError:
            raise SRKitError(f"port {self.port} of {self.host} cannot be had: name another one, --port …") from None
        print(f"http://{self.host}:{self.port}; Ctrl-C ends it", flush=True)
        page.block_thread()
