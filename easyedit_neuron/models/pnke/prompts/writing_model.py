"""A model that writes texts: the edited one, or one that the user names."""

import logging
from dataclasses import dataclass
from functools import cached_property

import torch

from .... import resources
from ....arch.load_model import dtype_option
from ....arch.tokens import token_ids
from ....edits.session import ModelSession
from ....errors import HparamsError
from ....evaluation.batching import accepted, evaluating, input_device
from ....utils.fingerprint import model_fingerprint, text_fingerprint, tokenizer_fingerprint

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sampling:
    """How a causal model writes.

    Attributes:
        candidates: number of texts; the first is greedy, the others are drawn.
        max_new_tokens: longest text.
        seed: of the noise, which is drawn on the CPU and so the same for every device.
        temperature, top_k: the others are drawn from the ``top_k`` best tokens at this temperature.
        one_line: stop at the first line break behind some text.
    """

    candidates: int
    max_new_tokens: int
    seed: int
    temperature: float
    top_k: int
    one_line: bool = False


class WritingModel:
    """Model and tokenizer; neither is changed, and no global random state is read or written.

    Fingerprints are computed at most once per object.
    """

    def __init__(self, model, tok):
        self.model, self.tok = model, tok

    @property
    def translates(self) -> bool:
        """Whether the model is an encoder-decoder."""
        return bool(getattr(self.model.config, "is_encoder_decoder", False))

    @cached_property
    def weights(self) -> str:
        """Fingerprint of all weights and buffers."""
        return model_fingerprint(self.model)

    @cached_property
    def configuration(self) -> str:
        """Fingerprint of the model's configuration."""
        return text_fingerprint([self.model.config.to_json_string(use_diff=False)])

    @cached_property
    def vocabulary(self) -> str:
        """Fingerprint of the tokenizer's vocabulary."""
        return tokenizer_fingerprint(self.tok, [])

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return getattr(self.tok, "chat_template", None) is not None

    def ids(self, text: str) -> list[int]:
        """Token ids of an input."""
        return list(self.tok(text)["input_ids"])

    def chat_ids(self, text: str) -> list[int]:
        """Token ids of an input as the only user turn of a chat; as in ``ids`` without a chat template."""
        if not self.has_chat_template:
            return token_ids(self.tok, text)
        text = self.tok.apply_chat_template(
            [{"role": "user", "content": text}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,  # templates with a thinking mode would not answer in a line
        )
        return list(self.tok(text, add_special_tokens=False)["input_ids"])

    def beams(self, texts: list[str], per_text: int, max_new_tokens: int) -> list[str]:
        """The ``per_text`` best answers of an encoder-decoder to every text, by beam search; text-major."""
        answers = []
        with evaluating(self.model):
            for text in texts:
                ids = torch.tensor([self.ids(text)], device=input_device(self.model))
                rows = self.model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    num_beams=max(per_text, 4),
                    num_return_sequences=per_text,
                    do_sample=False,
                    max_new_tokens=max_new_tokens,
                )
                answers += [self._text(row) for row in rows.tolist()]
        return answers

    def sample(self, ids: list[int], sampling: Sampling) -> list[str]:
        """Continuations of ``ids`` by a causal model, drawn by Gumbel noise on the logits."""
        generator = torch.Generator().manual_seed(sampling.seed)
        device, end_tokens = input_device(self.model), self._end_tokens()
        inputs, past = torch.tensor([ids] * sampling.candidates, device=device), None
        rows: list[list[int]] = [[] for _ in range(sampling.candidates)]
        is_open = [True] * sampling.candidates
        with evaluating(self.model):
            for _ in range(self._free_positions(ids, sampling.max_new_tokens)):
                arguments = {"input_ids": inputs, "past_key_values": past, "logits_to_keep": 1}
                output = self.model(**accepted(self.model, arguments), use_cache=True)
                past = output.past_key_values
                inputs = _draw(output.logits[:, -1], sampling, generator).to(device)
                for row, token in enumerate(inputs[:, 0].tolist()):
                    if not is_open[row]:
                        continue
                    if token in end_tokens:
                        is_open[row] = False
                        continue
                    rows[row].append(token)
                    is_open[row] = not (sampling.one_line and "\n" in self._text(rows[row]).lstrip())
                if not any(is_open):
                    break
        return [self._text(row) for row in rows]

    def _free_positions(self, ids: list[int], max_new_tokens: int) -> int:
        """Number of new tokens, limited by the model's positions."""
        positions = getattr(self.model.config, "max_position_embeddings", None)
        free = max_new_tokens if not positions else positions - len(ids)
        if free < max_new_tokens:
            LOG.info(
                "an input of %d tokens leaves the writing model %d positions for a text of up to %d tokens",
                len(ids),
                max(free, 0),
                max_new_tokens,
            )
        return min(max_new_tokens, free)

    def _text(self, ids: list[int]) -> str:
        return self.tok.decode(ids, skip_special_tokens=True)

    def _end_tokens(self) -> set[int]:
        """End of text of the tokenizer, and those of the generation config (the end of a chat's turn)."""
        configured = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
        tokens = {*(configured if isinstance(configured, (list, tuple)) else [configured])}
        return {token for token in tokens | {self.tok.eos_token_id} if token is not None}


def _draw(logits: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> torch.Tensor:
    """``[n, 1]`` next tokens for ``logits [n, V]``; the first row's is the most likely one."""
    best = logits.topk(min(sampling.top_k, logits.shape[-1]))
    uniform = torch.rand(best.values.shape, generator=generator, dtype=torch.float64)
    noise = -torch.log(-torch.log(uniform))
    noise[0] = 0.0
    choice = (best.values.double().cpu() / sampling.temperature + noise).argmax(-1, keepdim=True)
    return best.indices.gather(1, choice.to(best.indices.device))


def named_writing_model(name: str, field: str, edited_model) -> WritingModel:
    """The model ``name`` on the edited model's device, loaded once per edited model.

    Args:
        name: a folder or a hub name.
        field: hyperparameter that names it, for errors.
        edited_model: its session holds the loaded models, so a sequence of edits loads them once.

    Raises:
        HparamsError: the model cannot be loaded.
    """
    device = str(input_device(edited_model))
    loaded = ModelSession.of(edited_model).cache
    key = f"writing model {name} on {device}"
    if key not in loaded:
        loaded[key] = _load(name, field, device)
    return loaded[key]


def _load(name: str, field: str, device: str) -> WritingModel:
    import transformers

    path = resources.model_path(name)
    LOG.info("loading %s for %s", path, field)
    try:
        config = transformers.AutoConfig.from_pretrained(path)
        is_seq2seq = config.is_encoder_decoder
        auto = transformers.AutoModelForSeq2SeqLM if is_seq2seq else transformers.AutoModelForCausalLM
        with torch.random.fork_rng(devices=[]):  # some models draw weights before the saved ones are read
            model = auto.from_pretrained(path, **dtype_option("auto"))
        tok = transformers.AutoTokenizer.from_pretrained(path)
        return WritingModel(model.to(device).eval(), tok)
    except Exception as error:  # whatever transformers raises about files of others
        raise HparamsError(f"field '{field}': {name!r} cannot be loaded: {error}") from error
