"""A turn in a task of its own: its runner, its draft, its events and their readers."""
