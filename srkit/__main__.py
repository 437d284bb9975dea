"""`python -m srkit` is `srkit`."""

import sys


def main() -> int:
    """`srkit.cli.main`; Ctrl-C ends it without a traceback also while it is being imported, which takes seconds."""
    try:
        from srkit import cli

        return cli.main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
