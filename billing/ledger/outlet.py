"""The relay's publisher over Kafka."""

from __future__ import annotations

from billing.ledger.outbox import Message
from billing.stream.publisher import Outgoing, Publisher


class KafkaOutlet:
    """`billing.ledger.outbox.Publisher` over `billing.stream.publisher.Publisher`."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def publish(self, messages: list[Message]) -> None:
        """Raises what the publisher raises."""
        await self._publisher.publish(
            Outgoing(message.topic, message.value, message.key, message.headers, message.partition)
            for message in messages
        )
