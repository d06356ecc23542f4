"""Reads the file of MCP servers."""

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from chatkit_postgres.text import header_fault
from chatkit_postgres.validation import first_problem


class McpError(Exception):
    """The file of servers cannot be used; the message says why."""


class McpServer(BaseModel):
    """An entry of the usual ``mcpServers`` file: a program to start, or a URL."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["stdio", "http", "streamable-http"] | None = None
    """Accepted because other programs write it, but not used: ``command`` or ``url`` decides."""
    command: str | None = None
    args: list[str] = Field(default_factory=list)
    env: dict[str, str] = Field(default_factory=dict)
    cwd: Path | None = None
    url: str | None = Field(None, pattern=r"^https?://")
    headers: dict[str, str] = Field(default_factory=dict)
    require_approval: Literal["always", "never"] | list[str] | dict[str, Literal["always", "never"]] = "never"
    """Which tools ask the user before they run: all, none, those in the list, or as the object says for each."""

    @model_validator(mode="after")
    def _one_of_two(self) -> "McpServer":
        if (self.command is None) == (self.url is None):
            raise ValueError("give either a command or a url")
        if self.url is not None:
            try:
                _ = urlsplit(self.url).port
            except ValueError as error:
                raise ValueError(f"the url is not valid: {error}") from None
        for name, value in self.headers.items():
            if (fault := header_fault(value)) is not None:
                raise ValueError(f"the header {name} cannot be sent: {fault}")
        return self

    @property
    def approval_rules(self) -> Any:
        """As the Agents SDK takes them."""
        rules = self.require_approval
        return dict.fromkeys(rules, "always") if isinstance(rules, list) else rules

    @property
    def place(self) -> str:
        """The program or the host, for a log; without arguments and path, which may be secret."""
        if self.command is not None:
            return self.command
        url = urlsplit(self.url or "")
        return f"{url.scheme}://{url.netloc.rpartition('@')[2]}"


class McpFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    mcpServers: dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,32}$")], McpServer]  # noqa: N815 - as others write it


def read_servers(file: Path) -> dict[str, McpServer]:
    """Raises McpError."""
    try:
        return dict(McpFile.model_validate_json(file.read_bytes()).mcpServers)
    except OSError as error:
        raise McpError(f"{file} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        problem = first_problem(error)
        raise McpError(f"{file}: {problem.path() or 'it'}: {problem.message}") from None
