"""Dead letters: what they are worth, publishing them again, giving them up. Stored by the sinks of the ledger (R9)."""
