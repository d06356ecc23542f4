"""The application for plain uvicorn: ``uvicorn --factory app.main:create_app``.

Settings come from the environment, ``.env`` and ``[tool.chatkit-postgres]`` in ``pyproject.toml``, which names the
agent of ``app/agent.py``.
"""

from chatkit_postgres import create_app

__all__ = ["create_app"]
