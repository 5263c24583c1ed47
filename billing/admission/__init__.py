"""Admission: may usage begin, and how long does the balance last? A pure decision with thin adapters around it."""
