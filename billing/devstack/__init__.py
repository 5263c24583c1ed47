"""Kafka, Valkey and PostgreSQL for development and tests, without Java or a container engine."""
