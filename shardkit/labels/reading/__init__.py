"""From a file that holds a table to its rows: columns, cells, lists, boxes."""
