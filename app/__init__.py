"""chatkit-postgres: the durable, multi-user backend for OpenAI's ChatKit."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("chatkit-postgres")
except PackageNotFoundError:  # the source tree was put on the path without being installed
    __version__ = "0+unknown"
