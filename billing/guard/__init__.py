"""Health of the balance store: is it a healthy primary, configured and filled as expected? Gates every charge."""
