"""One file per question about speed: a ratio measured in one run on a described machine, as JSON in `results/`."""
