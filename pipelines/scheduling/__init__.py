"""Which step runs next, from the client."""
