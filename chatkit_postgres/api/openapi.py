"""GET /openapi.json: the routes of an application as an OpenAPI 3.1 document."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Literal

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind
from starlette.responses import Response

from chatkit_postgres import __version__
from chatkit_postgres.api import schemas
from chatkit_postgres.api.described import ROUTES, Described, Kind, Parameter

PATH = "/openapi.json"
TITLE = "chatkit-postgres"
WITH_TOKEN = (401, 403, 422, 429, 503)
REFERENCE = "#/components/schemas/{model}"

Json = dict[str, Any]
Mode = Literal["validation", "serialization"]


def openapi_router(app: FastAPI) -> APIRouter:
    router = APIRouter()
    # Made at the first request: the schemas take a tenth of a second.
    content = cache(lambda: json.dumps(document_of(app)).encode())

    @router.get(PATH, include_in_schema=False)
    async def openapi() -> Response:
        return Response(content(), media_type="application/json")

    return router


def document_of(app: FastAPI) -> Json:
    """The description of the routes that this application has; the playground and its helpers are left out."""
    found = {key: ROUTES[key] for key in routes_of(app) if key in ROUTES}
    kinds = dict.fromkeys([*(kind for described in found.values() for kind in _kinds(described)), _PROBLEM])
    schema_of, definitions = _schemas(list(kinds))
    paths: dict[str, Json] = {}
    for (method, path), described in found.items():
        paths.setdefault(path, {})[method.lower()] = _operation(method, path, described, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": __version__},
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def routes_of(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Method and path of each."""
    # FastAPI lists the routes of included routers in its own document only.
    listed = get_openapi(title=TITLE, version=__version__, routes=app.routes)["paths"]
    for path, methods in listed.items():
        for method in methods:
            yield method.upper(), path


_SchemaKey = tuple[Mode, Kind]
_PROBLEM: _SchemaKey = ("serialization", schemas.Problem)


def _kinds(described: Described) -> Iterator[_SchemaKey]:
    for kind in (*described.answers.values(), *described.also.values()):
        if kind is not None:
            yield "serialization", kind
    for kind in described.bodies.values():
        if kind is not None:
            yield "validation", kind


class _Generator(GenerateJsonSchema):
    # A type variable of the SDK is the default of a field.
    ignored_warning_kinds: set[JsonSchemaWarningKind] = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - as pydantic declares it


def _schemas(kinds: list[_SchemaKey]) -> tuple[Mapping[_SchemaKey, Json], Json]:
    """The schema of each kind, and the definitions to which they refer."""
    inputs = [(number, mode, TypeAdapter(kind)) for number, (mode, kind) in enumerate(kinds)]
    made, common = TypeAdapter.json_schemas(inputs, ref_template=REFERENCE, schema_generator=_Generator)
    schema_of = {(mode, kind): made[number, mode] for number, (mode, kind) in enumerate(kinds)}
    return schema_of, common.get("$defs", {})


def _operation(method: str, path: str, described: Described, schema_of: Mapping[_SchemaKey, Json]) -> Json:
    problem = {"application/json": {"schema": schema_of[_PROBLEM]}}
    parameters = [*_path_parameters(path), *map(_parameter, described.parameters)]
    answers = {kind: _content(schema_of, "serialization", model) for kind, model in described.answers.items()}
    responses: Json = {str(described.status): {"description": "As asked.", "content": answers}}
    responses |= {str(status): {"description": text} for status, text in described.others.items()}
    responses |= {
        str(status): {
            "description": "Not now.",
            "content": {"application/json": _content(schema_of, "serialization", kind)},
        }
        for status, kind in described.also.items()
    }
    for status in sorted({*described.errors, *(WITH_TOKEN if described.has_token else ())}):
        responses[str(status)] = {"description": "Refused.", "content": problem}
    responses["default"] = {"description": "Any other error.", "content": problem}
    operation: Json = {
        "operationId": f"{method.lower()}{re.sub(r'[^a-zA-Z]+', '_', path)}".rstrip("_"),
        "summary": described.summary,
        "parameters": parameters,
        "responses": responses,
    }
    if described.description:
        operation["description"] = described.description
    if described.has_token:
        operation["security"] = [{"token": []}]
    if described.bodies:
        bodies = {kind: _content(schema_of, "validation", model, kind) for kind, model in described.bodies.items()}
        operation["requestBody"] = {"required": True, "content": bodies}
    return operation


def _content(schema_of: Mapping[_SchemaKey, Json], mode: Mode, kind: Kind, content_type: str = "") -> Json:
    if kind is not None:
        return {"schema": schema_of[mode, kind]}
    if content_type == "multipart/form-data":
        file = {"type": "object", "properties": {"file": {"type": "string", "contentEncoding": "binary"}}}
        return {"schema": file | {"required": ["file"]}}
    return {}


def _path_parameters(path: str) -> list[Json]:
    names = re.findall(r"\{(\w+)\}", path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _parameter(parameter: Parameter) -> Json:
    described: Json = {"description": parameter.description} if parameter.description else {}
    return described | {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.is_required,
        "schema": dict(parameter.schema),
    }
