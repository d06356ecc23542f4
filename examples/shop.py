"""Tools, one with an approval, a second agent, a widget, and mentions. ``CHAT_ASSISTANT=examples.shop:build make run``

Orders belong to users: every tool and every action looks up the orders of the user whom the token names, and never
trusts the model or the browser about the user.
"""

from typing import Any

from agents import Agent, RunContextWrapper, function_tool
from chatkit.agents import AgentContext
from chatkit.types import UserMessageTagContent, WidgetItem
from chatkit.widgets import DynamicWidgetRoot
from pydantic import BaseModel

from chatkit_postgres import AgentAssistant, RequestContext, action

Context = AgentContext[RequestContext]

# In place of your database: states by user and order.
_ORDERS: dict[str, dict[int, str]] = {}


def orders_of(user_id: str) -> dict[int, str]:
    return _ORDERS.setdefault(user_id, {7: "on its way", 8: "delivered"})


def order_card(order: int, state: str) -> DynamicWidgetRoot:
    cancel = {"type": "order.cancel", "payload": {"order": order}}
    parts: list[dict[str, Any]] = [
        {"type": "Title", "value": f"Order {order}"},
        {"type": "Badge", "label": state, "color": "success" if state == "delivered" else "info"},
    ]
    if state == "on its way":
        parts.append({"type": "Button", "label": "Cancel", "onClickAction": cancel})
    return DynamicWidgetRoot.model_validate({"type": "Card", "children": parts})


@function_tool
async def list_orders(ctx: RunContextWrapper[Context]) -> str:
    """The user's orders and their states."""
    orders = orders_of(ctx.context.request_context.user_id)
    return "; ".join(f"{number}: {state}" for number, state in orders.items())


@function_tool
async def show_order(ctx: RunContextWrapper[Context], order: int) -> str:
    """Show one of the user's orders as a card."""
    state = orders_of(ctx.context.request_context.user_id).get(order)
    if state is None:
        return "There is no such order."
    await ctx.context.stream_widget(order_card(order, state), copy_text=f"Order {order}: {state}")
    return "shown"


@function_tool(needs_approval=True)
async def refund_order(ctx: RunContextWrapper[Context], order: int) -> str:
    """Refund one of the user's orders. The user is asked first, by a card with two buttons."""
    orders = orders_of(ctx.context.request_context.user_id)
    if order not in orders:
        return "There is no such order."
    orders[order] = "refunded"
    return f"Order {order} is refunded."


class Cancellation(BaseModel):
    order: int


@action("order.cancel", Cancellation)
async def cancel(payload: Cancellation, _sender: WidgetItem | None, context: Context) -> DynamicWidgetRoot | None:
    orders = orders_of(context.request_context.user_id)
    if orders.get(payload.order) == "on its way":
        orders[payload.order] = "cancelled"
    return order_card(payload.order, orders[payload.order]) if payload.order in orders else None


class Shop(AgentAssistant):
    async def resolve_tag(self, tag: UserMessageTagContent, context: Context) -> str:
        """What the model receives for a mention, such as ``order-7``: our state, not the one that the page sent."""
        number = tag.id.removeprefix("order-")
        state = orders_of(context.request_context.user_id).get(int(number)) if number.isdecimal() else None
        return f"the user's order {number}, which is {state}" if state is not None else "an order that does not exist"


def build() -> AgentAssistant:
    returns: Agent[Context] = Agent(
        name="Returns",
        handoff_description="Knows how to send things back.",
        instructions="Explain how to return an order: within 30 days, with the label from the parcel.",
    )
    front: Agent[Context] = Agent(
        name="Shop",
        instructions="Help with orders. Show an order as a card. Hand questions about returns over.",
        tools=[list_orders, show_order, refund_order],
        handoffs=[returns],
    )
    assistant = Shop(front, actions=[cancel])
    assistant.start_prompts = {
        "Show order 7": "a card with a button",
        "List orders": "what a tool knows of this user",
        "Refund order 8": "a tool that needs your approval",
        "How do returns work?": "a second agent",
    }
    return assistant
