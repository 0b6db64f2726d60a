"""The lifelong runner: a stream of edits through one method, measured at checkpoints, killed and resumed
without a trace.

What a run leaves in its folder; all of it is JSON, JSON lines, CSV or safetensors, and numbers that are not
finite are null.

``run.json``: what the run is: settings, hyperparameters, fingerprints of data, model and tokenizer, versions.
    Written once. The
same command goes on in the folder only if all of it is the same.

``before.json``: the untouched model, measured once: every edit's metrics, its answers to all locality prompts
    (the reference of
every later Loc), which of the facts beside the edits it knows.

``edits.jsonl``: one object per edit, in the order of the stream::

    {"edit": 0,                     position in the stream
     "record": 0,                   position in the data file's requests (another one where
     runner.order=shuffled) "batch": 0,
     "request": {...},              EasyEdit's request
     "status": "ok" | "failed",     failed: the method threw, or left weights that are not finite; the batch
     was rolled back "reason": null | "...",        why it failed
     "superseded_by": null | 7,     a later edit has the same prompt and subject: that one is measured in the
     final protocol "before": {metrics}, "immediate": {metrics} | null, "final": {metrics} | null,
     "layers": {"4": {"density": .., "leakage": .. | null, "delivered": .. | null}},
                                    of the batch; for methods that change single rows or columns the key is
                                    the parameter's name and only the density is known
     "seconds": 0.41,               of the batch, divided by its edits
     "stages_of_batch": {"target": 0.3, ...}}

    metrics = {"rewrite_acc": [..], "rephrase_acc": [..], "rewrite_generation_exact_match": [..] (final only,
    where wanted),
               "rephrase_generation_exact_match": [..], "locality": {"<kind>_acc": [..]}, "portability":
               {"<kind>_acc": [..]}}

``final`` is null until the run is finished. ``*_acc`` are teacher-forced token accuracies (EasyEdit's
``token_em``), locality the share of tokens that are those of the untouched model;
``*_generation_exact_match`` is 1 where greedy generation writes the whole answer.

``checkpoints.jsonl``: one object per checkpoint; the first, ``edits: 0``, is the untouched model::

    {"edits": 10, "failed": 0, "superseded": 0,   among the edits so far
     "final": {...},                means over the edits so far that are not superseded, all measured on the
     model as it is now:
                                    rewrite_acc, rephrase_acc, *_generation_exact_match, locality {kind_acc},
                                    portability {kind_acc}, loc and port (means over edits of the mean over
                                    the edit's kinds), retained, retained_facts, retained_asked, fluency,
                                    perplexity; and where it is measured ability {task: {metric, value,
                                    higher_is_better, documents, shots, metrics, tasks}}
                                    (:meth:`easyedit_neuron.ability.general_ability.GeneralAbility.measure`)
     "immediate": {...},            the same means (without exact match and what is measured beside), each
     edit right after its
                                    own batch; {} where evaluation.immediate is false.
                                    With edits: 0 it is {} too, and "final" is of all edits.
     "by_kind": {"locality": {"final": {kind: ..}, "immediate": {..}}, "portability": {...}},
     "drift": {parameter: {"wasserstein": [mean, std], "cosine": [mean, std], "l2": [mean, std],
     "wasserstein_norms": ..}},
                                    rows of every changed weight against the untouched model's, see drift.py
     "layers": {"4": {"density": .., "leakage": .., "delivered": .., "overlap": .., "touched": ..}},
                                    means over the batches so far; overlap: share of neurons that two batches'
                                    masks have in common, over all pairs (Dice); touched: share of neurons in
                                    any mask; null without masks
     "seconds": {"edit": .., "measure before": .., "measure immediately": .., "measure checkpoints": ..,
     "load": .., "save": .., "log": ..}, "stages": {"target": .., ...}, seconds of the method's stages, summed
     over batches "evaluation_share": 0.31,      measuring / everything, in seconds
     "memory": {"rss_peak_mib": .., "cuda_peak_mib": .. | null}}

``checkpoints.csv``: the same in one row per checkpoint; empty where not measured. Columns: ``CSV_COLUMNS`` of
    :mod:`.files`.

``summary.json``: written last; its presence says that the run is finished. Beside the settings,
    hyperparameters, versions and
command: ``results`` {before, immediate, final} (as in a checkpoint), ``layers``, ``checkpoints`` (the rows of
    the CSV),
``failed``, ``duplicates``, ``contradictions``, ``seconds``, ``seconds_per_edit``, ``evaluation_share``,
``memory``, ``weights`` (fingerprints), ``resumed`` (how often the run was continued).

``weights.safetensors``: the edited weights at the end by parameter name, unless ``runner.keep_weights`` is
    false.

``log/``: what every batch that did not fail changed, as an :class:`..editlog.EditLog`; not there where
    ``runner.edit_log`` is false,
or the method gives no ``EditRecord`` (EasyEdit's own do not, nor does FT).

``state/``: the newest complete state, from which a run goes on; see checkpoint.py. Removed when the run is
    finished.
"""
