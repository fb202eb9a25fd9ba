"""The script a vantage6 developer expects: the algorithm's own functions, called by vantage6's mock client.

    python mock/mock_client.py

Three hospitals, each with a dataframe; one `master` task; its result. Nothing here differs from a task on a real
network but the client.
"""

from sklearn.datasets import load_breast_cancer
from vantage6.algorithm.tools.mock_client import MockAlgorithmClient

# One table cut into three unequal hospitals.
table = load_breast_cancer(as_frame=True).frame.sample(frac=1, random_state=1)
hospitals = [table.iloc[:340], table.iloc[340:510], table.iloc[510:]]

client = MockAlgorithmClient(
    datasets=[[{"database": hospital, "db_type": "csv"}] for hospital in hospitals],
    module="v6_algorithm",
)
organizations = client.organization.list()

task = client.task.create(
    input_={
        "method": "master",
        # The most used settings are plain arguments, as in vantage6's web form; `experiment` takes all of them.
        "kwargs": {
            "target": "target",
            "rounds": 5,
            "local_epochs": 2,
            "learning_rate": 0.003,
            "experiment": {"name": "breast-cancer", "model": {"kind": "mlp", "hidden": [32]}},
        },
    },
    organizations=[organizations[0]["id"]],
)
(result,) = client.wait_for_results(task["id"])

print(f"{result['status']} after {result['rounds_run']} rounds, best round {result['best_round']}")
for site, metrics in {"pooled": result["metrics"]["test"]["pooled"], **result["metrics"]["test"]["sites"]}.items():
    print(f"  {site:8} n {metrics['n']:4}  AUROC {metrics['auroc']:.3f}  accuracy {metrics['accuracy']:.3f}")
