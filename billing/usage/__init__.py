"""What a usage record means: decoding, validation, pricing, and the one verdict both consumers share. Pure."""
