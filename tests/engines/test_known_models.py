"""Models by name: what a site has is not sent again, and what it has lost is, with the same result."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback import LoopbackProxy, numbered

from v6_algorithm.engines import entry, known_models
from v6_algorithm.engines.known_models import LEAST_CHARACTERS, NAME, TEXT, Naming, forget, resolve
from v6_algorithm.engines.vantage6 import published, v4
from v6_algorithm.errors import SiteError
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.wire import Packed

EXPERIMENT = {
    "data": {"target": "y"},
    "model": {"kind": "mlp", "hidden": [128, 64]},
    "rounds": 3,
    "training": {"optimizer": {"kind": "adam", "lr": 0.05}, "batch_size": 16},
    "participation": {"poll_s": 0.01},
}


def model(letter: str) -> Packed:
    return Packed(letter * LEAST_CHARACTERS)


def sent(request: dict) -> dict:
    """What comes out of a network at the other end."""
    return json.loads(wire.to_text(request))


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=4), min_size=1, max_size=12))
def test_a_site_reads_what_was_asked_whatever_it_has(tmp_path_factory, rounds):
    """With room for three models on both sides."""
    naming, folder = Naming(), tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(known_models, "MOST_MODELS", 3)
        for letters in rounds:
            request = {"folds": [{"parameters": model(letter), "small": Packed("x")} for letter in letters]}
            assert resolve(sent(naming.named("a", request)), folder) == request
            naming.answered("a", request)
            assert len(list((folder / "models").iterdir())) <= 3


def test_a_site_without_a_folder_reads_what_came_and_keeps_nothing():
    assert resolve({"folds": [{"parameters": {NAME: "0" * 64, TEXT: "aaaa"}}]}, None) == {
        "folds": [{"parameters": "aaaa"}]
    }


def test_a_model_goes_once_and_its_name_afterwards(tmp_path):
    naming, request = Naming(), {"folds": [{"parameters": model("a")}]}
    (first,) = naming.named("a", request)["folds"]
    assert set(first["parameters"]) == {NAME, TEXT}
    naming.answered("a", request)
    (second,) = naming.named("a", request)["folds"]
    assert set(second["parameters"]) == {NAME}
    assert set(naming.named("b", request)["folds"][0]["parameters"]) == {NAME, TEXT}
    naming.lost("a")
    assert naming.named("a", request) == request


@pytest.mark.parametrize("name", ["../../etc/passwd", "0" * 64, 7, None])
def test_a_name_that_is_none_reads_no_file(tmp_path, name):
    with pytest.raises(SiteError, match="does not have a model") as refused:
        resolve({"folds": [{"parameters": {NAME: name}}]}, tmp_path)
    assert refused.value.kind == known_models.UNKNOWN


def test_a_damaged_file_is_as_good_as_none_and_the_end_takes_all_away(tmp_path):
    naming, request = Naming(), {"parameters": model("a")}
    resolve(sent(naming.named("a", request)), tmp_path)
    (file,) = (tmp_path / "models").iterdir()
    naming.answered("a", request)
    file.write_text("b" * LEAST_CHARACTERS)
    with pytest.raises(SiteError):
        resolve(sent(naming.named("a", request)), tmp_path)
    forget(tmp_path)
    assert not list((tmp_path / "models").iterdir())


# -- over vantage6's own client ----------------------------------------------------------------------------------------


@pytest.fixture
def trained(tables, monkeypatch, tmp_path):
    """Return a function that trains over a network on loopback whose nodes have a folder each run."""
    monkeypatch.setenv("V6_ALGORITHM_POLICY", "trusted")
    (tmp_path / "token").write_text("a token that this proxy does not look at")
    monkeypatch.setenv("TOKEN_FILE", str(tmp_path / "token"))
    organizations = numbered(tables)

    def run(name: str, *, encrypted: bool = True, **changes):
        monkeypatch.setenv("TEMPORARY_FOLDER", str(tmp_path / name))
        # `master` runs at a hub without a table of its own.
        with LoopbackProxy({1: ("hub", None), **organizations}) as proxy:
            proxy.encrypted = encrypted
            monkeypatch.setenv("HOST", "http://127.0.0.1")
            monkeypatch.setenv("PORT", str(proxy.server.server_address[1]))
            result = entry.run_master(proxy.client(), None, EXPERIMENT | changes, organizations=list(organizations))
            run.tasks = [task["name"] for task in proxy.tasks.values()]
            return result

    return run


def outcome(result: dict) -> dict:
    return {key: result[key] for key in ("history", "metrics", "parameters")}


def bytes_sent(result: dict, call: str) -> int:
    return sum(sum(one["bytes_sent"].values()) for one in result["timing"]["rounds"] if one["call"] == call)


@pytest.mark.slow
def test_an_evaluation_names_the_models_that_the_rounds_sent(trained):
    by_name, in_full = trained("by name"), trained("in full", resident=False)
    assert outcome(by_name) == outcome(in_full)
    # Of the last round's model and the best one, the second has been there.
    assert by_name["best_round"] < 3
    assert bytes_sent(by_name, "evaluate") < 0.6 * bytes_sent(in_full, "evaluate")


@pytest.mark.slow
def test_a_site_that_has_lost_its_folder_is_sent_all_of_it(trained, monkeypatch):
    expected = outcome(trained("whole"))
    resolve, requests = known_models.resolve, []

    def losing(request, folder, fetch):
        requests.append(request)
        forget(folder)
        return resolve(request, folder, fetch)

    monkeypatch.setattr(known_models, "resolve", losing)
    result = trained("losing")
    assert outcome(result) == expected
    assert not any(call["missing"] for call in result["participation"])
    texts = [json.dumps(request) for request in requests]
    assert any(text.count(NAME) > text.count(TEXT) for text in texts)


# -- published once ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_large_model_is_published_once_for_all_sites(trained, monkeypatch):
    expected = outcome(trained("in requests"))
    assert "published model" not in trained.tasks
    monkeypatch.setattr(v4, "LEAST_CHARACTERS", LEAST_CHARACTERS)
    result = trained("published", encrypted=False)
    # The models of rounds 1 to 3, each for three sites; the best one is at the sites when it is measured.
    assert trained.tasks.count("published model") == 3
    assert outcome(result) == expected
    trained("encrypted")
    assert "published model" not in trained.tasks


def test_models_of_four_million_characters_are_published():
    """And of smaller ones none, which another container is not worth."""
    federation, published_texts = object.__new__(v4.Vantage6Federation), []
    federation._naming = Naming()
    federation._publisher = SimpleNamespace(publish=lambda name, text: published_texts.append(text))
    for characters in (2**22 - 1, 2**22):
        request = {"folds": [{"parameters": Packed("a" * characters)}]}
        federation._publish({"a": request, "b": request})
    assert list(map(len, published_texts)) == [2**22]


@pytest.mark.parametrize(("encrypted", "asked"), [(False, "task/1"), (True, "result")])
def test_only_results_in_the_clear_are_asked_for_as_parts_of_their_tasks(monkeypatch, encrypted, asked):
    """A node's proxy decrypts what it is asked for under `result` alone."""
    with LoopbackProxy({1: ("a", None)}) as proxy:
        proxy.encrypted = encrypted
        proxy.tasks[1] = {"status": "completed", "result": base64.b64encode(b'{"answer": 7}').decode()}
        paths = []
        answer = proxy.get
        monkeypatch.setattr(proxy, "get", lambda path, query: (paths.append(path), answer(path, query))[1])
        federation = v4.Vantage6Federation(proxy.client())
        assert federation._result(1) == '{"answer": 7}'
    assert paths[-1] == asked


@pytest.mark.slow
def test_a_hub_that_cannot_publish_costs_nobody_the_run(trained, monkeypatch):
    expected = outcome(trained("in requests"))
    monkeypatch.setattr(v4, "LEAST_CHARACTERS", LEAST_CHARACTERS)
    monkeypatch.setattr(published, "publish", lambda request: {"status": "error"})
    result = trained("published", encrypted=False)
    assert outcome(result) == expected
    assert not any(call["missing"] for call in result["participation"])


@pytest.mark.parametrize("name", ["../secret", "a" * 64, None])
def test_only_what_master_left_is_published(tmp_path, monkeypatch, name):
    monkeypatch.setenv("TEMPORARY_FOLDER", str(tmp_path / "volume"))
    (tmp_path / "secret").write_text("of another job")
    assert published.publish({"model": name})["status"] == "error"


def test_a_site_does_not_take_another_text_for_the_model(tmp_path):
    request = {"parameters": {NAME: "0" * 64, known_models.TASK: 7}}
    with pytest.raises(SiteError, match="does not have a model"):
        resolve(request, tmp_path, lambda task: "x" * LEAST_CHARACTERS)
