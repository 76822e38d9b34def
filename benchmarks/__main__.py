"""`python -m benchmarks QUESTION [options]`: run one benchmark, print its table, write its figures as JSON."""

import sys

from cyclopts import App

from benchmarks import build

app = App(name="benchmarks", help="Where the time goes: one command per question. Figures go to benchmarks/results/.")
app.command(build.run, name="build")


if __name__ == "__main__":
    sys.exit(app(result_action="return_value"))
