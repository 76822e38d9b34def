"""What a model looks at, a module a method, and how well that fits boxes of the labels, by two published protocols."""
