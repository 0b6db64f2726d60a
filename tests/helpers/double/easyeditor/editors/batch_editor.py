from enum import Enum


class BatchEditor(Enum):
    """Members of an Enum cannot be added to, and the test goes by them alone."""

    CALINET = "CALINET"
    SERAC = "SERAC"
    KE = "KE"
    MEND = "MEND"
    MEMIT = "MEMIT"
    MEMIT_FE = "MEMIT-FE"
    PMET = "PMET"
    FT = "FT"
    QLoRA = "QLoRA"
    LoRA = "LoRA"
    DPO = "DPO"
    EMMET = "EMMET"
    ALPHAEDIT = "AlphaEdit"
    ULTRAEDIT = "ULTRAEDIT"
    CORE = "CORE"

    @staticmethod
    def is_batchable_method(alg_name):
        return alg_name in [member.value for member in BatchEditor]
