"""Brings conversations of OpenAI's hosted ChatKit along: from its API or a saved dump, to the tables here."""
