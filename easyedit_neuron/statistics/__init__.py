"""Statistics of keys: text source, covariance of all layers in one pass, null space, cache on disk."""

NAME_TEMPLATES = (
    *("{}", "I was reading about {}", "Tell me about {}", "What is {}", "My friend knows {}"),
    *("This is a story of {}", "We talked about {}", "In the news, {}", "It comes from {}"),
    *("They wrote a book on {}", "Everything about {}", "If you ask about {}", "A question about {}"),
    *("You can read in the newspaper that {}", "In school we learned that {}", "Many people think of {}"),
    *("My friend told me yesterday that {}", "Which of these belongs to {}", "She had never heard of {}"),
    *("As everybody knows, {}", "The story begins with {}", "He wrote a long letter about {}"),
    "We talked for hours about {}",
)
"""Beginnings in which a name is read. Here, because hyperparameters name it and need no torch."""
