"""`billing bench`: how fast the two consumers are, measured on real servers of their own."""
