"""Tariffs, effective-dated plan assignments and the price of a session. Pure."""
