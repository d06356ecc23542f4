"""What is kept of a server's answer, and what is said of a file that names servers: without any server."""

from pathlib import Path

import pytest
from mcp.types import CallToolResult, EmbeddedResource, ImageContent, TextContent, TextResourceContents

from chatkit_postgres.assistant import AssistantError, load_assistant
from chatkit_postgres.assistant.models import ModelOptions
from chatkit_postgres.assistant.tools.labels import readable
from chatkit_postgres.assistant.tools.mcp_file import McpError, McpServer, read_servers
from chatkit_postgres.assistant.tools.mcp_servers import bounded
from chatkit_postgres.db import Database
from chatkit_postgres.store import DatabaseStore


def test_of_an_answer_in_pieces_the_first_ones_are_kept() -> None:
    texts = [TextContent(type="text", text=letter * 60_000) for letter in "abc"]
    result = bounded(CallToolResult(content=[*texts], structured_content={"all": "x" * 200_000}))
    assert [block.text for block in result.content if isinstance(block, TextContent)] == [
        "a" * 60_000,
        "b" * 40_000,
        "[80000 characters left out]",
    ]
    assert result.structured_content is None


def test_pictures_are_bounded_all_together() -> None:
    pictures = [ImageContent(type="image", data="A" * 1_500_000, mime_type="image/png") for _ in range(30)]
    result = bounded(CallToolResult(content=[*pictures]))
    assert [block.type for block in result.content] == ["image", "image", "text"]


def test_what_is_text_to_the_model_counts_as_text() -> None:
    """The Agents SDK writes whatever is no picture out as JSON."""
    contents = TextResourceContents(uri="file:///a", text="x" * 90_000)
    resources = [EmbeddedResource(type="resource", resource=contents) for _ in range(50)]
    result = bounded(CallToolResult(content=[*resources]))
    assert [block.type for block in result.content] == ["resource", "text"]
    many = bounded(CallToolResult(content=[TextContent(type="text", text="x")] * 200_000))
    assert len(many.content) == 100_001


def test_an_assistant_that_cannot_have_the_tools_is_refused(tmp_path: Path) -> None:
    options = ModelOptions(mcp_file=tmp_path / "mcp.json")
    with pytest.raises(AssistantError, match="CHAT_MCP_FILE"):
        load_assistant("tests.support.assistants:Echo", options, DatabaseStore(Database("postgresql:///")))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "JSON"),
        ('{"mcpServers": {"a": {"url": "http://host:${PORT}/mcp"}}}', "the url is not valid"),
        ('{"mcpServers": {"a": {"url": "http://[::1/mcp"}}}', "the url is not valid"),
        ("[]", "it: "),
        ('{"mcpServers": {"a": {}}}', "give either a command or a url"),
        ('{"mcpServers": {"a": {"command": "x", "url": "http://h"}}}', "give either a command or a url"),
        (
            '{"mcpServers": {"a": {"url": "http://h", "headers": {"X-Key": "k…"}}}}',
            "X-Key cannot be sent: its character 2",
        ),
        (
            '{"mcpServers": {"a": {"url": "http://h", "headers": {"X-Key": "k\\n"}}}}',
            "X-Key cannot be sent: it begins or",
        ),
        ('{"mcpServers": {"a b": {"command": "x"}}}', "mcpServers.a b"),
        ('{"mcpServers": {"a": {"url": "ftp://h"}}}', "mcpServers.a.url"),
        ('{"mcpServers": {"a": {"comand": "x"}}}', "mcpServers.a.comand"),
        ('{"servers": {}}', "mcpServers"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, content: str, reason: str) -> None:
    file = tmp_path / "mcp.json"
    file.write_text(content)
    with pytest.raises(McpError) as refused:
        read_servers(file)
    assert reason in str(refused.value)
    with pytest.raises(McpError):
        read_servers(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://mcp.example.com/a?key=secret", "https://mcp.example.com"),
        ("http://user:secret@[::1]:8080/a", "http://[::1]:8080"),
    ],
)
def test_a_log_names_a_server_without_its_secrets(url: str, place: str) -> None:
    assert McpServer(url=url).place == place


def test_titles_are_for_people() -> None:
    assert readable("mcp_files__read_text") == "files: read text"
    assert readable("refund_order") == "Refund order"
