"""A model that writes texts: the edited one, or one that the user names."""

from __future__ import annotations

import logging
import weakref
from functools import cached_property
from typing import Any

import torch

from .... import resources
from ....errors import HparamsError
from ....evaluation.batching import accepted, evaluating, input_device
from ....host.load_model import dtype_option
from ....utils.fingerprint import model_fingerprint, text_fingerprint, tokenizer_fingerprint

LOG = logging.getLogger(__name__)


class Writer:
    """Model and tokenizer; neither is changed, and no global random state is read or written.

    Fingerprints are taken once and kept: a writer is made anew for each call unless it was loaded here, by
    name.
    """

    def __init__(self, model, tok):
        self.model, self.tok = model, tok

    @property
    def translates(self) -> bool:
        """Encoder-decoder."""
        return bool(getattr(self.model.config, "is_encoder_decoder", False))

    @cached_property
    def weights(self) -> str:
        """Fingerprint of all weights and buffers, as they were when it was first asked for."""
        return model_fingerprint(self.model)

    @cached_property
    def configuration(self) -> str:
        """Fingerprint of what the model is, but for its weights."""
        return text_fingerprint([self.model.config.to_json_string(use_diff=False)])

    @cached_property
    def vocabulary(self) -> str:
        """Fingerprint of the tokenizer's vocabulary; how it cuts a text is seen from :meth:`ids`."""
        return tokenizer_fingerprint(self.tok, [])

    def ids(self, text: str, chat: bool = False) -> list[int]:
        """Token ids of an input, as the one user turn of a chat if ``chat`` is set and the tokenizer has a
        template."""
        if chat and self.chats:
            # no thinking aloud, where a template knows of it: the answer is a line
            text = self.tok.apply_chat_template(
                [{"role": "user", "content": text}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,
            )
            return self.tok(text, add_special_tokens=False)["input_ids"]
        return self.tok(text)["input_ids"]

    @property
    def chats(self) -> bool:
        """The tokenizer has a chat template."""
        return getattr(self.tok, "chat_template", None) is not None

    def beams(self, texts: list[str], each: int, max_new_tokens: int) -> list[str]:
        """The ``each`` best answers of an encoder-decoder to every text, by beam search; text-major."""
        found = []
        with evaluating(self.model):
            for text in texts:
                ids = torch.tensor([self.ids(text)], device=input_device(self.model))
                made = self.model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    num_beams=max(each, 4),
                    num_return_sequences=each,
                    do_sample=False,
                    max_new_tokens=max_new_tokens,
                )
                found += [self.tok.decode(row, skip_special_tokens=True) for row in made.tolist()]
        return found

    def sample(
        self,
        ids: list[int],
        n: int,
        max_new_tokens: int,
        seed: int,
        temperature: float,
        top_k: int,
        one_line: bool,
    ) -> list[str]:
        """n continuations of a causal model: the first greedy, the others drawn from the ``top_k`` best
        tokens by Gumbel noise.

        Args:
            ids: the input.
            seed: of the noise, drawn on the CPU: the same on every device.
            one_line: stop at the first line break behind some text.
        """
        generator, device, ends = (
            torch.Generator().manual_seed(seed),
            input_device(self.model),
            self._end_tokens(),
        )
        step, past = torch.tensor([ids] * n, device=device), None
        rows, going = [[] for _ in range(n)], [True] * n
        with evaluating(self.model):
            for _ in range(self._room(ids, max_new_tokens)):
                out = self.model(
                    **accepted(self.model, {"input_ids": step, "past_key_values": past, "logits_to_keep": 1}),
                    use_cache=True,
                )
                past = out.past_key_values
                best = out.logits[:, -1].topk(min(top_k, out.logits.shape[-1]))
                noise = -torch.log(
                    -torch.log(torch.rand(best.values.shape, generator=generator, dtype=torch.float64))
                )
                noise[0] = 0.0
                choice = (best.values.double().cpu() / temperature + noise).argmax(-1, keepdim=True)
                step = best.indices.gather(1, choice.to(best.indices.device)).to(device)
                for row, token in enumerate(step[:, 0].tolist()):
                    if going[row] and token in ends:
                        going[row] = False
                    elif going[row]:
                        rows[row].append(token)
                        going[row] = not (one_line and "\n" in self._text(rows[row]).lstrip())
                if not any(going):
                    break
        return [self._text(row) for row in rows]

    def _room(self, ids: list[int], wanted: int) -> int:
        """New tokens that the model has positions for."""
        room = (getattr(self.model.config, "max_position_embeddings", None) or len(ids) + wanted) - len(ids)
        if room < wanted:
            LOG.info(
                "%d tokens leave the writing model %d positions, %d were asked for",
                len(ids),
                max(room, 0),
                wanted,
            )
        return min(wanted, room)

    def _text(self, ids: list[int]) -> str:
        return self.tok.decode(ids, skip_special_tokens=True)

    def _end_tokens(self) -> set[int]:
        """End-of-text of the tokenizer, and of the model's generation config, which knows a chat's end of
        turn."""
        named = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
        ends = set(named if isinstance(named, (list, tuple)) else [named])
        return {end for end in ends | {self.tok.eos_token_id} if end is not None}


_LOADED: weakref.WeakKeyDictionary[torch.nn.Module, dict[tuple[str, str], Writer]] = (
    weakref.WeakKeyDictionary()
)
"""Models loaded by name live as long as the edited model for which they were: a sequence of edits loads them
once."""


def writer_of(given: Any, name: str, edited, tok, device: str | None = None) -> Writer:
    """The writer that a setting names.

    Args:
        given: None (the edited model), a name or folder, ``(model, tokenizer)``, or an object with ``.model``
            and ``.tokenizer``.
        name: of the setting, for errors.
        edited, tok: the edited model and its tokenizer.
        device: of a model given by name; None: that of the edited one.

    Raises:
        HparamsError: it is none of these, or cannot be loaded.
    """
    if given is None:
        return Writer(edited, tok)
    if isinstance(given, str):
        place = device or str(input_device(edited))
        loaded = _LOADED.setdefault(edited, {})
        if (given, place) not in loaded:
            loaded[given, place] = _load(given, name, place)
        return loaded[given, place]
    pair = (
        given
        if isinstance(given, (tuple, list))
        else (getattr(given, "model", None), getattr(given, "tokenizer", None))
    )
    if len(pair) != 2 or not isinstance(pair[0], torch.nn.Module) or not callable(pair[1]):
        raise HparamsError(
            f"field '{name}': must be a name, a folder, a pair (model, tokenizer) or a pipeline with both, got "
            f"{type(given).__name__}"
        )
    return Writer(*pair)


def _load(given: str, name: str, device: str) -> Writer:
    import transformers

    path = resources.model_path(given)
    LOG.info("loading %s for %s", path, name)
    try:
        config = transformers.AutoConfig.from_pretrained(path)
        auto = (
            transformers.AutoModelForSeq2SeqLM
            if config.is_encoder_decoder
            else transformers.AutoModelForCausalLM
        )
        model = auto.from_pretrained(path, **dtype_option("auto")).to(device).eval()
        return Writer(model, transformers.AutoTokenizer.from_pretrained(path))
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise HparamsError(f"field '{name}': {given!r} cannot be loaded: {error}") from error
