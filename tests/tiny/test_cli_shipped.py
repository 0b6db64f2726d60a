"""The command on what ships with the package, shortened: the small model and its world."""

import json

from easyedit_neuron.cli import main


def test_the_shipped_model_is_edited(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EASYEDIT_NEURON_CACHE", str(tmp_path / "cache"))
    # the mask inside the solve: the released stage delivers about 60% of an edit on this model, too little to
    # count on for two
    short = [
        "method=nmke",
        "model=tiny-llama",
        "data=tiny-world",
        "method.mask_stage=solve",
        "edits=2",
        "method.mom2_n_samples=200",
        "evaluation.retained=50",
        "evaluation.fluency=2",
        "evaluation.perplexity=20",
        "evaluation.ability_limit=10",
    ]
    assert main([*short, "output_dir=out"]) == 0
    out = capfd.readouterr().out
    assert out.startswith("NMKE on tiny-llama: 2 sequential edits of tiny-world, batch size 1, seed 0\n")
    assert {path.name for path in tmp_path.iterdir()} == {"out", "cache"}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    before, final = summary["results"]["before"], summary["results"]["final"]
    # The model knows its world and none of the new facts; edits are seen.
    assert before["retained"] == 1.0 and before["retained_facts"] >= 45 and before["retained_asked"] == 50
    # one of the two new objects shares a token with the old one, and token accuracy counts it
    assert before["rewrite_acc"] <= 0.5 and final["rewrite_acc"] == 1.0
    assert {"Relation_Specificity_acc", "Neighborhood_acc"} & set(final["locality"])
    assert "Subject_Aliasing_acc" in final["portability"]
    assert before["perplexity"] > 1 and before["fluency"] > 0
    assert before["ability"]["tiny_world_facts"]["value"] == 1.0 and list(final["ability"]) == list(
        before["ability"]
    )
    for layer in summary["hparams"]["layers"]:
        assert 0 < summary["layers"][str(layer)]["density"] <= 1
