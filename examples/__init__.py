"""Assistants to start from. ``CHAT_ASSISTANT=examples.plain:build make run``"""
