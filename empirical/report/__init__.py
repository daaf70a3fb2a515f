"""The page of results: plots, tables, galleries."""
