"""Pools as models: an OpenAI-compatible server whose completions are runs (``podium serve``).

=============  ==================================================================================
module         has
=============  ==================================================================================
`chat`         a request as a task: what is honoured, refused, ignored
`completions`  what came of a run, in OpenAI's shapes
`problems`     errors, as OpenAI's clients understand them
`models`       which pool is which model
`runs`         a request's run: begun, watched, cancelled when nobody waits for it
`wire`         tokens, limits, and who has hung up
`app`          the routes
`server`       the socket, and a graceful end
`mcp`          the same as an MCP server: `ask`, `runs`, `show`
`a2a`          the same as an A2A agent
`offered`      which of the two are there
=============  ==================================================================================

The first five know nothing of HTTP's machinery; `wire`, `app` and `server` need the packages of
``podium[serve]``, so nothing is imported here.
"""
