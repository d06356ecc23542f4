"""Assistants in the shapes of the official samples: each as a ChatKitServer, as people have it, and as an
AgentAssistant. Nothing in them knows how it is tested."""
