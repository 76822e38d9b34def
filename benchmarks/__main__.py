"""`python -m benchmarks QUESTION [options]`: run one benchmark, print its table, write its figures as JSON."""

import sys

from cyclopts import App

from benchmarks import build, loader

app = App(name="benchmarks", help="Where the time goes: one command per question. Figures go to benchmarks/results/.")
app.command(build.run, name="build")
app.command(loader.run, name="loader")


if __name__ == "__main__":
    sys.exit(app(result_action="return_value"))
