"""From the rows of a table to labels by sample key: which files they name, and how several become one."""
