"""`python -m trainer COMMAND`, alone or under torchrun."""

from trainer.cli import main

main()
