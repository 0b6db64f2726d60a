"""A language model as the judge of answers, behind an endpoint that the user names.

The protocol of WILD ("The Mirage of Model Editing", Yang et al. 2025): the model answers freely, and a second
model, which knows the new object, grades the answer as right or wrong.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from ..errors import HostError
from ..utils.shown import shown

KEY = "OPENAI_API_KEY"
"""Environment variable of the key. Endpoints on one's own machine need none."""
THREADS, RETRIES, SECONDS = 8, 4, 60
RULES = (
    "You grade answers. You are given a question (often a text to be continued), the target answer and the "
    "answer of a language model. The answer is right if it states the whole target, in any wording or "
    "spelling, and nothing that contradicts it, such as another answer beside it. It is wrong if the target "
    "is missing or incomplete, if something contradicts it, or if it is only repeated over and over. Reply "
    "with one letter: A if the answer is right, B if it is wrong."
)


class LLMJudge:
    """Asks an OpenAI-compatible chat endpoint; the same question is asked once.

    Args:
        url: of the endpoint, as in ``https://api.openai.com/v1`` or ``http://127.0.0.1:8000/v1``.
        model: name of the judge there.

    Raises:
        HostError: the package ``openai`` is missing.
    """

    def __init__(self, url: str, model: str):
        try:
            from openai import OpenAI
        except ImportError:
            remedy = "pip install 'easyedit-neuron[judge]'"
            raise HostError(f"setting 'evaluation.judge': the package openai is missing: {remedy}") from None
        key = os.environ.get(KEY) or "none"
        self.url, self.model = url, model
        self._client = OpenAI(base_url=url, api_key=key, max_retries=RETRIES, timeout=SECONDS)
        self._grades: dict[tuple[str, str, str], float] = {}

    def check(self) -> None:
        """Ask for two grades that are plain, before anything is edited; ``HostError`` unless they are
        given."""
        grades = self.grade(["The capital of France is"] * 2, ["Paris"] * 2, ["Paris.", "a kind of cheese."])
        if grades != [1.0, 0.0]:
            problem = f"{self.model} at {self.url} grades a right and a wrong answer {grades}, not [1.0, 0.0]"
            raise HostError(f"setting 'evaluation.judge_model': {problem}; name another model")

    def grade(self, questions: Sequence[str], targets: Sequence[str], answers: Sequence[str]) -> list[float]:
        """1.0 for each answer that is right, else 0.0; an empty answer is wrong and not asked about.

        Raises:
            HostError: the endpoint cannot be reached, refuses, or replies with something else than a grade.
        """
        cases = list(zip(questions, targets, answers, strict=True))
        new = [case for case in dict.fromkeys(cases) if case not in self._grades]
        with ThreadPoolExecutor(THREADS) as pool:
            self._grades |= dict(zip(new, pool.map(self._ask, new)))
        return [self._grades[case] for case in cases]

    def _ask(self, case: tuple[str, str, str]) -> float:
        from openai import OpenAIError

        question, target, answer = case
        if not answer.strip():
            return 0.0
        text = f"Question: {question}\nTarget: {target}\nAnswer: {answer}"
        messages = [{"role": "system", "content": RULES}, {"role": "user", "content": text}]
        try:
            reply = self._client.chat.completions.create(
                model=self.model, messages=messages, temperature=0.0, max_tokens=5
            )
            content = (reply.choices[0].message.content or "").strip()
        except OpenAIError as problem:
            reason = f"{type(problem).__name__}: {problem}"
            remedy = f"the address, the model's name, and the key in the environment variable {KEY}"
            raise HostError(
                f"the judge {self.model} at {self.url} cannot be asked: {reason}; check {remedy}"
            ) from None
        letter = content[:1].upper()
        if letter not in "AB" or not letter or content[1:2].isalpha():
            raise HostError(f"the judge {self.model} at {self.url} replied {shown(content)}, and not A or B")
        return float(letter == "A")
