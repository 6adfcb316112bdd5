"""The server behind `univg serve`, and the page of `univg web`.

A request passes through these in turn: `access` (may it be asked), `requests` (what does it ask), `images` (in
`decoders`, processes of their own), `batching` (answered together with others), `replies` (in OpenAI's words).
`completions` leads it through them, `app` has the routes, `server` the process.
"""
