"""Makes a model's input from a thread: messages, files, calls of tools, within what servers accept."""
