"""What the first round starts from: given weights, an earlier run, weights in the image, the largest site."""

import base64
import copy
import json
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from hospitals import command, read_result, write
from spying import lose

from v6_algorithm.coordinator.master import run
from v6_algorithm.coordinator.rounds.initial_model import read_weights
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.local import LocalFederation
from v6_algorithm.errors import ExperimentError, FederationError
from v6_algorithm.exchange import wire
from v6_algorithm.learning.training.state import WEIGHTS
from v6_algorithm.site import SiteContext
from v6_algorithm.site.policy import Policy

KFOLD = {"kind": "kfold", "folds": 3}


def of_run(result):
    """The model file of a run, as text."""
    return result["parameters"]


def first_request(spy, site="berlin"):
    return spy.of("RPC_train")[0][site]["folds"]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def kept():
    """What is made once for the tests of this file."""
    return {}


@pytest.fixture
def begun(spied, make_experiment, kept):
    """A run of two rounds that keeps its last model."""
    if "begun" not in kept:
        kept["begun"] = spied(make_experiment(rounds=2, output={"model": "last"}))[1]
    return copy.deepcopy(kept["begun"])


@pytest.fixture
def goes_on(spied):
    def go(experiment, weights, tamper=None, sites=None):
        return spied(experiment, tamper, sites, weights=weights)

    return go


# -- weights of the researcher -------------------------------------------------------------------------------------


def test_the_first_request_carries_the_weights_and_the_experiment_does_not(goes_on, make_experiment, begun):
    spy, _ = goes_on(make_experiment(start="model.safetensors"), of_run(begun))
    assert same(wire.unpack(first_request(spy)[0]["parameters"]), wire.unpack(of_run(begun)))
    # Nor does a site learn what the researcher's files are called.
    assert "model.safetensors" not in json.dumps(spy.of("RPC_train")[0]["berlin"]["experiment"])


def test_a_state_dict_of_the_network_alone_is_taken_too(goes_on, make_experiment, begun):
    bare = {name.removeprefix("model."): tensor for name, tensor in wire.unpack(of_run(begun)).items()}
    spy, result = goes_on(make_experiment(start="x.safetensors"), wire.pack(bare))
    assert same(wire.unpack(first_request(spy)[0]["parameters"]), wire.unpack(of_run(begun)))
    assert not [note for note in result["notes"] if "start.weights" in note]


def test_weights_are_cast_to_the_training_dtype(goes_on, make_experiment, begun):
    half = {name: tensor.half() for name, tensor in wire.unpack(of_run(begun)).items()}
    spy, _ = goes_on(make_experiment(start="x.safetensors"), wire.pack(half))
    assert {tensor.dtype for tensor in wire.unpack(first_request(spy)[0]["parameters"]).values()} == {torch.float32}


def test_a_file_without_its_content_is_refused_before_any_site_is_asked(run_locally, tables, make_experiment):
    with pytest.raises(ExperimentError, match="names a file of the researcher; give its content too"):
        run_locally(make_experiment(start="x.safetensors"), tables)


def other(begun, **changes):
    tensors = wire.unpack(of_run(begun))
    return wire.pack({name: tensor for name, tensor in (tensors | changes).items() if tensor is not None})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model.0.weight": torch.zeros(8, 5)}, r"tensor 'model.0.weight' has shape \[8, 5\], expected \[8, 4\]"),
        ({"model.0.weight": None}, "tensor 'model.0.weight' is missing; `start.partial: true` takes over what fits"),
        ({"model.9.weight": torch.zeros(2)}, "tensor 'model.9.weight' is not part of the model"),
        ({"model.0.weight": torch.full((8, 4), float("nan"))}, "holds non-finite numbers"),
    ],
)
def test_weights_that_do_not_fit_are_refused(goes_on, make_experiment, begun, change, reason):
    """peers.md trap 16: a checkpoint of another architecture loads silently."""
    with pytest.raises(ExperimentError, match=rf"start.weights: .*{reason}"):
        goes_on(make_experiment(start="x.safetensors"), other(begun, **change))


def test_what_is_no_safetensors_is_refused(goes_on, make_experiment):
    for weights in ("never base64!", base64.b64encode(b"PK\x03\x04 a pickle").decode(), 7):
        with pytest.raises(ExperimentError, match=r"start.weights: tensors (are not valid|must be) base64"):
            goes_on(make_experiment(start="x.safetensors"), weights)


def test_partly_fitting_weights_leave_the_rest_to_the_seed(spied, goes_on, make_experiment, begun):
    """Another layer at the end: what is new is the same at every site."""
    experiment = make_experiment(
        start={"weights": "x.safetensors", "partial": True}, model={"kind": "mlp", "hidden": [8, 6]}, rounds=1,
        training={"optimizer": {"kind": "sgd", "lr": 1e-30}},
    )  # fmt: skip
    spy, result = goes_on(experiment, of_run(begun))
    sent = wire.unpack(first_request(spy)[0]["parameters"])
    assert set(sent) == {"model.0.weight", "model.0.bias", "model.1.weight", "model.1.bias"}
    # A learning rate of nothing: what comes back is what the sites started from.
    ends, earlier = wire.unpack(of_run(result)), wire.unpack(of_run(begun))
    assert all(torch.equal(ends[name], earlier[name]) for name in sent)
    _, of_seed = spied(make_experiment(model=experiment.model, rounds=1, training=experiment.training))
    rest = wire.unpack(of_run(of_seed))
    assert all(torch.allclose(ends[name], rest[name], rtol=0, atol=1e-20) for name in set(ends) - set(sent))
    assert any(
        note.startswith("start.weights: 6 of 10 tensors start from the seed: model.3") for note in result["notes"]
    )


def test_weights_of_which_nothing_fits_are_refused_even_in_part(goes_on, make_experiment):
    experiment = make_experiment(start={"weights": "x.safetensors", "partial": True})
    with pytest.raises(ExperimentError, match="none of its tensors fits the model"):
        goes_on(experiment, wire.pack({"conv.weight": torch.zeros(3)}))


# -- an earlier run ------------------------------------------------------------------------------------------------


def test_a_run_goes_on_where_an_earlier_one_ended(goes_on, make_experiment, begun, spied):
    """Two rounds and two more are four, where batches do not hang on the round."""
    options = {"training": {"batch_size": None, "optimizer": {"kind": "sgd", "lr": 0.5}}, "output": {"model": "last"}}
    _, two = spied(make_experiment(rounds=2, **options))
    _, four = spied(make_experiment(rounds=4, **options))
    _, again = goes_on(make_experiment(rounds=2, start="runs/two", **options), of_run(two))
    assert same(wire.unpack(of_run(again)), wire.unpack(of_run(four)))


def test_every_fold_goes_on_with_its_own_model(goes_on, spied, make_experiment):
    _, before = spied(make_experiment(split=KFOLD, rounds=1))
    spy, result = goes_on(make_experiment(split=KFOLD, rounds=1, start="runs/before"), of_run(before))
    models = wire.unpack(of_run(before))
    for item in first_request(spy):
        own = {name: models[f"fold-{item['fold']}/{name}"] for name in wire.unpack(item["parameters"])}
        assert same(wire.unpack(item["parameters"]), own)
    assert not [note for note in result["notes"] if "start.weights" in note]


def test_local_models_go_on_each_with_their_own(goes_on, spied, make_experiment):
    _, before = spied(make_experiment(mode="local", rounds=1))
    spy, _ = goes_on(make_experiment(mode="local", rounds=1, start="runs/before"), of_run(before))
    models = wire.unpack(of_run(before))
    for requests in spy.of("RPC_train"):
        ((site, request),) = requests.items()
        sent = wire.unpack(request["folds"][0]["parameters"])
        assert same(sent, {name: models[f"{site}/{name}"] for name in sent})


def test_the_earlier_runs_scales_are_kept_for_its_model(goes_on, tables, make_experiment, begun):
    """Scaled otherwise, the same rows would be other inputs, and the model another function."""
    grown = TableSource(frame=tables["berlin"].frame.assign(a=tables["berlin"].frame["a"] * 3))
    _, result = goes_on(make_experiment(start="runs/begun", rounds=1), of_run(begun), sites={**tables, "berlin": grown})
    assert result["preparation"]["shift"] == begun["preparation"]["shift"]
    assert result["preparation"]["scale"] == begun["preparation"]["scale"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": {"kind": "mlp", "hidden": [8], "activation": "tanh"}}, "the earlier run had model .*relu"),
        ({"data": {"target": "y", "scaling": "minmax"}}, "the earlier run had data.scaling .*standard"),
        ({"data": {"target": "y", "missing": "median"}}, "the earlier run had data.missing .*mean"),
        ({"data": {"target": "y", "positive": "> 0"}}, "the earlier run had data.positive None"),
        ({"data": {"target": "y", "features": ["b", "a", "c", "d"]}}, "other features .*: 'a' there, 'b' here"),
        ({"split": KFOLD}, None),
    ],
)
def test_an_earlier_run_of_something_else_is_refused(goes_on, make_experiment, begun, change, reason):
    experiment = make_experiment(start="runs/begun", rounds=1, **change)
    if reason is None:
        # A model for all folds is no mistake, but its rows may be tested here.
        _, result = goes_on(experiment, of_run(begun))
        assert any("may have been trained on rows that are tested here" in note for note in result["notes"])
        return
    with pytest.raises(ExperimentError, match=rf"start.weights: .*{reason}"):
        goes_on(experiment, of_run(begun))


def test_other_classes_are_refused(goes_on, tables, make_experiment, begun):
    renamed = {
        name: TableSource(frame=table.frame.assign(y=table.frame["y"].map({0: "no", 1: "yes"})))
        for name, table in tables.items()
    }
    with pytest.raises(ExperimentError, match=r"other classes .*: 0 there, 'no' here"):
        goes_on(make_experiment(start="runs/begun"), of_run(begun), sites=renamed)


def test_another_number_of_folds_is_refused(goes_on, spied, make_experiment):
    _, before = spied(make_experiment(split=KFOLD, rounds=1))
    for split in ({"kind": "kfold", "folds": 4}, "ratio"):
        with pytest.raises(
            ExperimentError, match=r"holds 3 models \(fold-0, fold-1, fold-2\), this run trains (4|one)"
        ):
            goes_on(make_experiment(split=split, start="runs/before"), of_run(before))


def test_a_header_that_was_tampered_with_is_refused(goes_on, make_experiment, begun):
    about = json.loads(wire.read_metadata(of_run(begun))["v6_algorithm"])
    tensors = wire.unpack(of_run(begun))
    for numbers in ([0.0] * 4, [1.0], ["x"] * 4, None, [float("nan")] * 4):
        header = about | {"preparation": about["preparation"] | {"scale": numbers}}
        with pytest.raises(ExperimentError, match=r"start.weights: the file's header"):
            goes_on(make_experiment(start="x"), wire.pack(tensors, {"v6_algorithm": json.dumps(header)}))
    for text in ("[]", "{", '{"preparation": 3, "data": {}}'):
        with pytest.raises(ExperimentError, match="header is not one of a run"):
            goes_on(make_experiment(start="x"), wire.pack(tensors, {"v6_algorithm": text}))


# -- files ---------------------------------------------------------------------------------------------------------


def test_the_command_line_goes_on_from_the_folder_of_a_run(tmp_path):
    file = write(tmp_path, rounds=2)
    assert command("run", file, "--out", tmp_path / "first").exit_code == 0
    for start in ("first", "first/model.safetensors", "first/result.json"):
        done = command(
            "run", file, "--out", tmp_path / "second", "--force", "--set", f"start={start}", "--set", "rounds=1"
        )
        assert done.exit_code == 0, done.output
        first, second = read_result(tmp_path / "first"), read_result(tmp_path / "second")
        assert second["experiment"]["start"]["weights"] == start
        assert second["history"]["train_loss"][0] < first["history"]["train_loss"][0]


@pytest.mark.parametrize("how", ["run", "validate"])
def test_a_file_that_is_not_there_is_told_before_anything_is_trained(tmp_path, how):
    done = command(how, write(tmp_path), "--set", "start=gone.safetensors")
    assert done.exit_code == 2
    assert "start.weights: gone.safetensors cannot be read" in done.output


@pytest.mark.parametrize("name", ["weights.pt", "weights.pth", "pytorch_model.bin"])
def test_dinunet_bug_a_pickle_is_never_read(tmp_path, make_experiment, name):
    """seeds.md 2.10: coinstac-dinunet gives other people's weights to torch.load."""
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'echo'\ntR.")
    with pytest.raises(ExperimentError, match=r"a pickle .* is not read, for it is code"):
        read_weights(make_experiment(start=name), tmp_path)


def test_a_result_without_a_model_is_refused(tmp_path, make_experiment):
    for text in ("{}", "[]", "no json", '{"parameters": null}'):
        (tmp_path / "result.json").write_text(text)
        with pytest.raises(ExperimentError, match="not the result of a run that has a model"):
            read_weights(make_experiment(start="result.json"), tmp_path)


# -- weights in the image ------------------------------------------------------------------------------------------


def test_weights_in_the_image_are_read_at_the_sites(spied, make_experiment, begun, tmp_path, monkeypatch):
    monkeypatch.setenv(WEIGHTS, str(tmp_path))
    safetensors.torch.save_file(wire.unpack(of_run(begun)), tmp_path / "base.safetensors")
    training = {"optimizer": {"kind": "sgd", "lr": 1e-30}}
    spy, result = spied(make_experiment(start="image:base.safetensors", rounds=1, training=training))
    assert first_request(spy)[0]["parameters"] is None
    assert same(wire.unpack(of_run(result)), wire.unpack(of_run(begun)))


def test_an_image_without_the_weights_is_told_before_training(spied, make_experiment, tmp_path, monkeypatch):
    monkeypatch.setenv(WEIGHTS, str(tmp_path))
    with pytest.raises(ExperimentError, match=r"site 'amsterdam': the image at this site has no weights 'base"):
        spied(make_experiment(start="image:base.safetensors"))
    (tmp_path / "base.safetensors").write_bytes(b"no weights")
    with pytest.raises(ExperimentError, match="cannot be read as safetensors"):
        spied(make_experiment(start="image:base.safetensors"))


# -- weights at the sites ------------------------------------------------------------------------------------------

AT_SITES = {"start": "site:base.safetensors", "rounds": 1, "training": {"optimizer": {"kind": "sgd", "lr": 1e-30}}}


@pytest.fixture
def at_sites(tables, begun, tmp_path):
    """The sites with a folder each, which holds a model's weights; and the folders."""
    folders = {name: tmp_path / name for name in tables}
    for folder in folders.values():
        folder.mkdir()
        safetensors.torch.save_file(wire.unpack(of_run(begun)), folder / "base.safetensors")
    return {name: replace(source, base=folders[name]) for name, source in tables.items()}, folders


def test_weights_at_the_sites_are_read_there(at_sites, make_experiment, run_locally, begun):
    result = run_locally(make_experiment(**AT_SITES), at_sites[0])
    assert same(wire.unpack(of_run(result)), wire.unpack(of_run(begun)))


def test_a_nodes_owner_may_keep_weights_in_a_folder_of_their_own(tables, at_sites, make_experiment, run_locally, begun):
    with pytest.raises(ExperimentError, match=r"no weights 'base.safetensors' .*, for its data are in no folder"):
        run_locally(make_experiment(**AT_SITES), tables)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(WEIGHTS, str(at_sites[1]["berlin"]))
        result = run_locally(make_experiment(**AT_SITES), tables)
    assert same(wire.unpack(of_run(result)), wire.unpack(of_run(begun)))


def test_sites_whose_weights_differ_are_told_before_training(at_sites, make_experiment, run_locally):
    sources, folders = at_sites
    tensors = safetensors.torch.load_file(folders["berlin"] / "base.safetensors")
    safetensors.torch.save_file({name: tensor + 1 for name, tensor in tensors.items()}, folders["berlin"] / "b")
    (folders["berlin"] / "b").rename(folders["berlin"] / "base.safetensors")
    with pytest.raises(ExperimentError, match=r"for their files 'site:base.safetensors' .* differ: amsterdam"):
        run_locally(make_experiment(**AT_SITES), sources)


def test_weights_that_are_missing_broken_or_a_link_out_of_the_folder_are_told(at_sites, make_experiment, run_locally):
    sources, folders = at_sites
    file = folders["berlin"] / "base.safetensors"
    file.unlink()
    with pytest.raises(ExperimentError, match=r"site 'berlin': this site has no weights 'base.safetensors'"):
        run_locally(make_experiment(**AT_SITES), sources)
    file.symlink_to(folders["cairo"] / "base.safetensors")
    with pytest.raises(ExperimentError, match=r"site 'berlin': the weights .* are a link out of their folder"):
        run_locally(make_experiment(**AT_SITES), sources)
    file.unlink()
    file.write_bytes(b"no weights")
    with pytest.raises(ExperimentError, match="cannot be read as safetensors"):
        run_locally(make_experiment(**AT_SITES), sources)


@pytest.mark.parametrize("name", ["../base.safetensors", "a/base.safetensors", "base.pt", ""])
def test_weights_at_the_sites_have_a_plain_name(make_experiment, name):
    with pytest.raises(ExperimentError, match=r"site: needs the name of a \.safetensors file, without folders"):
        make_experiment(start=f"site:{name}")


# -- pretraining at the largest site -------------------------------------------------------------------------------


def test_dinunet_bug_pretraining_at_the_largest_site_really_happens(spied, make_experiment):
    """seeds.md 2.10: coinstac-dinunet computes the pretraining's settings and then does not use them."""
    spy, result = spied(make_experiment(start={"pretrain_epochs": 3}))
    pretraining, first, *_ = spy.of("RPC_train")
    assert list(pretraining) == ["amsterdam"]
    (answer,) = [reply for method, site, reply in spy.replies if method == "RPC_train" and reply["round"] == 0]
    # Three epochs of 36 rows in batches of 8.
    assert answer["folds"][0]["steps"] == 15
    for request in first.values():
        assert same(wire.unpack(request["folds"][0]["parameters"]), wire.unpack(answer["folds"][0]["parameters"]))
    assert "pretrained for 3 epochs at the largest site, 'amsterdam'" in result["notes"]
    assert result["history"]["round"] == [1, 2, 3, 4]


def test_each_fold_is_pretrained_at_the_largest_site_that_trains_it(spied, make_experiment):
    spy, result = spied(make_experiment(split={"kind": "leave_one_site_out"}, start={"pretrain_epochs": 1}))
    asked = {site: [item["fold"] for item in r["folds"]] for site, r in spy.of("RPC_train")[0].items()}
    assert asked == {"berlin": [0], "amsterdam": [1, 2]}
    assert "fold 0: pretrained for 1 epochs at the largest site, 'berlin'" in result["notes"]


def test_the_next_largest_site_pretrains_when_the_largest_is_lost(spied, make_experiment):
    spy, result = spied(make_experiment(start={"pretrain_epochs": 1}), lose("amsterdam", {0}))
    assert [list(requests) for requests in spy.of("RPC_train")[:2]] == [["amsterdam"], ["berlin"]]
    assert "pretrained for 1 epochs at the largest site, 'berlin'" in result["notes"]


def test_pretraining_that_no_node_allows_ends_the_run(tables, make_experiment):
    """The pretraining site's model is hidden in no sum, so a node that wants company refuses."""
    contexts = {name: SiteContext({name: table}, Policy(minimum_sites=2)) for name, table in tables.items()}
    with pytest.raises(FederationError, match=r"^pretraining: no site gave a model") as error:
        run(LocalFederation(contexts), make_experiment(start={"pretrain_epochs": 1}))
    assert str(error.value).count("refused: this node takes part with at least 2 sites, this run has 1") == 3


def test_pretraining_starts_from_given_weights(goes_on, make_experiment, begun):
    spy, _ = goes_on(make_experiment(start={"weights": "x", "pretrain_epochs": 1}), of_run(begun))
    (item,) = spy.of("RPC_train")[0]["amsterdam"]["folds"]
    assert same(wire.unpack(item["parameters"]), wire.unpack(of_run(begun)))
