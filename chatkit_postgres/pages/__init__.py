from chatkit_postgres.pages.embed import embed_router
from chatkit_postgres.pages.parts import Gate
from chatkit_postgres.pages.playground import playground_router

__all__ = ["Gate", "embed_router", "playground_router"]
