"""`python -m paynexus_async` is the command `paynexus`."""

from .cli import main

main()
