"""The order in which EasyEdit measures, calls a method and puts weights back. Packages that take time are
imported where they are needed: most tests only register."""

from time import time

from ..util.alg_dict import ALG_DICT
from .batch_editor import BatchEditor
from .loading import load
from .utils import chunks, make_logs, prepare_requests, put_back, restore_after_edit, summary_metrics

SINGLE = "Single Editing: batch_size should be set to 1"


def _measure(editor, model, request):
    from easyedit_neuron.evaluation import compute_edit_quality

    return compute_edit_quality(
        model, editor.model_name, editor.hparams, editor.tok, request, editor.hparams.device
    )


def _compare(metric):
    from easyedit_neuron.evaluation.protocol import finalize_locality

    finalize_locality(metric["pre"], metric["post"])


def _device(device):
    return f"cuda:{device}" if str(device).isdigit() else device


class BaseEditor:
    @classmethod
    def from_hparams(cls, hparams):
        return cls(hparams)

    def __init__(self, hparams):
        self.model_name = hparams.model_name
        self.apply_algo = ALG_DICT[hparams.alg_name]
        self.alg_name = hparams.alg_name
        make_logs()
        self.model, self.tok = (
            load(self.model_name, self.alg_name) if type(self.model_name) is str else self.model_name
        )
        self.device = _device(hparams.device)
        if self.model is not None and not hparams.model_parallel:
            self.model.to(self.device)
        self.hparams = hparams

    def _requests(self, prompts, target_new, ground_truth, rephrase, locality, portability, kwargs):
        if isinstance(prompts, list):
            assert len(prompts) == len(target_new)
        else:
            prompts, target_new = [prompts], [target_new]
        return prepare_requests(prompts, target_new, ground_truth, rephrase, locality, portability, **kwargs)

    def _edit_one(self, request):
        return self.apply_algo(
            self.model,
            self.tok,
            [request],
            self.hparams,
            copy=False,
            return_orig_weights=True,
            keep_original_weight=False,
            train_ds=None,
        )

    def edit(
        self,
        prompts,
        target_new,
        ground_truth=None,
        target_neg=None,
        rephrase_prompts=None,
        locality_inputs=None,
        portability_inputs=None,
        sequential_edit=False,
        verbose=True,
        **kwargs,
    ):
        requests = self._requests(
            prompts, target_new, ground_truth, rephrase_prompts, locality_inputs, portability_inputs, kwargs
        )
        return self.edit_requests(requests, sequential_edit, verbose, **kwargs)

    def edit_requests(self, requests, sequential_edit=False, verbose=True, test_generation=False, **kwargs):
        assert self.hparams.batch_size == 1, SINGLE
        metrics = [{"pre": _measure(self, self.model, request)} for request in requests]
        for i, request in enumerate(requests):
            edited_model, weights_copy = self._edit_one(request)
            metrics[i].update(
                case_id=i, requested_rewrite=request, post=_measure(self, edited_model, request)
            )
            _compare(metrics[i])
            if not sequential_edit:
                restore_after_edit(self, edited_model, weights_copy)
        summary_metrics(metrics)
        return metrics, edited_model, weights_copy

    def batch_edit(
        self,
        prompts,
        target_new,
        ground_truth=None,
        target_neg=None,
        rephrase_prompts=None,
        locality_inputs=None,
        portability_inputs=None,
        sequential_edit=False,
        verbose=True,
        **kwargs,
    ):
        assert BatchEditor.is_batchable_method(self.alg_name), (
            f"The Method {self.alg_name} can not batch edit examples."
        )
        requests = self._requests(
            prompts, target_new, ground_truth, rephrase_prompts, locality_inputs, portability_inputs, kwargs
        )
        metrics = []
        for chunk in chunks(requests, self.hparams.batch_size):
            rows = [
                {"case_id": i, "requested_rewrite": request, "pre": _measure(self, self.model, request)}
                for i, request in enumerate(chunk)
            ]
            start = time()
            edited_model, weights_copy = self.apply_algo(
                self.model, self.tok, chunk, self.hparams, copy=False, return_orig_weights=True
            )
            seconds = time() - start
            for row, request in zip(rows, chunk):
                row.update(time=seconds, post=_measure(self, edited_model, request))
            if sequential_edit:
                self.model = edited_model
            else:
                restore_after_edit(self, edited_model, weights_copy)
            for row in rows:
                _compare(row)
            metrics.extend(rows)
        return metrics, edited_model, weights_copy

    def normal_edit(self, prompts, target_new, sequential_edit=False):
        assert BatchEditor.is_batchable_method(self.alg_name), (
            f"The Method {self.alg_name} can not batch edit examples."
        )
        requests = prepare_requests(prompts, target_new, None)
        edited_model, weights_copy = self.apply_algo(
            self.model,
            self.tok,
            requests,
            self.hparams,
            copy=False,
            return_orig_weights=True,
            keep_original_weight=False,
        )
        put_back(self.model, weights_copy)
        return None, edited_model, weights_copy

    def generate_edit(
        self,
        prompts,
        target_new,
        ground_truth=None,
        target_neg=None,
        rephrase_prompts=None,
        locality_inputs=None,
        portability_inputs=None,
        sequential_edit=False,
        verbose=True,
        **kwargs,
    ):
        assert self.hparams.batch_size == 1, SINGLE
        requests = self._requests(
            prompts, target_new, ground_truth, rephrase_prompts, locality_inputs, portability_inputs, kwargs
        )
        results = [{"pre": self._answers(self.model, request)} for request in requests]
        for i, request in enumerate(requests):
            edited_model, weights_copy = self._edit_one(request)
            results[i].update(case_id=i, requested_rewrite=request, post=self._answers(edited_model, request))
            if not sequential_edit:
                restore_after_edit(self, edited_model, weights_copy)
        summary_metrics(results)
        return results, edited_model, weights_copy

    def _answers(self, model, request):
        def answer(query):
            messages = [
                {"role": "system", "content": "You are a helpful assistant."},
                {"role": "user", "content": query},
            ]
            text = self.tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            ids = self.tok.encode(text, return_tensors="pt").to(model.device)
            return self.tok.decode(
                model.generate(input_ids=ids, max_new_tokens=512)[0][len(ids[0]) :], skip_special_tokens=True
            )

        answers = {
            "rewrite_ans": answer(request["prompt"]),
            "rephrase_ans": answer(request["rephrase_prompt"]),
        }
        if "loc_hop" in request["locality"]:
            answers["locality_ans"] = [answer(prompt) for prompt in request["locality"]["loc_hop"]["prompt"]]
        return {
            **answers,
            "portability_ans": [answer(prompt) for prompt in request["portability"]["por_hop"]["prompt"]],
        }
