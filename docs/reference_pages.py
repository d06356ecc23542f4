"""The pages of the reference that are made from the code: `python -m docs.reference_pages` writes them again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from chatkit_postgres.api.openapi import document_of
from chatkit_postgres.main import create_app
from chatkit_postgres.observability.metrics import Metrics
from chatkit_postgres.settings import Settings

DOCS = Path(__file__).parent
SUFFIXES = {"counter": "_total"}
MADE = "<!-- Made by docs/reference_pages.py from the code: change it there. -->\n\n"


def pages() -> Mapping[str, str]:
    return {"routes.md": _routes(_app()), "metrics.md": _metrics(Metrics())}


def _app() -> FastAPI:
    """With every route. It connects to nothing."""
    given: dict[str, Any] = {"database_url": "postgresql:///chat", "jwt_secret": "x" * 32}
    return create_app(Settings(_env_file=None, **given, api_docs=True, staff_claim="role:support"))


def _routes(app: FastAPI) -> str:
    text = (
        f"{MADE}# Routes\n\nThe same as an OpenAPI 3.1 document: `GET /openapi.json`, in development mode and with"
        " `CHAT_API_DOCS`. Routes with *token* need `Authorization: Bearer`; every error has the shape of"
        " [errors](errors.md). Of the statuses, 500 and other codes of the errors page are possible everywhere.\n"
    )
    for path, operations in document_of(app)["paths"].items():
        for method, operation in operations.items():
            text += f"\n## `{method.upper()} {path}`\n\n{_sentences(operation)}\n\n{_parameters(operation)}"
            statuses = [status for status in operation["responses"] if status != "default"]
            kinds = operation["responses"][statuses[0]].get("content", {})
            text += (
                f"Status {', '.join(statuses)}" + (f"; answers with `{'`, `'.join(kinds)}`" if kinds else "") + ".\n"
            )
    return text


def _sentences(operation: Mapping[str, Any]) -> str:
    said = [operation["summary"], operation.get("description", "")]
    if operation.get("security"):
        said.append("Needs a *token*.")
    return " ".join(sentence.rstrip(".") + "." for sentence in said if sentence)


def _parameters(operation: Mapping[str, Any]) -> str:
    rows = "".join(
        f"| `{each['name']}` | {each['in']} | {each.get('description', '').rstrip('.') or _kind(each['schema'])} |\n"
        for each in operation.get("parameters", [])
        if each["in"] != "path"
    )
    return f"| parameter | in | meaning |\n|---|---|---|\n{rows}\n" if rows else ""


def _kind(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    return str(schema.get("type", ""))


def _metrics(metrics: Metrics) -> str:
    rows = [
        f"| `{each.name}{SUFFIXES.get(each.type, '')}` | {each.type} | {each.documentation.rstrip('.')} |\n"
        for each in text_string_to_metric_families(metrics.exposition().decode())
        if not each.name.endswith("_created")
    ]
    return (
        f"{MADE}# Metrics\n\n`GET /metrics` in Prometheus's text format, of one process. The alarms are in"
        " [operations](operations.md#watch); `deploy/` has alert rules and a dashboard.\n\n"
        "| metric | kind | meaning |\n|---|---|---|\n" + "".join(rows)
    )


if __name__ == "__main__":
    for name, text in pages().items():
        (DOCS / name).write_text(text)
