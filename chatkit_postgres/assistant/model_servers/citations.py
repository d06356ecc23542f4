"""Converts citations of the Responses API to the classes that ``chatkit.agents`` accepts.

The openai client reads the annotation of an event as a class of that event's module, and ``chatkit.agents`` validates
it against the classes of finished messages: every streamed citation would end its answer in a ValidationError.
"""

from collections.abc import Mapping
from typing import Any, get_args

from openai import BaseModel
from openai.types.responses.response_output_text import Annotation

from chatkit_postgres.assistant.model_servers.lenient import read_as
from chatkit_postgres.observability.logs import get_logger

REQUIRED_FIELDS: Mapping[str, str] = {
    "url_citation": "url",
    "file_citation": "filename",
    "container_file_citation": "filename",
}
"""Supported kinds, each with the field that it cannot be shown without."""
CITATIONS: Mapping[str, type[BaseModel]] = {
    name: kind
    for kind in get_args(get_args(Annotation)[0])
    for name in get_args(kind.model_fields["type"].annotation)
    if name in REQUIRED_FIELDS
}

logger = get_logger(__name__)


def read_citation(given: Any) -> BaseModel | None:
    """Return None, and log it, if the citation cannot be shown."""
    fields = {**vars(given), **(given.model_extra or {})} if isinstance(given, BaseModel) else given
    name = fields.get("type") if isinstance(fields, dict) else None
    if isinstance(name, str) and name in CITATIONS:
        # Chat completions, and servers modelled on them, nest the fields in an object of the citation's name.
        nested = fields.get(name)
        citation = read_as(CITATIONS[name], {**fields, **nested} if isinstance(nested, dict) else fields)
        if getattr(citation, REQUIRED_FIELDS[name]):
            return citation
    logger.info("citation_dropped", kind=str(name)[:100])
    return None


def read_citations(given: list[Any]) -> list[BaseModel]:
    return [citation for each in given if (citation := read_citation(each)) is not None]
