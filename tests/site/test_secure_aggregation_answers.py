"""What a site refuses under secure aggregation, whoever asks: a hub that wants more than sums gets a named no."""

from __future__ import annotations

import copy
import json
import stat
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hospitals import table
from spying import Spy

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.local import LocalFederation
from v6_algorithm.errors import PolicyError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.site import SiteContext, handle, secure_aggregation
from v6_algorithm.site.policy import Policy
from v6_algorithm.site.rules import BY_FIELD
from v6_algorithm.site.state.aggregation import AggregationState

NAMES = ("amsterdam", "berlin", "cairo")
RUN = "0" * 32


@pytest.fixture(scope="module")
def watched():
    """A run of three sites, with what each was asked, and the sites as they are when it is over."""
    experiment = Experiment.parse(
        {
            "data": {"target": "y", "features": ["a", "b"]},
            "model": "logistic",
            "rounds": 2,
            "privacy": {"secure_aggregation": {"threshold": 2}},
        }
    )
    contexts = {
        name: SiteContext({name: TableSource(frame=table(40, seed))}, lasting=True) for seed, name in enumerate(NAMES)
    }
    spy = Spy(LocalFederation(contexts))
    assert run(spy, experiment)["status"] == "completed"
    return spy, contexts


@pytest.fixture
def sites(watched):
    """The requests of round 2, and the sites with their memories of the run."""
    spy, contexts = watched
    asked = {
        "train": [requests for method, requests in spy.requests if method == "RPC_train"][-1],
        "unmask": [
            requests
            for method, requests in spy.requests
            if method == "RPC_prepare" and requests["cairo"].get("step") == "secure_aggregation_unmask"
        ][2],
        "statistics": next(
            requests
            for method, requests in spy.requests
            if method == "RPC_prepare" and requests["cairo"].get("step") == "statistics"
        ),
    }
    assert asked["train"]["cairo"]["round"] == asked["unmask"]["cairo"]["round"] == 2
    return copy.deepcopy(asked), {
        name: replace(context, memory=copy.deepcopy(context.memory)) for name, context in contexts.items()
    }


def answer(method, request, context):
    return handle(method, json.loads(wire.to_text(request)), context)


def test_the_same_request_again_is_answered_with_other_masks(sites):
    asked, contexts = sites
    first, second = (answer("train", asked["train"]["berlin"], contexts["berlin"]) for _ in range(2))
    assert first["status"] == second["status"] == "ok"
    assert first["masked"]["numbers"] != second["masked"]["numbers"]


def test_an_evaluation_sends_sums_of_metrics_and_no_update(watched):
    spy, contexts = watched
    asked = [requests for method, requests in spy.requests if method == "RPC_evaluate"][-1]["cairo"]
    context = replace(contexts["cairo"], memory=copy.deepcopy(contexts["cairo"].memory))
    masked = answer("evaluate", asked, context)["masked"]
    assert masked["updates"] == 0


def test_the_same_question_in_another_call_is_refused(sites):
    """Over other sites its sum would tell, by the difference, the numbers of those left out."""
    asked, contexts = sites
    request = asked["train"]["berlin"]
    request["secure_aggregation"]["call"] += 10
    assert "was answered already, to another request" in answer("train", request, contexts["berlin"])["message"]


def test_another_training_in_the_same_round_is_refused(sites):
    asked, contexts = sites
    request = asked["train"]["berlin"]
    request["secure_aggregation"]["call"] += 10
    request["weights"]["0"] += 1
    reply = answer("train", request, contexts["berlin"])
    assert reply["status"] == "error"
    assert "the training of round 2 was answered already" in reply["message"]


def test_a_request_without_participants_is_refused(sites):
    asked, contexts = sites
    for method, request in (("train", asked["train"]["berlin"]), ("prepare", asked["statistics"]["berlin"])):
        del request["secure_aggregation"]
        assert "names no participants" in answer(method, request, contexts["berlin"])["message"]


def test_a_second_list_of_participants_in_a_run_is_refused(sites):
    """A hub that splits the sites into two federations has to show one of them a second list."""
    asked, contexts = sites
    request = asked["train"]["berlin"]
    del request["secure_aggregation"]["participants"][2]
    assert "the list of participants was answered already" in answer("train", request, contexts["berlin"])["message"]


def test_a_list_with_another_key_for_this_site_is_refused(sites):
    asked, contexts = sites
    request = asked["train"]["berlin"]
    request["secure_aggregation"]["participants"][1]["mask"] = "ab" * 32
    assert "other keys than its own for site 'berlin'" in answer("train", request, contexts["berlin"])["message"]


def test_a_sum_is_opened_once_over_one_set_of_sites(sites):
    asked, contexts = sites
    request = asked["unmask"]["berlin"]
    again = answer("prepare", request, contexts["berlin"])
    assert again["status"] == "ok"
    assert set(again["shares"]) == set(NAMES)
    fewer = copy.deepcopy(request)
    fewer["arrived"].remove("cairo")
    del fewer["letters"]["cairo"]
    reply = answer("prepare", fewer, contexts["berlin"])
    assert "was answered already, to another request" in reply["message"]


def test_a_sum_over_fewer_sites_than_the_threshold_stays_closed(sites):
    asked, contexts = sites
    request = asked["unmask"]["berlin"]
    request["arrived"], request["letters"] = ["berlin"], {"berlin": request["letters"]["berlin"]}
    assert "the threshold is 2" in answer("prepare", request, contexts["berlin"])["message"]


def test_letters_under_another_question_do_not_open(sites):
    asked, contexts = sites
    request = asked["unmask"]["berlin"]
    request["question"] = "0" * 64
    assert "do not open" in answer("prepare", request, contexts["berlin"])["message"]


def test_a_threshold_in_the_experiment_that_is_too_low_is_refused_by_the_site_too(sites):
    asked, contexts = sites
    request = asked["train"]["berlin"]
    request["experiment"]["privacy"]["secure_aggregation"]["threshold"] = 4
    assert "a threshold of 4 of 3 sites does not do" in answer("train", request, contexts["berlin"])["message"]


@pytest.mark.parametrize("step", ["quantiles", "moments"])
def test_steps_that_are_not_sums_are_refused(sites, step):
    asked, contexts = sites
    request = asked["statistics"]["berlin"] | {"step": step}
    request["range"] = wire.pack({})
    assert answer("prepare", request, contexts["berlin"])["status"] == "error"


@pytest.mark.parametrize(
    "wrong",
    [
        {"run": "x"},
        {"run": RUN, "call": 0, "participants": []},
        {"run": RUN, "call": 1, "participants": "all"},
        {"run": RUN, "call": 1, "participants": [{"site": "berlin"}]},
        {"run": RUN, "call": 1, "participants": [None]},
        [],
        None,
    ],
    ids=str,
)
def test_what_is_no_list_of_participants_is_refused_and_no_bug(sites, wrong):
    asked, contexts = sites
    request = asked["train"]["berlin"] | {"secure_aggregation": wrong}
    reply = answer("train", request, contexts["berlin"])
    assert (reply["status"], reply["kind"]) == ("error", "request")


@pytest.mark.slow
def test_the_protocols_own_calls_load_no_torch(sites):
    """So that the second call of a round costs a node the start of a container and little more."""
    asked, _ = sites
    request = asked["unmask"]["berlin"]
    request["step"] = "secure_aggregation_keys"
    code = (
        "import json, sys, tempfile; from pathlib import Path; from v6_algorithm.site import SiteContext, handle; "
        "from v6_algorithm.data.sources import TableSource; "
        "site = SiteContext({'berlin': TableSource('a.csv')}, state=Path(tempfile.mkdtemp())); "
        "print(handle('prepare', json.load(sys.stdin), site)['status'], 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=wire.to_text(request), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["ok", "False"]


def test_a_site_without_a_place_that_lasts_says_so(sites):
    asked, contexts = sites
    passing = replace(contexts["berlin"], lasting=False, memory={})
    assert "TEMPORARY_FOLDER" in answer("train", asked["train"]["berlin"], passing)["message"]


def test_keys_last_in_the_folder_which_only_its_owner_reads(tmp_path):
    context = SiteContext({}, state=tmp_path)
    made = AggregationState(context, RUN, "berlin").keys(begins=True).public(RUN)
    assert AggregationState(SiteContext({}, state=tmp_path), RUN, "berlin").keys().public(RUN) == made
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert AggregationState(context, "1" * 32, "berlin").keys(begins=True).public(RUN).mask != made.mask


def test_a_folder_alone_does_not_give_the_keys_of_a_node_with_a_secret(tmp_path):
    with_secret = SiteContext({}, state=tmp_path, policy=Policy(node_secret="ab" * 32))
    made = AggregationState(with_secret, RUN, "berlin").keys(begins=True).public(RUN)
    assert AggregationState(SiteContext({}, state=tmp_path), RUN, "berlin").keys().public(RUN) != made


@pytest.mark.parametrize("field", ["node_secret", "aggregation_secret"])
@pytest.mark.parametrize("given", ["", "short", " " * 70, "x" * 64])
def test_a_secret_that_can_be_guessed_is_refused_by_name(field, given):
    name = BY_FIELD[field].variable
    with pytest.raises(PolicyError, match=name):
        Policy.from_environment({name: given})
    policy = Policy.from_environment({name: "ab" * 32})
    assert policy.in_force()[field] is True


def test_nodes_that_share_a_secret_refuse_a_run_of_swapped_keys(sites):
    asked, contexts = sites
    shared = replace(contexts["berlin"], policy=Policy(aggregation_secret="cd" * 32))
    reply = answer("train", asked["train"]["berlin"], shared)
    assert "V6_ALGORITHM_AGGREGATION_SECRET" in reply["message"]


def test_a_site_without_training_rows_adds_nothing_to_a_sum():
    from types import SimpleNamespace

    from v6_algorithm.exchange.wire import TensorSpec
    from v6_algorithm.site.secure_aggregation import untrained

    spec = {
        "w": TensorSpec((2, 3), "float32"), "mean": TensorSpec((3,), "float32", "buffer"),
        "steps": TensorSpec((), "int64", "counter"),
    }  # fmt: skip
    added = untrained(SimpleNamespace(), spec, term=True)
    assert (added["rows"], added["loss"], added["steps"]) == (0, {"sum": 0.0, "rows": 0}, 0)
    assert added["parameters"].moved.tolist() == added["parameters"].term.tolist() == [0.0] * 6
    assert added["parameters"].others == {"mean": [0.0] * 3, "steps": [0]}


@pytest.mark.parametrize(
    ("secret", "folder", "sealed"), [(None, True, False), ("ab" * 32, True, True), (None, False, True)]
)
def test_keys_are_sealed_where_the_folder_alone_does_not_give_them(tmp_path, monkeypatch, secret, folder, sealed):
    monkeypatch.setattr(secure_aggregation, "_run_of", lambda work: RUN)
    monkeypatch.setattr(secure_aggregation, "_shared_secret", lambda work: None)
    context = SiteContext({}, state=tmp_path if folder else None, lasting=True, policy=Policy(node_secret=secret))
    work = SimpleNamespace(context=context, policy=context.policy, site="berlin")
    assert secure_aggregation.answer_keys(work)["sealed"] is sealed


@pytest.mark.parametrize(
    ("method", "step", "hidden"),
    [
        ("summary", None, False), ("prepare", "schema", False), ("prepare", "statistics", True), ("train", None, True),
        ("train", "schema", True), ("evaluate", "preflight", True),
    ],
)  # fmt: skip
def test_all_but_questions_without_rows_are_masked(method, step, hidden):
    privacy = SimpleNamespace(secure_aggregation=SimpleNamespace(threshold=2))
    request = {"step": step, "secure_aggregation": {}}
    work = SimpleNamespace(request=request, experiment=SimpleNamespace(privacy=privacy))
    assert secure_aggregation.check_hidden(work, method) is hidden


def test_copies_that_are_too_few_to_be_told_add_nothing_to_a_sum(monkeypatch):
    for name in ("arrays_to_lists", "moments_to_sums"):
        monkeypatch.setattr(f"v6_algorithm.data.preparation.additive.{name}", lambda given: given)
    body = dict.fromkeys(("class_counts", "sums", "moments", "targets", "trained_on", "spec", "hidden", "start"))
    body |= {"counts": [{"berlin": 3}], "copies": {"rows": 6, "apart": None}}
    assert secure_aggregation._statistics(body)[1]["copies"] == {"rows": 6, "apart": 0}
    assert secure_aggregation._statistics(body | {"copies": None})[1]["copies"] is None


def test_a_training_is_named_by_its_round_and_any_other_question_by_what_it_asks():
    """Whoever runs `master` again trains the same round once, and may ask what was not asked before."""

    def name(method, round=1, **content):
        work = SimpleNamespace(request={"experiment": {"rounds": 3}}, round=round)
        return secure_aggregation._numbers(work, method, content)

    assert name("train", folds=1) == name("train", folds=2) != name("train", round=2)
    assert name("prepare", step="moments") != name("prepare", step="quantiles")
    assert name("prepare", step="moments", attempt=1, sites=["a"]) == name("prepare", step="moments", attempt=2)
