"""`python -m inkstone` is the `inkstone` command."""

from inkstone.cli.main import main

main()
