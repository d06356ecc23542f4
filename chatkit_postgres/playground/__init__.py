from chatkit_postgres.playground.embed import embed_router
from chatkit_postgres.playground.parts import Gate
from chatkit_postgres.playground.router import playground_router

__all__ = ["Gate", "embed_router", "playground_router"]
