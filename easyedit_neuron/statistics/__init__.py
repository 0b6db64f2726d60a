"""Statistics of keys: text source, covariance of all layers in one pass, null space, cache on disk."""

NAME_TEMPLATES = (
    *("{}", "I was reading about {}", "Tell me about {}", "What is {}", "My friend knows {}"),
    *("This is a story of {}", "We talked about {}", "In the news, {}", "It comes from {}"),
    *("They wrote a book on {}", "Everything about {}"),
)
"""Beginnings in which a name is read. Here, because hyperparameters name it and need no torch."""
