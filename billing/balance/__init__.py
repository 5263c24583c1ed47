"""In-flight books: live balances and holds in Redis/Valkey, one function call per partition and batch."""
