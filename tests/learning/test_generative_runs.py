"""Whole runs of problem gan on small images: measured, shown, and kept by FID."""

import base64
from itertools import pairwise

import pytest
from hospitals import command, read_result
from pictures import gan, hospital
from spying import Spy

from v6_algorithm.coordinator.evaluation.sample_grid import rounds_shown
from v6_algorithm.coordinator.master import run
from v6_algorithm.engines.simulation.simulate import local_federation, own_policy
from v6_algorithm.exchange import png
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.metrics import compute, merge_states

pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sites")
    return {name: hospital(folder / name, 220, seed) for seed, name in enumerate(("amsterdam", "berlin"))}


def play(sites, tamper=None, **changes):
    experiment = Experiment.parse(gan(**changes))
    spy = Spy(local_federation(experiment, sites), tamper)
    return spy, run(spy, experiment)


@pytest.fixture(scope="module")
def played(sites):
    return play(sites, rounds=3)


def test_fid_and_kid_are_measured_in_every_round_and_of_validation_and_test(played):
    _, result = played
    assert all(value > 0 for value in result["history"]["validation_fid"])
    assert len(result["history"]["validation_kid"]) == 3
    for part, rows in (("validation", 88), ("test", 66)):
        metrics = result["metrics"][part]
        assert metrics["pooled"]["n"] == 2 * rows
        assert set(metrics["pooled"]) == {"n", "fid", "kid"}
        assert metrics["sites"]["berlin"]["fid"] > 0


def test_the_pooled_fid_is_that_of_the_sites_merged_states(played):
    spy, result = played
    last = [reply for method, _, reply in spy.replies if method == "RPC_evaluate"]
    # Measured are the newest model and the best one, where that is another.
    place = 0 if result["best_round"] == 3 else -1
    states = [state for reply in last for state in reply["folds"][place]["metrics"]["test"].values()]
    assert result["metrics"]["test"]["pooled"] == pytest.approx(compute(merge_states(states)))


def test_the_kept_model_is_the_one_with_the_lowest_validation_fid(played):
    fids = played[1]["history"]["validation_fid"]
    assert played[1]["best_round"] == 1 + fids.index(min(fids))
    assert played[1]["metrics"]["validation"]["pooled"]["fid"] == pytest.approx(min(fids), rel=0.2)


def test_every_rounds_model_is_shown_by_one_site_each(played):
    spy, result = played
    assert result["samples"]["classes"] == ["cross", "disc"]
    assert [shown["round"] for shown in result["samples"]["rounds"]] == [1, 2, 3]
    for shown in result["samples"]["rounds"]:
        png.pixels_only(base64.b64decode(shown["png"]), most_side=200)
    asked = [
        (method, reply["round"], site)
        for method, site, reply in spy.replies
        if method != "RPC_prepare"
        for item in reply["folds"]
        if "samples" in item
    ]
    assert [(method, number) for method, number, _ in asked][:2] == [("RPC_train", 2), ("RPC_train", 3)]
    assert len({site for _, _, site in asked}) == 2, "not always the same site"


@pytest.mark.slow
def test_one_run_is_like_the_other(sites, played):
    again = play(sites, rounds=3)[1]
    assert again["parameters"] == played[1]["parameters"]
    assert again["history"] == played[1]["history"]
    assert again["samples"] == played[1]["samples"]


def without_picture(method, site, number, reply):
    for item in reply.get("folds", []):
        item.pop("samples", None)
    return reply


def other_picture(method, site, number, reply):
    for item in reply.get("folds", []):
        if "samples" in item:
            item["samples"] = base64.b64encode(b"<svg onload=alert(1)>").decode()
    return reply


def uncalled_picture(method, site, number, reply):
    for item in reply.get("folds", []):
        item.setdefault("samples", "cGF0aWVudA==")
    return reply


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tamper", "note"),
    [(without_picture, None), (other_picture, "it is no PNG image"), (uncalled_picture, "nobody asked for them")],
)
def test_a_picture_that_is_missing_or_wrong_costs_no_reply(sites, played, tamper, note):
    _, result = play(sites, tamper, rounds=3)
    assert result["history"] == played[1]["history"]
    assert not any(entry["missing"] for entry in result["participation"])
    notes = [text for text in result["notes"] if "samples of site" in text]
    assert bool(notes) == (note is not None)
    assert all(note in text for text in notes)
    if tamper is not uncalled_picture:
        assert "samples" not in result


@pytest.mark.slow
def test_a_state_of_another_problem_is_not_accepted(sites):
    def tamper(method, site, number, reply):
        if method == "RPC_train" and number == 2 and site == "berlin":
            reply["folds"][0]["metrics"]["validation"]["berlin"]["real"] = "AAAA"
        return reply

    _, result = play(sites, tamper, rounds=3, participation={"minimum": 1})
    missing = [entry["missing"] for entry in result["participation"] if entry["missing"]]
    assert "real of the metric state must be base64" in missing[0]["berlin"]


@pytest.mark.slow
def test_where_no_hospital_has_enough_rows_fid_is_unknown_the_last_model_is_kept_and_the_result_says_why(sites):
    split = {"kind": "ratio", "train": 0.6, "validation": 0.2, "test": 0.2}
    _, result = play(sites, split=split)
    assert result["metrics"]["validation"]["pooled"] == {"n": 0, "fid": None, "kid": None}
    assert result["best_round"] == 2
    assert any("validation, pooled: fid and kid: 88 rows are withheld" in note for note in result["notes"])


@pytest.mark.slow
def test_with_folds_the_first_one_is_shown_and_alone_nobody_is(sites):
    _, result = play(sites, split={"kind": "kfold", "folds": 3}, rounds=1)
    assert [shown["round"] for shown in result["samples"]["rounds"]] == [1]
    _, result = play(sites, mode="local", rounds=1)
    assert "samples" not in result


def test_an_unconditional_generators_pictures_name_no_classes(sites):
    _, result = play(sites, problem={"kind": "gan", "latent": 8, "conditional": False}, rounds=1)
    assert result["samples"]["classes"] == []


@pytest.mark.slow
def test_a_hospital_that_is_left_out_says_how_near_its_images_are_to_those_of_the_others_generator(sites):
    _, result = play(sites, split={"kind": "leave_one_site_out"}, rounds=1, participation={"minimum": 1})
    assert [fold["test_site"] for fold in result["folds"]] == ["amsterdam", "berlin"]
    assert [fold["metrics"]["test"]["pooled"]["n"] for fold in result["folds"]] == [220, 220]
    assert all(fold["metrics"]["test"]["pooled"]["fid"] > 0 for fold in result["folds"])


@pytest.mark.parametrize("rounds", [1, 2, 12, 13, 100, 5000])
def test_at_most_twelve_rounds_are_shown_the_first_and_the_last_among_them(rounds):
    shown = sorted(rounds_shown(rounds))
    assert len(shown) == min(rounds, 12)
    assert (shown[0], shown[-1]) == (1, rounds)
    steps = [later - earlier for earlier, later in pairwise(shown)]
    assert not steps or max(steps) - min(steps) <= 1


@pytest.mark.slow
def test_the_command_line_shows_fid_and_writes_the_pictures(sites, tmp_path):
    import yaml

    places = {name: {"uri": source.uri} for name, source in sites.items()}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(gan() | {"sites": places}))
    done = command("run", tmp_path / "e.yaml", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "FID" in done.output
    assert sorted(path.name for path in (tmp_path / "out" / "samples").iterdir()) == ["round-1.png", "round-2.png"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 2
    assert "Synthetic images" in page
    assert len(read_result(tmp_path / "out")["samples"]["rounds"]) == 2
    hospital(tmp_path / "cairo", 80, 9)
    measured = command("evaluate", tmp_path / "out", "--data", tmp_path / "cairo", "--out", tmp_path / "measured")
    assert measured.exit_code == 0, measured.output
    assert read_result(tmp_path / "measured")["metrics"]["central"]["pooled"]["fid"] > 0


def test_a_generator_is_learned_under_the_rules_of_standard_too(sites):
    """Its networks have no `model` of which a node could watch the first layer."""
    experiment = Experiment.parse(gan(rounds=1))
    result = run(local_federation(experiment, sites, own_policy("standard")), experiment)
    assert result["status"] == "completed"
