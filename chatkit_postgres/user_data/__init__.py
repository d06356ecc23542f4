"""All data of a user: exported, and imported again."""
