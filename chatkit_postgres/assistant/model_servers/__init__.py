"""Talks to model servers over OpenAI's two APIs: sends, reads streams, and classifies failures."""
