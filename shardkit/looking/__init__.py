"""Looking at a dataset in a program or a notebook: samples, facts, labels and pictures. Needs no GPU stack."""
