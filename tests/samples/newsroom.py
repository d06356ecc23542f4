"""Three agents, one of which is chosen by the tool that a message demands; the page's article comes in a header."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from agents import Agent, RunContextWrapper, Runner, function_tool
from chatkit.agents import AgentContext, ThreadItemConverter, stream_agent_response
from chatkit.server import ChatKitServer
from chatkit.types import (
    FeedbackKind,
    StreamOptions,
    ThreadItem,
    ThreadMetadata,
    ThreadStreamEvent,
    UserMessageItem,
)

from chatkit_postgres import AgentAssistant, RequestContext

ARTICLE = "x-article-id"


class NewsContext(AgentContext[RequestContext]):
    article: str = "none"


@function_tool
async def read_article(ctx: RunContextWrapper[NewsContext]) -> str:
    """The article that the user is looking at."""
    return f"Article {ctx.context.article} for {ctx.context.request_context.user_id}"


def _agent(name: str) -> Agent[NewsContext]:
    return Agent[NewsContext](name=name, instructions=f"You are {name}.", tools=[read_article])


AGENTS = {"events": _agent("Events"), "puzzle": _agent("Puzzle")}
NEWS = _agent("News")


def chosen_by(message: UserMessageItem | None) -> Agent[NewsContext]:
    choice = message.inference_options.tool_choice if message is not None else None
    return AGENTS.get(choice.id, NEWS) if choice is not None else NEWS


class NewsServer(ChatKitServer[Any]):
    """Reads its header as OpenAI's sample does, writes feedback down, and cannot be stopped by the client."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.feedback: list[tuple[str, str]] = []

    async def respond(
        self, thread: ThreadMetadata, input_user_message: UserMessageItem | None, context: Any
    ) -> AsyncIterator[ThreadStreamEvent]:
        page = await self.store.load_thread_items(thread.id, None, 20, "desc", context)
        asked = await ThreadItemConverter().to_agent_input(list(reversed(page.data)))
        article = context["request"].headers.get("X-Article-Id", "none")
        running = NewsContext(thread=thread, store=self.store, request_context=context, article=article)
        result = Runner.run_streamed(chosen_by(input_user_message), asked, context=running)
        async for event in stream_agent_response(running, result):
            yield event

    def get_stream_options(self, thread: ThreadMetadata, context: Any) -> StreamOptions:
        return StreamOptions(allow_cancel=False)

    async def add_feedback(self, thread_id: str, item_ids: list[str], feedback: FeedbackKind, context: Any) -> None:
        self.feedback += [(item_id, feedback) for item_id in item_ids]
        thread = await self.store.load_thread(thread_id, context)
        thread.metadata = {**thread.metadata, "feedback": [*map(list, self.feedback)]}
        await self.store.save_thread(thread, context)


class NewsAssistant(AgentAssistant):
    own_tool_choices = frozenset(AGENTS)

    def __init__(self) -> None:
        super().__init__(NEWS)

    async def agent(self, history: Sequence[ThreadItem], context: AgentContext[RequestContext]) -> Agent[NewsContext]:
        newest = history[-1]
        return chosen_by(newest if isinstance(newest, UserMessageItem) else None)

    async def agent_context(self, context: AgentContext[RequestContext]) -> NewsContext:
        return NewsContext(
            thread=context.thread,
            store=context.store,
            request_context=context.request_context,
            article=context.request_context.headers.get("X-Article-Id", "none"),
        )

    def stream_options(self, thread: ThreadMetadata, context: RequestContext) -> StreamOptions:
        return StreamOptions(allow_cancel=False)
