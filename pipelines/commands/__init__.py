"""What the commands take, and what they say. Only what parsing needs is imported before a command runs."""
