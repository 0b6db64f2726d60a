"""Hyperparameters that every locate-then-edit method shares (EasyEdit's AlphaEdit fields and ours)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..hyperparameters.base import ModelHyperParams
from ..hyperparameters.options import Options, doc, require


@dataclass(kw_only=True)
class PathHyperParams(ModelHyperParams):
    """Model, layers, z*, statistics and solver: what ROME-like editing needs, with or without a neuron mask.

    A method with a mask of its own sets ``OWN_MASK``, and ``OWN_OPTIONS`` to the ``Options`` classes whose
    fields it has inherited. ``OPTION_FIELDS``: (mask, option) -> field that holds it under another name.
    """

    OWN_MASK: ClassVar[str | None] = None
    OWN_OPTIONS: ClassVar[tuple[type[Options], ...]] = ()
    OPTION_FIELDS: ClassVar[dict[tuple[str, str], str]] = {}

    layers: list[int] = doc("layers whose down_proj is edited, in order; the last one is where z* lives")

    path: Literal["rome", "memit", "alphaedit"] = doc("how the delta is solved for", "alphaedit")
    mask_stage: Literal["post", "solve"] = doc(
        "post: the finished delta is multiplied by the mask; solve: the problem is restricted to the masked rows",
        "post",
    )

    mask: str = doc(
        "which neurons may change: none, nmke, pnke, contribution, ig, activation, random, fixed, or a registered name",
        "none",
    )
    mask_options: dict[str, Any] | None = doc(
        "options of the mask and of its scores, as in {top_k: 5, prompt_batch: 8}; attribution: another kind of scores",
        None,
    )
    mask_file: str | None = doc("JSON file {layer: [neuron, ...]} of mask: fixed", None)

    fact_token: Literal["subject_last"] = doc("token whose hidden state carries the fact", "subject_last")
    v_num_grad_steps: int = doc("Adam steps for z*", 25)
    v_lr: float = doc("learning rate of z*", 0.1)
    v_loss_layer: int | None = doc(
        "layer whose output is unembedded for the loss of z*; unset: the last", None
    )
    v_weight_decay: float = doc("weight of |delta| / |z|^2 in the loss of z*", 0.5)
    v_stop_loss: float = doc("z* stops early below this loss", 0.05)
    clamp_norm_factor: float = doc("|delta| is kept below this times |z|", 0.75)
    kl_factor: float = doc("weight of the KL term on kl_prompt", 0.0625)
    kl_prompt: str = doc("prompt whose next-token distribution at the subject is kept", "{} is a")
    keep_edits: bool = doc(
        "whether the search for z* asks for the objects of the subject's earlier edits (and of the batch's others about it) as well; "
        "the keys of these edits then give way to the new one, whose value holds them",
        False,
    )
    keep_prompts: int = doc(
        "other prompts of an edit's subject whose next token the search for z* keeps, those of the subject's earlier edits first; the "
        "keys of these edits then give way to the new one, whose value knows them; 0: none",
        0,
    )
    keep_templates: list[str] | None = doc(
        "templates of such prompts, '{}' the subject; unset: the prompts of the edits so far", None
    )
    keep_factor: float = doc(
        "weight of the mean loss of the earlier objects, and of the mean KL term of the prompts", 1.0
    )
    z_batch_size: int = doc(
        "requests of a batch whose z* are searched for at once; halved where memory does not suffice", 32
    )

    context_prompts: list[str] | None = doc(
        "openers from which the model writes the context sentences; '' starts from BOS; unset: EasyEdit's five English words",
        None,
    )
    context_length: int = doc("longest context sentence in tokens; 0: no contexts, the bare prompt only", 10)
    context_template_length_params: list[list[int]] | None = doc(
        "ROME's field, in place of context_length: [length, number] pairs, the number divided among the openers (at least one each)",
        None,
    )
    context_templates: list[str] | None = doc(
        "context sentences given by hand, each with one '{}'; no generation", None
    )

    mom2_update_weight: float = doc(
        "lambda, the weight of the covariance in the memit path (and in mask_stage solve)", 15000.0
    )
    mom2_dataset: str = doc(
        "text for the covariance: 'tiny-world', a .txt or .jsonl file, or a name for datasets", "wikipedia"
    )
    mom2_n_samples: int = doc("number of texts", 100000)
    mom2_dtype: Literal["float32", "float64"] = doc("dtype in which the covariance is accumulated", "float32")
    mom2_max_length: int = doc("texts are cut into pieces of at most this many tokens", 256)
    stats_dir: str = doc("folder of the statistics cache", "./data/stats")
    nullspace_threshold: float = doc("eigenvalues of the covariance below it span the null space", 2e-2)
    L2: float = doc("ridge added to the diagonal", 1.0)
    solve_dtype: Literal["float64", "float32"] = doc(
        "dtype in which the solver's factors are kept; float32 takes half the memory", "float64"
    )
    mom2_adjustment: bool = doc(
        "rome path: u = C^-1 k, or, without it, u = k; the other paths always use C", True
    )
    averaged_keys: bool = doc(
        "rome path: R-ROME, the key averaged over contexts also where ROME takes the bare prompt's", False
    )
    accumulate_keys: bool = doc(
        "protect earlier edits: C_p, the sum of their k k^T, is part of the problem; never on the rome path",
        True,
    )
    solve_preserve: Literal["nullspace", "covariance"] = doc(
        "mask_stage solve on the alphaedit path: null space of C restricted to the masked rows, or lambda C there",
        "nullspace",
    )

    easyedit_quirks: (
        list[Literal["retokenised_target", "no_softcap", "stale_keys", "generated_contexts"]] | None
    ) = doc("do as EasyEdit does where we deliberately do not; see docs/guides/easyedit.md", None)

    def validate(self) -> None:
        """Ranges, with the field's name in the error."""
        super().validate()
        self.require_positive(
            "v_num_grad_steps",
            "v_lr",
            "clamp_norm_factor",
            "z_batch_size",
            "mom2_n_samples",
            "mom2_max_length",
        )
        self.require_not_negative(
            "v_weight_decay",
            "kl_factor",
            "v_stop_loss",
            "mom2_update_weight",
            "L2",
            "nullspace_threshold",
            "context_length",
            "keep_prompts",
            "keep_factor",
        )
        require(
            bool(self.layers) and self.layers == sorted(set(self.layers)) and self.layers[0] >= 0,
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
        self._validate_mask()
        for pair in self.context_template_length_params or ():
            require(
                len(pair) == 2 and min(pair) > 0,
                "context_template_length_params",
                f"must be a list of [length, number], both greater than 0, got {pair}",
            )
        require(
            not self.context_template_length_params or not self.has_quirk("generated_contexts"),
            "easyedit_quirks",
            "generated_contexts goes by context_length; leave out context_template_length_params",
        )
        require(self.path == "rome" or not self.averaged_keys, "averaged_keys", "is R-ROME's, on path rome")
        require(
            self.L2 > 0 or self.path != "alphaedit",
            "L2",
            "must be greater than 0 on the alphaedit path (the system is singular without it)",
        )

    def _validate_mask(self) -> None:
        """The mask and its options."""
        # Here and not above: masks import torch, which the command's help and its first checks can do
        # without.
        from ..masks import chosen_mask

        has_indices = "indices" in (self.mask_options or {})
        require(
            self.mask != "fixed" or bool(self.mask_file) != has_indices,
            "mask_file",
            "mask 'fixed' needs the file with the neurons of every layer (or mask_options.indices, not both)",
        )
        chosen_mask(self)

    def check_inputs(self) -> None:
        """The covariance's text, and that its folder can be one."""
        if not self.uses_covariance:
            return
        from ..statistics.text import check_source  # here and not above: it imports torch

        folder = Path(self.stats_dir).expanduser()
        file = next((path for path in (folder, *folder.parents) if path.is_file()), None)
        require(
            file is None,
            "stats_dir",
            f"{str(file)!r} is a file; name a folder, which is made if it does not exist",
        )
        check_source(self.mom2_dataset, self.mom2_n_samples, folder)

    @classmethod
    def own_fields(cls) -> set[str]:
        """Names of the fields that are options of the method's own mask."""
        return {name for options in cls.OWN_OPTIONS for name in options.field_names()}

    @property
    def masks_in_solve(self) -> bool:
        """Whether the problem is restricted to the masked rows."""
        return self.mask_stage == "solve" and self.mask != "none"

    @property
    def preserves(self) -> str:
        """What the solve preserves: ``covariance`` (the outputs of typical keys) or its ``nullspace``."""
        if self.path == "memit":
            return "covariance"
        return self.solve_preserve if self.masks_in_solve else "nullspace"

    @property
    def preserves_subject(self) -> bool:
        """Whether other facts of the subject are preserved; the keys of its earlier edits then give way."""
        return bool(self.keep_edits or self.keep_prompts)

    @property
    def uses_covariance(self) -> bool:
        """Whether the covariance of the text's keys is part of the problem."""
        return self.path != "rome" or self.mom2_adjustment

    def has_quirk(self, name: str) -> bool:
        """Whether ``easyedit_quirks`` asks for EasyEdit's behaviour in this point."""
        return name in (self.easyedit_quirks or ())
