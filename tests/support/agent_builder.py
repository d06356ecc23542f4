"""A workflow in the form in which Agent Builder exports it."""

# A classifier, a branch for each class, a state, parallel nodes.
EXPORT = """
import asyncio
from types import SimpleNamespace

from openai import AsyncOpenAI
from pydantic import BaseModel

from agents import Agent, ModelSettings, RunConfig, RunContextWrapper, Runner, TResponseInputItem, function_tool, trace

client = AsyncOpenAI(api_key="none")
ctx = SimpleNamespace(guardrail_llm=client)


@function_tool
def look_up(order: str) -> str:
  return f"order {order} is on its way"


class ClassifySchema(BaseModel):
  category: str


classify = Agent(
  name="Classify",
  instructions="Classify.",
  model="gpt-4.1",
  output_type=ClassifySchema,
  model_settings=ModelSettings(temperature=0, store=True),
)


class SupportContext:
  def __init__(self, workflow_input_as_text: str) -> None:
    self.workflow_input_as_text = workflow_input_as_text


def support_instructions(run_context: RunContextWrapper[SupportContext], _agent: Agent[SupportContext]):
  return f"You are support, asked: {run_context.context.workflow_input_as_text}"


support = Agent(name="Support", instructions=support_instructions, model="gpt-4.1", tools=[look_up])
summary = Agent(name="Summary", instructions="Summarise.", model="gpt-4.1", output_type=ClassifySchema)
sales = Agent(name="Sales", instructions="Sell.", model="gpt-4.1")


class WorkflowInput(BaseModel):
  input_as_text: str


# Main code entrypoint
async def run_workflow(workflow_input: WorkflowInput):
  with trace("Shop"):
    state = {
      "turns": 0,
      "last": None,
      "path": [

      ]
    }
    workflow = workflow_input.model_dump()
    conversation_history: list[TResponseInputItem] = [
      {
        "role": "user",
        "content": [
          {
            "type": "input_text",
            "text": workflow["input_as_text"]
          }
        ]
      }
    ]
    state["turns"] = state["turns"] + 1
    classify_result_temp = await Runner.run(
      classify,
      input=[
        *conversation_history,
        {"role": "user", "content": [{"type": "input_text", "text": f"{workflow['input_as_text']}"}]}
      ],
      run_config=RunConfig(trace_metadata={"__trace_source__": "agent-builder", "workflow_id": "wf_1"})
    )
    conversation_history.extend([item.to_input_item() for item in classify_result_temp.new_items])
    classify_result = {
      "output_text": classify_result_temp.final_output.json(),
      "output_parsed": classify_result_temp.final_output.model_dump()
    }
    category = classify_result["output_parsed"]["category"]
    state["path"].append(category[:20])
    if "explode" in category:
      raise ValueError("the workflow failed")
    if "unkeepable" in category:
      state["last"] = object()
    if "survive" in category:
      try:
        await Runner.run(sales, input=[*conversation_history])
      except Exception:
        return {"output_text": "Sorry."}
    if "as text" in category:
      one = await Runner.run(sales, workflow["input_as_text"])
      two = await Runner.run(sales, one.to_input_list())
      return {"output_text": two.final_output_as(str)}
    if "parallel" in category:
      one, two = await asyncio.gather(
        Runner.run(sales, input=[*conversation_history]),
        Runner.run(support, input=[*conversation_history], context=SupportContext(workflow_input_as_text="p")),
      )
      return {"output_text": one.final_output_as(str) + two.final_output_as(str)}
    if "only json" in category:
      return classify_result
    if "silent" in category:
      return None
    support_result_temp = await Runner.run(
      support,
      input=[
        *conversation_history
      ],
      run_config=RunConfig(trace_metadata={"__trace_source__": "agent-builder", "workflow_id": "wf_1"}),
      context=SupportContext(workflow_input_as_text=f"turn {state['turns']}, after {state['path']}")
    )
    conversation_history.extend([item.to_input_item() for item in support_result_temp.new_items])
    support_result = {
      "output_text": support_result_temp.final_output_as(str)
    }
    return support_result
"""
