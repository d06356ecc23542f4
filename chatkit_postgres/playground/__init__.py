from chatkit_postgres.playground.embed import RENDERED_PER_MINUTE, embed_router
from chatkit_postgres.playground.router import playground_router

__all__ = ["RENDERED_PER_MINUTE", "embed_router", "playground_router"]
