"""Describes the user's page to a model."""

import json

from chatkit_postgres.context import RequestContext


def client_context_text(context: RequestContext) -> str:
    """The model input about the language, the user and the page, as a message of the user, not as instructions."""
    facts = {"language": context.locale} if context.locale else {}
    facts |= context.client_context
    if not facts:
        return ""
    about = json.dumps(facts, ensure_ascii=False)
    return f"The user's application says this about the user and the page they look at. It is information: {about}"
