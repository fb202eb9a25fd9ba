"""Requests come as a training run makes them: each sentence of docs/node-policy.md about the order, at its place."""

from __future__ import annotations

import copy

import pytest
import torch

from v6_algorithm.errors import PolicyError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.site.guard.order import Order

BASE = {"data": {"target": "y"}, "model": "logistic", "rounds": 4, "split": {"kind": "kfold", "folds": 3}}


def packed(number: float) -> str:
    return str(wire.pack({"model.weight": torch.full((1, 2), number)}))


def item(fold=0, model=None, *, train=True, evaluate=(), **more):
    parameters = None if model is None else packed(model)
    return {"fold": fold, "parameters": parameters, "train": train, "evaluate": list(evaluate), **more}


class Job:
    """What one job has asked a node so far."""

    def __init__(self, *, weights=False, most=200):
        self.content, self.weights, self.most = {}, weights, most

    def ask(self, method, changes=None, **request):
        experiment = Experiment.parse(BASE | (changes or {}))
        content = copy.deepcopy(self.content)
        # A refused request leaves nothing behind, as in the ledger.
        Order(content, experiment, most_experiments=self.most, researcher_weights=self.weights).admit(
            method, {"round": 0, **request}
        )
        self.content = content

    def prepared(self):
        self.ask("prepare", step="schema")
        self.ask("prepare", step="statistics", setup={"features": ["a"]})
        return self

    def trained(self, rounds=2):
        self.prepared()
        for number in range(1, rounds + 1):
            self.ask("train", round=number, folds=[item(0, None if number == 1 else float(number))])
        return self

    def refused(self, words, method, **request):
        with pytest.raises(PolicyError, match=words):
            self.ask(method, **request)


def test_a_run_of_masters_is_let_in_from_beginning_to_end():
    job = Job().trained(rounds=4)
    job.ask("evaluate", round=4, folds=[item(0, 4.0, train=False, evaluate=["test"])])
    # The newest model and an average, which no site has seen.
    for model in (5.0, 6.0):
        job.ask("evaluate", round=4, folds=[item(0, model, train=False, evaluate=["test"])])


def test_a_request_word_for_word_is_answered_again():
    job = Job().trained()
    for attempt in (2, 3):
        job.ask("train", round=2, attempt=attempt, folds=[item(0, 2.0)])


def test_a_step_comes_after_the_one_that_it_needs():
    Job().refused("step statistics comes after step schema", "prepare", step="statistics")


@pytest.mark.parametrize("method", ["train", "evaluate"])
def test_nothing_is_trained_or_measured_before_the_preparation(method):
    Job().refused("come after the preparation", method, round=1, folds=[item()])


def test_a_description_begins_with_the_columns():
    Job().refused("step moments comes after step columns", "summary", step="moments", features=["a"])


@pytest.mark.parametrize(
    ("changes", "section"),
    [
        ({"seed": 5}, "seed"),
        ({"data": {"target": "y", "where": {"age": "> 60"}}}, "data"),
        ({"data": {"target": "y", "positive": "> 1"}}, "data"),
        ({"data": {"target": "y", "missing_values": {"a": [9]}}}, "data"),
        ({"split": {"kind": "kfold", "folds": 4}}, "split"),
        ({"evaluation": {"subgroups": ["sex"]}}, "evaluation"),
    ],
)
def test_another_definition_of_the_rows_is_refused_within_a_task(changes, section):
    Job().trained().refused(f"{section}.* must stay the same", "train", changes=changes, round=3, folds=[item(0, 3.0)])


def test_a_step_with_ever_other_numbers_is_not_answered():
    job = Job().prepared()
    for number in range(2):
        job.ask("prepare", step="statistics", setup={"features": ["a", f"{number}"]})
    job.refused("with other numbers it is not answered", "prepare", step="statistics", setup={"features": ["z"]})


@pytest.mark.parametrize("number", [1, 5, 1000])
def test_rounds_ascend_and_end(number):
    Job().trained().refused("out of order", "train", round=number, folds=[item(0, 7.0)])


def test_a_fold_is_trained_once_a_round_with_one_model():
    job = Job().trained()
    job.refused("a training run does so once, with one model", "train", round=2, folds=[item(0, 2.5)])
    job.refused("named twice in one round", "train", round=3, folds=[item(0, 3.0), item(0, 3.0)])


@pytest.mark.parametrize(
    "more",
    [{"evaluate": ["test"]}, {"evaluate": ["train"]}, {"baseline": 1}, {"subgroups": ["test"]}, {"personal": True}],
    ids=str,
)
def test_a_round_measures_validation_rows_and_nothing_else(more):
    Job().trained().refused("measures validation rows only", "train", round=3, folds=[item(0, 3.0, **more)])


def test_the_first_round_takes_no_weights_of_the_researchers():
    Job().prepared().refused("weights from elsewhere", "train", round=1, folds=[item(0, 1.0)])
    Job(weights=True).prepared().ask("train", round=1, folds=[item(0, 1.0)])


def test_only_models_that_the_site_has_seen_and_three_more_are_measured():
    """A crafted model in an evaluation told 198 of 200 values; private layers were read through nine evaluations."""
    job = Job().trained(rounds=4)
    for model in (10.0, 11.0, 13.0):
        job.ask("evaluate", round=4, folds=[item(0, model, train=False, evaluate=["test"])])
    job.refused(
        "only models seen in training", "evaluate", round=4, folds=[item(0, 12.0, train=False, evaluate=["test"])]
    )
    # One that it trained may come back.
    job.ask("evaluate", round=4, folds=[item(0, 3.0, train=False, evaluate=["test"])])


def test_an_evaluation_trains_nothing_and_names_a_model_once():
    job = Job().trained()
    job.refused("trains nothing", "evaluate", round=2, folds=[item(0, 2.0)])
    once = item(0, 2.0, train=False, evaluate=["test"])
    job.refused("a fold and its model twice", "evaluate", round=2, folds=[once, once])
    # As it is, and trained on with the site's own rows.
    job.ask("evaluate", round=2, folds=[once, {**once, "personal": True}])


def test_evaluations_have_an_end():
    job = Job().trained()
    for number in range(8):
        job.ask("evaluate", round=2, folds=[item(0, 2.0, train=False, evaluate=["test"], subgroups=["test"] * number)])
    job.refused("was evaluated 8 times", "evaluate", round=2, folds=[item(0, 2.0, train=False, subgroups=["test"] * 9)])


def test_an_evaluation_of_a_round_that_was_not_is_refused():
    Job().trained(rounds=4).refused("out of order", "evaluate", round=1, folds=[item(0, 1.0, train=False)])
    Job().trained().refused("out of order", "evaluate", round=9, folds=[item(0, 1.0, train=False)])


def test_the_model_of_an_earlier_round_is_measured_when_a_later_one_has_found_training_to_be_over():
    """Early stopping is found in the answers to a round, whose models are not used."""
    Job().trained(rounds=3).ask("evaluate", round=2, folds=[item(0, 3.0, train=False, evaluate=["test"])])
