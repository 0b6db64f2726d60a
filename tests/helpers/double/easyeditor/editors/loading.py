"""Model and tokenizer by words in the path, padding side by the method's name."""

RIGHT_PADDED = ["ROME", "MEMIT", "EMMET", "EAMET", "R-ROME", "AlphaEdit", "CORE", "SPHERE"]
ENDOFTEXT = dict.fromkeys(("eos_token", "pad_token", "unk_token"), "<|endoftext|>")


def load(name, alg_name):
    """(model, tokenizer) of a folder or hub name."""
    import transformers
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, GPT2Tokenizer

    path = name.lower()
    if "t5" in path:
        return transformers.T5ForConditionalGeneration.from_pretrained(
            name
        ), transformers.T5Tokenizer.from_pretrained(name)
    if "chatglm-api" in path or "gpt-3.5" in path:
        return None, None
    if "gpt" in path:
        model, tok = AutoModelForCausalLM.from_pretrained(name), GPT2Tokenizer.from_pretrained(name)
        tok.pad_token_id = tok.eos_token_id
    elif any(word in path for word in ("llama", "baichuan")):
        model, tok = AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)
        tok.pad_token_id = tok.eos_token_id
    elif any(word in path for word in ("chatglm", "internlm")):
        model, tok = AutoModel.from_pretrained(name), AutoTokenizer.from_pretrained(name)
        tok.pad_token_id = tok.eos_token_id
    elif "qwen2" in path or "qwen3" in path:
        model, tok = (
            AutoModelForCausalLM.from_pretrained(name),
            AutoTokenizer.from_pretrained(name, **ENDOFTEXT),
        )
    elif "qwen" in path:
        model, tok = (
            AutoModelForCausalLM.from_pretrained(name, fp32=False),
            AutoTokenizer.from_pretrained(name, **ENDOFTEXT),
        )
    elif "mistral" in path:
        model, tok = AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)
        tok.pad_token_id = tok.eos_token_id
    else:
        raise NotImplementedError
    if alg_name not in RIGHT_PADDED:
        tok.padding_side = "left"
    elif any(word in path for word in ("mistral", "llama", "qwen")):
        tok.padding_side = "right"
    return model, tok
