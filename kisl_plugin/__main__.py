"""`python -m kisl_plugin`: the command `kisl`."""

from kisl_plugin.cli.main import main

main(prog_name="kisl")
