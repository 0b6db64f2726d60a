"""A model that answers while it is edited: the object that owns it, an OpenAI-compatible server, a page."""
