"""The cheap answer of an evening: frozen features, k nearest neighbours and logistic regression, and few labels."""
