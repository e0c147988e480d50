"""The command `paynexus`: payments from a shell, and a sandbox to try them on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and exit with the code of its outcome.

    Args:
        arguments: what stands behind `paynexus`; left out, those of the process.

    Raises:
        SystemExit: always.
    """
    try:
        from ._commands import run  # the extra may not be there
    except ImportError as error:
        sys.exit(f"paynexus: {error.name} is missing: pip install 'paynexus-async[cli,sandbox]'")
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))
