"""`python -m squeezekit` is the command line."""

from squeezekit.cli import main

main()
