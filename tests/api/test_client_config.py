"""What the server tells a front end about itself."""

from typing import Any

import httpx2
import pytest
from agents import Agent
from sqlalchemy import URL

from chatkit_postgres.assistant import AgentAssistant
from chatkit_postgres.auth.tokens import mint
from chatkit_postgres.main import create_app
from chatkit_postgres.settings import load_settings

SECRET = "s" * 48


async def config_of(
    monkeypatch: pytest.MonkeyPatch, database: URL, assistant: object = None, **settings: str
) -> dict[str, Any]:
    own = {"DATABASE_URL": database.render_as_string(hide_password=False), "CHAT_JWT_SECRET": SECRET}
    for name, value in (own | settings).items():
        monkeypatch.setenv(name, value)
    app = create_app(load_settings(), assistant=assistant)
    app.state.parts.started.set()
    headers = {"Authorization": f"Bearer {mint(SECRET, 'alice', seconds=600)}"}
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/api/client-config")).status_code == 401
        response = await client.get("/api/client-config", headers=headers)
    await app.state.parts.store.close()
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def test_it_says_what_the_settings_allow(monkeypatch: pytest.MonkeyPatch, database_url: URL) -> None:
    config = await config_of(
        monkeypatch,
        database_url,
        OPENAI_API_KEY="none",
        CHAT_MODEL="large",
        CHAT_ALLOWED_MODELS="small,large",
        CHAT_ALLOWED_TOOLS="current_time",
        CHAT_ATTACHMENT_TYPES="image/*,application/pdf",
        CHAT_MAX_ATTACHMENT_BYTES="1000",
        CHAT_MAX_ATTACHMENTS_PER_MESSAGE="3",
        CHAT_TRANSCRIPTION_MODEL="hears",
        CHAT_ASSISTANT_NAME="Support",
    )
    assert config == {
        "name": "Support",
        "composer": {
            "attachments": {
                "enabled": True,
                "maxSize": 1000,
                "maxCount": 3,
                "accept": {"image/*": [], "application/pdf": [".pdf"]},
            },
            "models": [
                {"id": "small", "label": "small", "default": False},
                {"id": "large", "label": "large", "default": True},
            ],
            "tools": [{"id": "current_time", "label": "Current time", "icon": "settings-slider"}],
            "dictation": {"enabled": True},
        },
        "startScreen": {"prompts": []},
    }


async def test_an_agent_brings_its_name_and_an_assistant_its_prompts(
    monkeypatch: pytest.MonkeyPatch, database_url: URL
) -> None:
    assistant = AgentAssistant(Agent(name="Harbour"))
    assistant.own_tool_choices = frozenset({"tide_table"})
    assistant.start_prompts = {"When is high tide?": "a table"}
    config = await config_of(monkeypatch, database_url, assistant, CHAT_ATTACHMENT_TYPES="none")
    assert config["name"] == "Harbour"
    assert config["startScreen"] == {"prompts": [{"label": "When is high tide?", "prompt": "When is high tide?"}]}
    assert config["composer"]["attachments"]["enabled"] is False
    assert config["composer"]["models"] == []
    assert [tool["id"] for tool in config["composer"]["tools"]] == ["tide_table"]
