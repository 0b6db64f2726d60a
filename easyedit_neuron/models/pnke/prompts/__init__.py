"""P_sem, the prompts that ask for the same fact in other words (PNKE, Appendix B.1 and Algorithm 1).

There are four sources: rephrasings that come with the data, paraphrases written by a model, back-translation,
and context prefixes. Every text holds the subject and ends where the object would follow, so that its last
token can be read like the prompt's.
"""

from .sources import SemanticPrompts, semantic_prompts

__all__ = ["SemanticPrompts", "semantic_prompts"]
