"""The demo and other laboratory tools. Never imported by production code."""
