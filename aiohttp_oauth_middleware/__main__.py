"""``python -m aiohttp_oauth_middleware demo``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

__all__ = ("main",)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that *argv* names, ``sys.argv[1:]`` if None, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m aiohttp_oauth_middleware")
    commands = parser.add_subparsers(metavar="command", required=True)
    commands.add_parser("demo", help="see what it does, on this machine alone; exit status 0 if all of it was confirmed")
    parser.parse_args(argv)
    from .demo import demo

    return demo()


if __name__ == "__main__":
    sys.exit(main())
