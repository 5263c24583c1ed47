"""Post-flight books: settled usage and the double-entry ledger in PostgreSQL."""
