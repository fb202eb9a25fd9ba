"""Images and volumes: learned from files and from columns of pixels, federated as pooled, by networks of known size."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

import v6_algorithm
from v6_algorithm.coordinator.master import run
from v6_algorithm.data.preparation import Setup
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation import local
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.errors import ExperimentError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import CNN, MnistCNN, MonaiNetwork, VBMNet
from v6_algorithm.experiment import Experiment as Content
from v6_algorithm.learning.models.images import build_image_model, widest
from v6_algorithm.learning.problems import create_problem

SECRET = "SECRET-4711"
SIZE = (8, 7)


def pictures(rows, seed, size=SIZE):
    """Return (rows, *size) bytes and labels; a 1 has a bright corner."""
    generator = np.random.default_rng(seed)
    labels = np.arange(rows) % 2
    values = generator.integers(0, 150, (rows, *size))
    values[(slice(None), *(slice(0, 4) for _ in size))] += (100 * labels).reshape(-1, *[1] * len(size))
    return values.astype(np.uint8), labels


def folders(root, ending="npy", size=SIZE):
    """Make a folder for each of two hospitals, with a table that names its images."""
    sites = {}
    for name, rows in (("one", 60), ("two", 40)):
        folder = root / name
        (folder / "scans").mkdir(parents=True)
        values, labels = pictures(rows, rows, size)
        for row, image in enumerate(values):
            save(folder / "scans" / f"{SECRET}-{row}.{ending}", image)
        names = [f"scans/{SECRET}-{row}.{ending}" for row in range(rows)]
        pd.DataFrame({"file": names, "y": labels, "patient": np.arange(rows) // 3}).to_csv(
            folder / "t.csv", index=False
        )
        sites[name] = TableSource(str(folder / "t.csv"))
    return sites


def save(file, image):
    if file.suffix == ".npy":
        np.save(file, image)
    else:
        pytest.importorskip("PIL.Image").fromarray(image).save(file)


def tables():
    """Make the same hospitals' tables with a column for each pixel."""
    sites = {}
    for name, rows in (("one", 60), ("two", 40)):
        values, labels = pictures(rows, rows)
        frame = pd.DataFrame(values.reshape(rows, -1)).rename(columns=lambda number: f"pixel{number}")
        sites[name] = TableSource(frame=frame.assign(y=labels, patient=np.arange(rows) // 3))
    return sites


PIXELS = {"image": {"shape": [1, *SIZE]}, "exclude": ["patient"]}


def experiment(image="file", model=None, **changes):
    data = {"target": "y", **({"image": image} if image else {}), **changes.pop("data", {})}
    return Content.parse(
        {
            "data": data,
            "problem": "image_classification",
            "model": model or {"kind": "cnn", "widths": [4, 8]},
            "rounds": 8,
            "training": {"local_epochs": 2, "batch_size": 16, "optimizer": {"kind": "adam", "lr": 0.02}},
        }
        | changes
    )


def outcome(result):
    tensors = {name: tensor.tolist() for name, tensor in wire.unpack(result["parameters"]).items()}
    return result["metrics"], tensors, result["preparation"]["shift"], result["preparation"]["scale"]


# -- learning ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_pictures_are_learned_from_folders(tmp_path, run_locally):
    result = run_locally(experiment(), folders(tmp_path))
    assert result["metrics"]["test"]["pooled"]["auroc"] > 0.95
    assert result["preparation"]["features"] == ["file[0]"]
    assert result["preparation"]["image_shape"] == [1, *SIZE]


@pytest.mark.slow
def test_files_and_columns_of_pixels_are_the_same_images(tmp_path, run_locally):
    from_files = run_locally(experiment(rounds=2), folders(tmp_path))
    from_columns = run_locally(experiment(None, data=PIXELS, rounds=2), tables())
    assert outcome(from_files) == outcome(from_columns)


def test_pooled_images_have_the_federations_statistics(tmp_path, run_locally):
    sites = folders(tmp_path)
    federated = run_locally(experiment(rounds=1), sites)
    pooled = run_locally(experiment(rounds=1, mode="centralised"), sites)
    for name in ("shift", "scale"):
        assert federated["preparation"][name] == pytest.approx(pooled["preparation"][name], rel=1e-9)
    assert federated["sites"] == pooled["sites"]


@pytest.mark.slow
def test_volumes_are_learned(tmp_path, run_locally):
    sites = folders(tmp_path, size=(8, 8, 9))
    result = run_locally(experiment(problem="volume_classification", rounds=6), sites)
    assert result["preparation"]["image_shape"] == [1, 8, 8, 9]
    assert result["metrics"]["test"]["pooled"]["auroc"] > 0.9


def test_a_patients_images_stay_in_one_part(tmp_path):
    parts = []
    answer = local.handle

    def listen(method, request, context, **options):
        reply = answer(method, request, context, **options)
        parts.extend(value for key, value in context.memory.items() if hasattr(value, "folds"))
        return reply

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "handle", listen)
        content = experiment(rounds=1, data={"group": "patient"})
        run(local_federation(content, folders(tmp_path)), content)
    assert parts
    for table in parts:
        found = [set((table.position[rows] // 3).tolist()) for rows in (table.folds[0][p] for p in ("train", "test"))]
        assert found[0]
        assert not found[0] & found[1]


@pytest.mark.slow
def test_what_is_left_out_is_told_by_row_and_the_rest_is_learned(tmp_path, run_locally):
    sites = folders(tmp_path)
    (tmp_path / "two" / "scans" / f"{SECRET}-6.npy").unlink()
    (tmp_path / "two" / "scans" / f"{SECRET}-11.npy").write_bytes(b"no image")
    result = run_locally(experiment({"column": "file", "tolerance": 0.1}, rounds=2), sites)
    why = "1: the file is not there; 1: cut short, damaged, or no image of its kind"
    assert f"site 'two': 2 images are missing or cannot be read, and are left out ({why}): row 7, 12" in result["notes"]
    assert result["sites"]["two"]["n"]["rows"] == 38
    assert SECRET not in str(result)
    with pytest.raises(ExperimentError, match=r"2 images \(data.image\) are missing or cannot be read") as refused:
        run_locally(experiment(), sites)
    assert SECRET not in str(refused.value)


def test_sites_with_other_channels_or_sizes_are_named(tmp_path, run_locally):
    sites = folders(tmp_path)
    sites["two"] = folders(tmp_path / "other", size=(8, 9))["two"]
    with pytest.raises(ExperimentError, match="one 1x8x7, two 1x8x9; give data"):
        run_locally(experiment(), sites)


@pytest.mark.slow
def test_evaluation_in_pieces_gives_the_metrics_of_one(tmp_path, run_locally):
    training = {"local_epochs": 1, "batch_size": 16}
    whole, pieces = (
        run_locally(
            experiment(rounds=2, training={**training, "evaluation_batch_size": rows}), folders(tmp_path / str(rows))
        )
        for rows in (8192, 3)
    )
    assert outcome(whole)[1:] == outcome(pieces)[1:]
    for name, value in whole["metrics"]["test"]["pooled"].items():
        # Where no row is predicted to be of a class, what is of those rows is undefined.
        wanted = None if value is None else pytest.approx(value, rel=1e-5, abs=1e-6)
        assert pieces["metrics"]["test"]["pooled"][name] == wanted, name


def test_given_mean_and_sd_take_the_place_of_statistics(tmp_path, run_locally):
    pytest.importorskip("PIL")
    image = {"column": "file", "mean": [0.5], "sd": [0.25]}
    result = run_locally(experiment(image, rounds=1), folders(tmp_path, "png"))
    assert (result["preparation"]["shift"], result["preparation"]["scale"]) == ([0.5], [0.25])
    with pytest.raises(ExperimentError, match="mean and sd are of 2 channels, the images have 1"):
        run_locally(experiment({"column": "file", "mean": [0, 0], "sd": [1, 1]}), folders(tmp_path / "b", "png"))


def test_a_node_with_a_folder_reads_its_images_once(tmp_path, monkeypatch, run_locally):
    """A container answers one request; the next one finds the images in the folder that they share."""
    from v6_algorithm.data.imaging import stack as images

    sites, requests = folders(tmp_path), []
    answer = local.handle

    def listen(method, request, context, **options):
        requests.append((method, request))
        return answer(method, request, context, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "handle", listen)
        here = run_locally(experiment(rounds=2), sites)
    monkeypatch.setenv("USER_REQUESTED_DATABASE_LABELS", "scans")
    monkeypatch.setenv("SCANS_DATABASE_URI", str(tmp_path / "one"))
    monkeypatch.setenv("SCANS_DATABASE_TYPE", "folder")
    monkeypatch.setenv("TEMPORARY_FOLDER", str(tmp_path / "state"))
    read, count = images.read_as_asked, []
    monkeypatch.setattr(images, "read_as_asked", lambda *file: count.append(1) or read(*file))
    replies = [
        getattr(v6_algorithm, f"RPC_{method}")(request=request)
        for method, request in requests
        if request["site"] == "one"
    ]
    assert [reply["status"] for reply in replies] == ["ok"] * len(replies)
    assert len(count) == 60
    trained = next(reply for reply in replies[::-1] if "parameters" in reply["folds"][0])
    assert trained["folds"][0]["rows"] == here["sites"]["one"]["n"]["train"]


# -- what goes together --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image": None}, "data.image goes with problem image_classification"),
        ({"problem": "classification", "model": "mlp"}, "data.image goes with problem"),
        ({"model": {"kind": "vbmnet"}}, "model.kind vbmnet is not for image_classification"),
        ({"model": {"kind": "resnet", "variant": "resnet19"}}, "variant 'resnet19' is no resnet; allowed: resnet18"),
        ({"image": {"column": "file", "shape": [1, 2, 2]}}, "give column, which names files, or files, or shape"),
        ({"image": {"column": "file", "size": [4, 4, 4]}}, "size must be 2 lengths; volumes are of problem volume"),
        ({"image": {"column": "y"}}, "column 'y' is the image and cannot be something else"),
        ({"image": {"column": "file", "fit": "crop"}}, "fit crop needs size"),
        ({"image": {"column": "file", "range": [1, 0]}}, "a lower and a higher value"),
        ({"image": {"column": "file", "mean": [0.5]}}, "mean and sd go together"),
        ({"data": {"categorical": ["ward"]}}, "image is all that is learned from"),
        ({"data": {"scaling": "robust"}}, "scaling of images is none, standard or minmax"),
        ({"data": {"missing": "median"}}, "of images see data.image.tolerance"),
        ({"data": {"sequence": "x"}}, "image and sequence do not go together"),
    ],
)
def test_what_does_not_go_together_is_refused_before_any_site_is_asked(changes, reason):
    with pytest.raises(ExperimentError) as refused:
        experiment(**changes)
    assert reason in str(refused.value)


def test_pixels_that_are_no_picture_are_counted(run_locally):
    with pytest.raises(ExperimentError, match=r"\[1, 8, 8\] is 64 pixels, and there are 56 features"):
        run_locally(experiment(None, data={**PIXELS, "image": {"shape": [1, 8, 8]}}), tables())


def test_images_too_small_for_the_network_are_told(tmp_path, run_locally):
    with pytest.raises(ExperimentError, match="halves images 3 times, and these have 8 x 7 pixels"):
        run_locally(experiment(model={"kind": "cnn"}), folders(tmp_path))


# -- networks ------------------------------------------------------------------------------------------------------


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_mnist_cnn_is_torch_vantage6s():
    network = build_image_model(MnistCNN(kind="mnist_cnn"), [1, 28, 28], 10)
    assert parameters(network) == 1_199_882
    assert network(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_vbmnet_is_dinunets():
    network = build_image_model(VBMNet(kind="vbmnet", norm="batch"), [1, 121, 145, 121], 2)
    assert parameters(network) == 792_394


@pytest.mark.parametrize("norm", ["none", "group", "batch"])
@pytest.mark.parametrize("shape", [[3, 33, 40], [1, 32, 33, 35]])
def test_cnn_and_vbmnet_take_two_and_three_dimensions(shape, norm):
    models = [CNN(kind="cnn", norm=norm, head=[5], dropout=0.1), VBMNet(kind="vbmnet", norm=norm)]
    for model in models if len(shape) == 4 else models[:1]:
        assert build_image_model(model, shape, 3)(torch.zeros(2, *shape)).shape == (2, 3)


@pytest.mark.parametrize("model", [CNN(kind="cnn"), MnistCNN(kind="mnist_cnn"), VBMNet(kind="vbmnet")])
def test_expansion_is_no_less_than_what_a_layer_holds(model):
    shape = [1, 40, 40, 40] if model.kind == "vbmnet" else [1, 28, 28]
    network, numbers = build_image_model(model, shape, 2), []
    for module in network.modules():
        module.register_forward_hook(lambda _, inputs, output: numbers.append(inputs[0].numel() + output.numel()))
    with torch.inference_mode():
        network(torch.zeros(1, *shape))
    assert max(numbers) <= widest(model) * np.prod(shape)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["resnet", "densenet", "efficientnet"])
@pytest.mark.parametrize("shape", [[3, 64, 64], [1, 64, 64, 64]])
def test_monais_networks_have_no_batch_norm_unless_asked(kind, shape):
    pytest.importorskip("monai")
    for norm in ("group", "batch"):
        network = build_image_model(MonaiNetwork(kind=kind, norm=norm), shape, 3).eval()
        norms = [module for module in network.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
        assert bool(norms) == (norm == "batch")
        with torch.inference_mode():
            assert network(torch.zeros(1, *shape)).shape == (1, 3)


# -- focal loss ----------------------------------------------------------------------------------------------------


def problem(gamma, classes, weights=None):
    loss = {"kind": "focal", "gamma": gamma}
    setup = Setup(["x[0]"], {}, list(range(classes)), class_weights=weights, image_shape=[1, 8, 7])
    return create_problem(experiment(training={"loss": loss}), setup)


@given(st.floats(0, 5), st.integers(2, 4), st.integers(0, 2**31 - 1))
def test_focal_loss_is_its_formula(gamma, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    output = 3 * torch.randn(6, 1 if classes == 2 else classes, generator=generator, dtype=torch.float64)
    target = torch.arange(6) % classes
    weights = [[1.0 + number for number in range(classes)]]
    logits = torch.cat([torch.zeros_like(output), output], dim=1) if classes == 2 else output
    p = torch.softmax(logits, dim=1)[torch.arange(6), target]
    expected = torch.tensor(weights[0])[target] * -((1 - p) ** gamma) * torch.log(p)
    torch.testing.assert_close(problem(gamma, classes, weights).row_loss(output, target, 0), expected)


def test_focal_loss_of_gamma_zero_is_cross_entropy():
    output, target = torch.randn(5, 3, dtype=torch.float64), torch.arange(5) % 3
    expected = functional.cross_entropy(output, target, reduction="none")
    torch.testing.assert_close(problem(0.0, 3).row_loss(output, target, 0), expected)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_loss_has_a_slope_where_the_model_is_sure(gamma):
    output = torch.tensor([[60.0], [-60.0]], requires_grad=True)
    problem(gamma, 2).row_loss(output, torch.tensor([1, 1]), 0).sum().backward()
    assert torch.isfinite(output.grad).all()
