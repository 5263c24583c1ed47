"""Comparing the two sets of books, and rebuilding the balance store from the ledger and the log."""
