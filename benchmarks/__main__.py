"""`python -m benchmarks QUESTION [options]`: run one benchmark, print its table, write its figures and plot."""

import sys

from cyclopts import App

from benchmarks import report

app = App(
    name="benchmarks",
    help="Where the time goes: one command per question. Figures and plots go to benchmarks/results/; report makes a"
    " page of them.",
)
for name, module in report.questions().items():
    app.command(module.run, name=name)
app.command(report.run, name="report")


if __name__ == "__main__":
    sys.exit(app(result_action="return_value"))
