"""`python -m srkit` is `srkit`."""

import signal
import sys


def main() -> int:
    """`srkit.cli.main`; Ctrl-C ends it without a traceback also while it is being imported, which takes seconds."""
    try:
        # SIGTERM, too, goes through every `finally`: no draft of a file is left behind.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        from srkit import cli

        return cli.main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
