"""``easyedit-neuron demo``: the functions behind the page, and the page in a browser."""

import re
import threading
import zipfile
from contextlib import contextmanager
from copy import deepcopy

import httpx
import pytest
import torch
from peft import PeftModel

from easyedit_neuron import FiNEHyperParams, LastingHyperParams, data
from easyedit_neuron.arch.load_model import load_model
from easyedit_neuron.editlog import EditLog
from easyedit_neuron.edits.record import LayerDelta
from easyedit_neuron.errors import NeuronEditError, StateError
from easyedit_neuron.export import apply_sparse
from easyedit_neuron.registry import get_method
from easyedit_neuron.report import figures
from easyedit_neuron.serving.edited_model import EditedModel
from easyedit_neuron.serving.page import NO_EDITS, Page, before_and_after, refusal
from easyedit_neuron.serving.pictures import change_norms
from helpers.browser import chromium, requested

HPARAMS = {"Lasting": LastingHyperParams, "FiNE": FiNEHyperParams}


@pytest.fixture(scope="module")
def facts():
    return data.load("tiny-world", size=2)


@pytest.fixture
def page_of(tmp_path):
    """Makes the page of tiny-llama with a log of its own."""

    def page(method):
        hparams = HPARAMS[method].from_hparams(f"{method}/tiny-llama")
        model, tok, _ = load_model(hparams)
        base = deepcopy(model)
        edited = EditedModel(model, tok, EditLog(tmp_path / "log"), get_method(method), hparams)
        return Page(edited, lambda: (deepcopy(base), tok))

    return page


def words(fact, rephrasing="", neighbour=""):
    return fact["prompt"], fact["subject"], fact["target_new"], rephrasing, neighbour


def plain(html):
    return re.sub(r"<[^>]*>", " ", html)


def test_an_edit_of_lasting(page_of, facts):
    page, (fact, other) = page_of("Lasting"), facts
    assert page.log() == NO_EDITS and page.numbers() == []
    change = page.edit(*words(fact, fact["rephrase_prompt"], other["prompt"]))
    shown = before_and_after(change)
    rows = re.findall(r"<tr class='(\w+)'.*?</tr>", shown)
    assert rows == ["edited", "rephrased", "neighbour"] and fact["rephrase_prompt"] in shown
    edited, beside = (re.search(rf"<tr class='{kind}'.*?</tr>", shown)[0] for kind in ("edited", "neighbour"))
    assert f"{fact['ground_truth']}." in edited and f"now changed'>{fact['target_new']}." in edited
    assert "now same'>" in beside

    # The neuron responds fully at the subject's last token of the edited prompt, and to nobody else.
    prompts = [fact["prompt"], other["prompt"]]
    responses = page.edited.responses(prompts, 1)
    place = max(range(len(responses[0][0].shares)), key=responses[0][0].shares.__getitem__)
    assert responses[0][0].shares[place] == pytest.approx(1, abs=0.02)
    assert fact["subject"].endswith(responses[0][0].texts[place].strip())
    own, others = page.neurons(1, prompts).split("</div><span>")[:2]
    assert "<sub>1.00</sub>" in own and "<sub>" not in others.partition("</span></div>")[2]
    assert page.neurons(1, prompts).endswith("silent</span></div>")

    said = page.ask(fact["prompt"])
    assert f"<b>{fact['target_new']}" in said and f"edit 1, {fact['subject']}" in said
    with pytest.raises(NeuronEditError, match="the prompt is empty"):
        page.ask(" ")

    page.edit(*words(other))
    assert page.numbers() == [2, 1]
    page.edited.undo(1)
    assert page.numbers() == [2] and "was taken out" in page.neurons(1)
    first, second = re.findall(r"<tr.*?</tr>", page.log())[1:]
    assert "<td>2</td>" in first and "in the model" in first
    assert "class='gone'" in second and "taken back" in second
    assert f"<b>{fact['ground_truth']}" in page.ask(fact["prompt"])
    with pytest.raises(StateError, match="is not in the weights"):
        page.edited.undo(1)
    with pytest.raises(NeuronEditError, match="adds neurons"):
        page.export("peft")


def test_the_change_of_each_neuron(page_of, facts, monkeypatch):
    page, fact = page_of("FiNE"), facts[0]
    before = {name: value.clone() for name, value in page.edited.model.state_dict().items()}
    page.edit(*words(fact))
    record = page.edited.log[1]
    for name, delta in record.deltas.items():
        neurons, norms = change_norms(delta)
        change = page.edited.model.get_parameter(name).detach() - before[name]
        actual = change.norm(dim=0 if delta.axis == "input" else 1)
        assert neurons == actual.nonzero()[:, 0].tolist()
        torch.testing.assert_close(
            torch.tensor(norms), actual[neurons].double(), rtol=1e-3, atol=1e-5, check_dtype=False
        )
    shown = page.neurons(1)
    assert "<svg" in shown and "Neurons whose vectors changed: " in shown and "down_proj: 1 of 2,048" in shown
    monkeypatch.setattr(figures, "available", lambda: False)
    monkeypatch.setattr("easyedit_neuron.serving.pictures.available", lambda: False)
    assert "<svg" not in page.neurons(1) and "easyedit-neuron[report]" in page.neurons(1)


def test_the_change_of_each_neuron_from_factors():
    """A masked change of low rank: the columns that it touches, and their norms in the product."""
    draw = torch.Generator().manual_seed(0)
    keys = torch.randn(9, 3, generator=draw)
    keys[[1, 2, 5]] = 0
    delta = LayerDelta(torch.randn(4, 3, generator=draw), keys)
    neurons, norms = change_norms(delta)
    assert neurons == [0, 3, 4, 6, 7, 8]
    torch.testing.assert_close(torch.tensor(norms), delta.matrix().norm(dim=0)[neurons])


def test_exports(page_of, facts, tmp_path):
    """What is downloaded makes the same answers elsewhere."""
    page, fact = page_of("FiNE"), facts[0]
    with pytest.raises(NeuronEditError, match="nothing to export"):
        page.export("sparse")
    with pytest.raises(NeuronEditError, match="choose one of"):
        page.export("onnx")
    page.edit(*words(fact))
    ids = torch.tensor([page.edited.tok(fact["prompt"])["input_ids"]])
    logits = page.edited.model(ids).logits
    for form in ("sparse", "peft", "merged"):
        with zipfile.ZipFile(page.export(form)) as packed:
            packed.extractall(tmp_path / form)
        (folder,) = (tmp_path / form).iterdir()
        model, _ = page._load_base()
        if form == "sparse":
            apply_sparse(model, folder)
        elif form == "peft":
            model = PeftModel.from_pretrained(model, str(folder))
        else:
            model = type(model).from_pretrained(folder, dtype=torch.float32)
        torch.testing.assert_close(model(ids).logits, logits, atol=1e-4, rtol=1e-4)


def test_texts_are_no_html(page_of, facts):
    page, (fact, other) = page_of("FiNE"), facts
    change = page.edit(*words(fact, neighbour=f"<img src=x> {other['prompt']}"))
    shown = before_and_after(change) + refusal(NeuronEditError("no <b>")) + page.ask("<script>")
    assert "<img" not in shown and "&lt;img" in shown and "<script" not in shown and "no &lt;b&gt;" in shown


# With gradio


@contextmanager
def shown(page, token=None):
    """The address of a page's server."""
    pytest.importorskip("gradio", reason="87 MB: pip install 'easyedit-neuron[demo]'")
    from easyedit_neuron.serving.demo import build_demo
    from easyedit_neuron.serving.run import bound_socket, server_of

    started = threading.Event()
    with bound_socket("127.0.0.1", 0) as bound:
        server = server_of(build_demo(page, token), started.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        assert started.wait(60)
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = server.force_exit = True
            thread.join(30)


def test_only_its_own_page_may_edit(page_of):
    page = page_of("FiNE")
    with shown(page) as url:
        answer = httpx.get(url, timeout=60)
        assert answer.status_code == 200 and "default-src 'self'" in answer.headers["content-security-policy"]
        join = f"{url}/gradio_api/queue/join"
        body = {"data": [], "fn_index": 0, "session_hash": "x"}
        elsewhere = httpx.post(join, json=body, headers={"Origin": "http://elsewhere.example"})
        assert elsewhere.status_code == 403
        assert httpx.post(join, json=body, headers={"Origin": url}).status_code == 200
    with shown(page, token="a-password") as url:
        assert httpx.get(f"{url}/config", timeout=60).status_code == 401
        login = httpx.post(f"{url}/login", data={"username": "edit", "password": "wrong"})
        assert login.status_code == 400
        login = httpx.post(f"{url}/login", data={"username": "edit", "password": "a-password"})
        assert login.status_code == 200


def test_the_page_in_a_browser(page_of, facts):
    """An edit, a question, a refusal and an undo by hand; nothing is asked of the internet."""
    page, fact = page_of("Lasting"), facts[0]
    with shown(page) as url, chromium(url) as browser:
        from selenium.webdriver.common.by import By
        from selenium.webdriver.support.ui import WebDriverWait

        wait = WebDriverWait(browser, 120)

        def text_of(name):
            return browser.find_element(By.ID, name).text

        def fill(name, text):
            field = browser.find_element(By.CSS_SELECTOR, f"#{name} textarea, #{name} input")
            field.clear()
            field.send_keys(text)

        wait.until(lambda _: browser.find_elements(By.ID, "edit"))
        values = words(fact, fact["rephrase_prompt"], facts[1]["prompt"])
        for name, value in zip(("prompt", "subject", "target", "rephrasing", "neighbour"), values):
            fill(name, value)
        browser.find_element(By.ID, "edit").click()
        wait.until(lambda _: "Edit 1, in" in text_of("result") and "in the model" in text_of("log"))
        assert fact["target_new"] in text_of("result") and "1.00" in text_of("neurons")
        fill("question", fact["prompt"])
        browser.find_element(By.ID, "ask").click()
        wait.until(lambda _: fact["target_new"] in text_of("answer"))

        fill("subject", "Nobody")
        browser.find_element(By.ID, "edit").click()
        wait.until(lambda _: "does not occur in prompt" in text_of("result"))

        browser.find_element(By.ID, "undo").click()
        wait.until(lambda _: "Edit 1 taken back" in text_of("result") and "taken back" in text_of("log"))
        assert EditLog(page.edited.log.folder).ids == []
        outside = {u for u in requested(browser) if not u.startswith((url, "data:", "blob:", "chrome:"))}
        errors = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
        assert not outside and not errors
