"""The server behind `univg serve`: requests read and bounded, answered in batches, told in OpenAI's words."""
