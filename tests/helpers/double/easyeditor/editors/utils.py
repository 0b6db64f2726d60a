import json
from pathlib import Path


def restore_after_edit(editor, edited_model, weights_copy):
    if weights_copy is not None:
        put_back(editor.model, weights_copy)
    return edited_model


def put_back(model, weights_copy):
    """The weights of before into the parameters of those names, in place; what a method keeps elsewhere is
    not asked about."""
    import torch

    with torch.no_grad():
        for name, value in weights_copy.items():
            parameter = model.get_parameter(name)
            parameter[...] = value.to(device=parameter.device, dtype=parameter.dtype)


def make_logs():
    Path("logs").mkdir(exist_ok=True)
    Path("logs/run.log").touch()


def summary_metrics(metrics):
    Path("logs").mkdir(exist_ok=True)
    Path("logs/results.json").write_text(json.dumps(metrics, ensure_ascii=False, indent=4), encoding="utf-8")


def chunks(values, size):
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _as_list(value):
    return [value] if isinstance(value, str) else value


def prepare_requests(
    prompts,
    target_new,
    ground_truth,
    rephrase_prompts=None,
    locality_inputs=None,
    portability_inputs=None,
    **kwargs,
):
    """One dictionary per prompt; of the keywords ``subject`` is looked at."""
    ground_truth = [None] * len(prompts) if ground_truth is None else _as_list(ground_truth)
    assert len(ground_truth) == len(prompts)
    requests = [
        {"prompt": prompt, "target_new": target, "ground_truth": truth, "portability": {}, "locality": {}}
        for prompt, truth, target in zip(prompts, ground_truth, target_new)
    ]
    if "subject" in kwargs:
        subjects = _as_list(kwargs["subject"])
        assert len(subjects) == len(prompts)
        for request, subject in zip(requests, subjects):
            assert subject in request["prompt"]
            request["subject"] = subject
    if rephrase_prompts is not None:
        for request, rephrase in zip(requests, _as_list(rephrase_prompts)):
            request["rephrase_prompt"] = rephrase
    for section, inputs in (("locality", locality_inputs), ("portability", portability_inputs)):
        for kind, texts in (inputs or {}).items():
            for request, prompt, truth in zip(
                requests, _as_list(texts["prompt"]), _as_list(texts["ground_truth"])
            ):
                if prompt is not None:
                    request[section][kind] = {"prompt": prompt, "ground_truth": truth}
    return requests
