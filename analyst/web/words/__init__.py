"""Catalogues of the console's own words, one per language."""
