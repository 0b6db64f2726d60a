"""Hyperparameters of the search for z*: what all methods share that write a fact at its subject."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .. import resources
from ..hyperparameters.base import ModelHyperParams
from ..hyperparameters.options import doc, require


@dataclass(kw_only=True)
class TargetHyperParams(ModelHyperParams):
    """Layers, z*, contexts, and the text of the statistics, with EasyEdit's field names."""

    layers: list[int] = doc(
        "layers whose down_proj is edited, ascending; z* is a hidden state after the last one", least=0
    )

    fact_token: Literal["subject_last"] = doc("token whose hidden state carries the fact", "subject_last")
    v_num_grad_steps: int = doc("Adam steps for z*", 25, least=1)
    v_lr: float = doc("learning rate of z*", 0.1, above=0)
    v_loss_layer: int | None = doc(
        "layer whose output gives the logits of z*'s loss; unset: the last", None, least=0
    )
    v_weight_decay: float = doc("weight of |delta| / |z|^2 in the loss of z*", 0.5, least=0)
    v_noise: float = doc(
        "noise that each step of the search for z* adds to each hidden state beside delta, in units of "
        "the root mean square of z; rephrasings then follow more often (docs/results/ideas.md)",
        0.0,
        least=0,
    )
    v_stop_loss: float = doc("the search for z* ends below this loss", 0.05, least=0)
    clamp_norm_factor: float = doc("upper bound of |delta| / |z|", 0.75, above=0)
    kl_factor: float = doc("weight of the KL term on kl_prompt", 0.0625, least=0)
    kl_prompt: str = doc(
        "prompt on which the KL term preserves the distribution of the token after the subject", "{} is a"
    )
    keep_edits: bool = doc(
        "also train z* to give the objects of earlier edits of the same subject (and of other requests of "
        "the batch about it); the keys of those earlier edits are then not protected in this edit",
        False,
    )
    keep_prompts: int = doc(
        "number of other prompts of the subject on which the search for z* preserves the next token, those "
        "of earlier edits first; the keys of the subject's earlier edits are then not protected in this edit",
        0,
        least=0,
    )
    keep_templates: list[str] | None = doc(
        "templates for keep_prompts, with '{}' for the subject; unset: the prompts of the edits so far", None
    )
    keep_factor: float = doc(
        "weight of the loss on the objects of keep_edits and of the KL term on keep_prompts, each a mean",
        1.0,
        least=0,
    )
    z_batch_size: int = doc(
        "requests whose z* are searched for together; halved when memory runs out", 32, least=1
    )

    context_prompts: list[str] | None = doc(
        "beginnings from which the model writes the context sentences ('' is BOS alone); unset: EasyEdit's "
        "five English words",
        None,
    )
    context_length: int = doc(
        "longest context sentence in tokens; 0: the prompt without contexts", 10, least=0
    )
    context_template_length_params: list[list[int]] | None = doc(
        "ROME's field, instead of context_length: [length, number] pairs; the number of sentences is divided "
        "among the openers, at least one each",
        None,
        least=1,
    )
    context_templates: list[str] | None = doc(
        "context sentences to use instead of generated ones, each with one '{}'; the bare '{}' is always "
        "there besides, once",
        None,
    )

    mom2_dataset: str = doc(
        "text for the covariance: 'self' (the model writes it), 'tiny-world', a .txt or .jsonl file, or a "
        "name for datasets",
        "self",
    )
    mom2_n_samples: int | None = doc(
        "number of texts for the covariance; unset: d_ff / 6, about 16 tokens for each neuron of a layer "
        "(docs/results/real-model.md)",
        None,
        least=1,
    )
    mom2_max_length: int = doc("longest piece of text in tokens; longer texts are split", 256, least=1)
    stats_dir: str | None = doc(
        "folder in which the statistics are cached; unset: the user's cache, or EASYEDIT_NEURON_CACHE", None
    )
    easyedit_quirks: (
        list[Literal["retokenised_target", "no_softcap", "stale_keys", "generated_contexts"]] | None
    ) = doc("deliberate differences from EasyEdit that are undone; see docs/guides/easyedit.md", None)

    def validate(self) -> None:
        """Check what no range says; an unset ``stats_dir`` becomes a folder in the cache."""
        super().validate()
        self.stats_dir = self.stats_dir or str(resources.statistics_dir())
        require(
            bool(self.layers) and self.layers == sorted(set(self.layers)),
            "layers",
            f"must be a non-empty ascending list of layer numbers, got {self.layers}",
        )
        for name, templates in (
            ("kl_prompt", [self.kl_prompt]),
            ("context_templates", self.context_templates or ()),
            ("keep_templates", self.keep_templates or ()),
        ):
            for template in templates:
                bare = template.replace("{}", "", 1)
                require(
                    "{}" in template and not {"{", "}"} & set(bare),
                    name,
                    f"{template!r} must hold '{{}}' exactly once and no other braces",
                )
        for pair in self.context_template_length_params or ():
            require(
                len(pair) == 2,
                "context_template_length_params",
                f"must be a list of [length, number], got {pair}",
            )
        require(
            not self.context_template_length_params or not self.has_quirk("generated_contexts"),
            "easyedit_quirks",
            "generated_contexts uses context_length; leave out context_template_length_params",
        )

        require(
            not (self.use_chat_template and self.has_quirk("retokenised_target")),
            "easyedit_quirks",
            "retokenised_target cannot be combined with use_chat_template; leave one of them out",
        )

    def check_inputs(self) -> None:
        """Check the text of the statistics, and that ``stats_dir`` is or can become a folder."""
        if not self.uses_text:
            return
        from ..statistics.text import check_source  # imported here: it needs torch

        folder = Path(str(self.stats_dir)).expanduser()
        file = next((path for path in (folder, *folder.parents) if path.is_file()), None)
        require(
            file is None,
            "stats_dir",
            f"{str(file)!r} is a file; name a folder, which is created if it does not exist",
        )
        check_source(self.mom2_dataset, self.mom2_n_samples, folder)

    @property
    def uses_text(self) -> bool:
        """Whether statistics of the text are part of the problem."""
        return True

    @property
    def preserves_subject(self) -> bool:
        """Whether the search for z* preserves other facts of the subject.

        The keys of the subject's earlier edits are then not protected: the new value stands for them.
        """
        return bool(self.keep_edits or self.keep_prompts)

    def has_quirk(self, name: str) -> bool:
        """Whether ``easyedit_quirks`` names this quirk."""
        return name in (self.easyedit_quirks or ())
