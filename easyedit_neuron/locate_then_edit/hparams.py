"""Hyperparameters that every locate-then-edit method shares (EasyEdit's AlphaEdit fields and ours)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..hyperparameters.options import Options, doc, require
from .target_hparams import TargetHyperParams


@dataclass(kw_only=True)
class PathHyperParams(TargetHyperParams):
    """Statistics and solver of a locate-then-edit method, with or without a neuron mask.

    A method with a mask of its own sets ``OWN_MASK``, and ``OWN_OPTIONS`` to the ``Options`` classes that it
    inherits from. ``OPTION_FIELDS`` maps (mask, option) to a field that holds the option under another name.
    """

    OWN_MASK: ClassVar[str | None] = None
    OWN_OPTIONS: ClassVar[tuple[type[Options], ...]] = ()
    OPTION_FIELDS: ClassVar[dict[tuple[str, str], str]] = {}

    path: Literal["rome", "memit", "alphaedit"] = doc("how the delta is solved for", "alphaedit")
    mask_stage: Literal["post", "solve"] = doc(
        "post: multiply the finished delta by the mask; solve: restrict the problem to the masked rows",
        "post",
    )
    error_compensation: bool = doc(
        "mask_stage post: what a mask cuts off is kept, and written by later edits whose mask has the neuron",
        False,
    )

    mask: str = doc(
        "which neurons may change: none (all of them), nmke, pnke, contribution, ig, activation, random, "
        "fixed, or a registered name",
        "none",
    )
    mask_options: dict[str, Any] | None = doc(
        "options of the mask and of its scores, as in {top_k: 5, prompt_batch: 8}; the entry attribution "
        "names another kind of scores",
        None,
    )
    mask_file: str | None = doc("for mask: fixed, a JSON file {layer: [neuron, ...]}", None)

    mom2_update_weight: float = doc(
        "lambda, the weight of the covariance on the memit path, or with solve_preserve: covariance",
        15000.0,
        least=0,
    )
    mom2_dtype: Literal["float32", "float64"] = doc("dtype in which the covariance is accumulated", "float32")
    mom2_cut: bool = doc(
        "cut texts at mom2_max_length instead of splitting them; with mom2_max_length at the model's context "
        "length, as EasyEdit measures (docs/results/real-model.md)",
        False,
    )
    mom2_name_share: float = doc(
        "share of the covariance that comes from the last tokens of names in the text, where edits read and "
        "write; the rest is of all tokens",
        0.0,
        least=0,
        below=1,
    )
    mom2_names: str | None = doc(
        "a text file with those names, one a line; unset: capitalised words of mom2_dataset", None
    )
    mom2_file: str | None = doc(
        "a covariance that you have, as a path with {} for the layer's number: EasyEdit's .npz, or "
        ".safetensors with one matrix; unset: it is measured on mom2_dataset",
        None,
    )
    nullspace_file: str | None = doc(
        "AlphaEdit's null_space_project.pt, the projections of 'layers' in their order; unset: from the "
        "covariance and nullspace_threshold. An edit's report needs the covariance all the same",
        None,
    )
    nullspace_threshold: float = doc(
        "eigenvectors of the covariance with an eigenvalue below this span its null space", 2e-2, least=0
    )
    L2: float = doc("ridge added to the diagonal", 1.0, least=0)
    solve_dtype: Literal["float64", "float32"] = doc(
        "dtype of the solver's factors; float32 takes half the memory", "float64"
    )
    mom2_adjustment: bool = doc(
        "rome path: true: u = C^-1 k, false: u = k; the other paths always use C", True
    )
    averaged_keys: bool = doc(
        "rome path: use R-ROME, the mean key over contexts where ROME takes that of the bare prompt", False
    )
    accumulate_keys: bool = doc(
        "protect earlier edits by C_p, the sum of their k k^T; without effect on the rome path", True
    )
    sweeps: int = doc(
        "how often the batch is written into the layers; from the second time on, what z* still lacks there",
        1,
        least=1,
    )
    solve_preserve: Literal["nullspace", "covariance"] = doc(
        "alphaedit path with mask_stage: solve: preserve the null space of C on the masked rows, or lambda C",
        "nullspace",
    )

    def validate(self) -> None:
        """Check the rules between fields; errors name the field."""
        super().validate()
        require(
            self.sweeps == 1 or self.path != "rome",
            "sweeps",
            "rome updates deliver the whole residual at once",
        )
        self._validate_mask()
        require(
            not self.error_compensation or (self.mask != "none" and self.mask_stage == "post"),
            "error_compensation",
            "writes what a mask has cut off: it needs a mask, and mask_stage: post",
        )
        require(self.path == "rome" or not self.averaged_keys, "averaged_keys", "is R-ROME's, on path rome")
        require(
            self.L2 > 0 or self.path != "alphaedit",
            "L2",
            "must be greater than 0 on the alphaedit path (the system is singular without it)",
        )

        require(
            self.mom2_file is None or self.mom2_file.count("{}") == 1 or len(self.layers) == 1,
            "mom2_file",
            f"must hold '{{}}' once, in place of the layer's number: {self.mom2_file!r}",
        )
        require(
            self.nullspace_file is None
            or (self.path == "alphaedit" and (self.mask == "none" or self.mask_stage == "post")),
            "nullspace_file",
            "is for the alphaedit path, without a mask or with mask_stage: post",
        )

    def check_inputs(self) -> None:
        """Check that the files with matrices exist, and what the text needs."""
        files = [self.nullspace_file] if self.nullspace_file else []
        if self.mom2_file:
            files += [self.mom2_file.replace("{}", str(layer)) for layer in self.layers]
        for file in files:
            name = "nullspace_file" if file == self.nullspace_file else "mom2_file"
            require(Path(file).expanduser().is_file(), name, f"there is no file {file!r}")
        super().check_inputs()

    def _validate_mask(self) -> None:
        # Imported here: masks import torch, which the command's help does not need.
        from ..masks import chosen_mask

        has_indices = "indices" in (self.mask_options or {})
        require(
            self.mask != "fixed" or bool(self.mask_file) != has_indices,
            "mask_file",
            "mask 'fixed' needs the file with the neurons of every layer (or mask_options.indices, not both)",
        )
        chosen_mask(self)

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
    def uses_text(self) -> bool:
        """Whether the covariance of the text's keys is part of the problem."""
        return self.path != "rome" or self.mom2_adjustment
