"""Charging a card once per low-balance episode, and never because the system itself is broken (design, section 7)."""
