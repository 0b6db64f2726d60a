"""P_sem, the prompts that ask for the same fact in other words (PNKE, Appendix B.1 and Algorithm 1).

Four sources: rephrasings that come with the data, paraphrases written by a model, back-translation, context
prefixes. Every text holds the subject and ends where the object would follow, so that its last token can be
read like the prompt's.
"""

from .collect import SemanticPrompts, semantic_prompts
from .settings import SOURCES, PromptSettings

__all__ = ["SOURCES", "PromptSettings", "SemanticPrompts", "semantic_prompts"]
