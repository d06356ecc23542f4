"""The tools of agents that are not functions of the agent's own: MCP servers, client tools, search."""
