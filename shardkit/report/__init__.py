"""One look for all pages: templates, colours and plots; and the page about a dataset.

Every page is a single file without scripts or requests. Jinja2 escapes what comes from outside; matplotlib draws, and
its SVG stands in the page with the page's own colours and fonts, so that plots follow a dark screen as text does.

Nothing here is loaded before a page is made: plotting takes longer to load than most commands to run.
"""

from shardkit.report.numbers import number, percent, size
from shardkit.report.page import Tile, render
from shardkit.report.plots import Plot, save_png, svg
from shardkit.report.theme import colour

__all__ = ["Plot", "Tile", "colour", "number", "percent", "render", "save_png", "size", "svg"]
