"""Wire contracts. JSON Schema and AsyncAPI beside them are generated from these Structs."""
