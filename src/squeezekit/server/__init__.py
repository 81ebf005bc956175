"""A classifier behind HTTP."""
