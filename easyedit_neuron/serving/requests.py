"""The bodies of requests: OpenAI's fields as far as they are supported, and those of an edit."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_PROMPTS, MOST_STOPS = 64, 4
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "logprobs": (False,),
    "logit_bias": ({},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "store": (False,),
}
"""Fields that are accepted with a value that changes nothing; with any other they are refused."""

Text = Annotated[str, Field(min_length=1)]
Prompts = Annotated[list[Text], Field(min_length=1, max_length=MOST_PROMPTS)]


class Body(BaseModel):
    """A body without fields that the server does not know."""

    model_config = ConfigDict(extra="forbid", strict=True)


class StreamOptions(Body):
    include_usage: bool = False


class SamplingFields(Body):
    """What completions and chats share."""

    model: str
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    stop: Text | Annotated[list[Text], Field(max_length=MOST_STOPS)] = []
    seed: int | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    user: str | None = None

    @model_validator(mode="before")
    @classmethod
    def drop_neutral(cls, content: Any) -> Any:
        """Leave out fields that are null, and those whose value changes nothing."""
        if not isinstance(content, dict):
            return content
        return {
            name: value
            for name, value in content.items()
            if value is not None and not any(value == neutral for neutral in NEUTRAL.get(name, ()))
        }

    @property
    def stop_texts(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class CompletionBody(SamplingFields):
    """Of ``POST /v1/completions``."""

    prompt: Text | Prompts
    max_tokens: Annotated[int, Field(ge=1)] = 16

    @property
    def prompts(self) -> list[str]:
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


class TextPart(Body):
    type: Literal["text"]
    text: str


class Message(Body):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None

    @property
    def plain(self) -> dict[str, str]:
        """Role and text, as chat templates read them."""
        content = self.content
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatBody(SamplingFields):
    """Of ``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None


class EditBody(Body):
    """Of ``POST /edits``: the fact, and prompts to ask before and after it."""

    prompt: str
    subject: str
    target_new: str
    rephrase: Text | Prompts = []
    neighbours: Text | Prompts = []

    def texts(self, name: str) -> list[str]:
        """The prompts of a field that may be one or several."""
        value = getattr(self, name)
        return [value] if isinstance(value, str) else list(value)
