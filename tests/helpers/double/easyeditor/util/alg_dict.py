"""The registry: a plain dictionary."""


def _stand_in(name):
    def apply(*args, **kwargs):
        raise NotImplementedError(f"the double has no {name}")

    return apply


_NAMES = (
    "ROME MEMIT MEMIT-FE FT DINM KN MEND SERAC IKE FT-Api QLoRA LoRA DPO GRACE PMET MELO WISE R-ROME EMMET "
    "EAMET AlphaEdit SPHERE ULTRAEDIT CORE DeepEdit-Api SimIE DEFER"
)
ALG_DICT = {name: _stand_in(name) for name in _NAMES.split()}
