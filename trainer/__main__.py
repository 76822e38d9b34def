"""`python -m trainer COMMAND`, alone or under torchrun."""

import os

# Torch's CPU threads otherwise spin while they wait for one whose core the loader, or another program, has taken:
# measured on 2 cores, a step took three to five times as long. On an idle machine sleeping costs a third; =active
# spares that. Read once, when torch is loaded; a user's own value stays.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from shardkit.commands import stopping

if __name__ == "__main__":
    stopping.heed("trainer", at_once=True)  # torch takes seconds to load

from trainer.commands.cli import main

if __name__ == "__main__":
    main()
