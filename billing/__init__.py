"""Prepaid billing pipeline. Start reading at `consumers/` and follow the imports down."""
