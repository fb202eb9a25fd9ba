"""What vantage6's web form sends, on real nodes: `master` with plain arguments and without JSON."""

from __future__ import annotations

import pytest

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.experiment import Experiment


@pytest.mark.slow
def test_a_form_without_json_gives_the_parameters_of_the_same_experiment_file(three_sites):
    form = {"target": "outcome", "rounds": 1, "hidden": [8], "features": [], "positive": "", "organizations": []}
    result = three_sites.run("master", **form, timeout_s=240)
    experiment = Experiment.parse({"data": {"target": "outcome"}, "rounds": 1, "model": {"kind": "mlp", "hidden": [8]}})
    tables = {name: TableSource(str(three_sites.sites[name].databases["default"])) for name in "abc"}
    here = run(local_federation(experiment, tables), experiment)
    for key in ("metrics_table", "history", "parameters"):
        assert result[key] == here[key], key
