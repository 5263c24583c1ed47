"""Moving records from the log into a sink that carries its own position (docs/architecture.md, "The sink protocol")."""
