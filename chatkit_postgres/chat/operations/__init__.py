"""The operations of the protocol that need more than one call of the store."""
