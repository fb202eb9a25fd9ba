"""What the researcher is told of patients whose rows stand at two hospitals, each of which splits for itself."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from v6_algorithm.data.rows.kind import listed, some
from v6_algorithm.experiment import Experiment

# Fewer are called a few: a pair of sites is no place to point at one patient.
_LEAST_TOLD = 5
_MOST_PAIRS = 10


def tell_repeats(schemas: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Name the sites where rows are copies of others, and those whose tables are the same."""
    notes = [
        f"site '{site}': {some(schema['repeated'])} rows are exact copies of others, which may be trained on and "
        "tested with: take them out there, or name the patients' column in data.group"
        for site, schema in schemas.items()
        if "repeated" in schema
    ]
    same: dict[str, list[str]] = {}
    for site, schema in schemas.items():
        if schema.get("table"):
            same.setdefault(str(schema["table"]), []).append(site)
    notes += [
        f"sites {listed(sites)} have the same rows: is one table given twice? They count as other patients"
        for sites in same.values()
        if len(sites) > 1
    ]
    return notes


def tell_shared_patients(experiment: Experiment, schemas: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say which hospitals have groups of `data.group` in common, and where that could not be compared.

    Each hospital keeps a group in one part of its own split; nobody keeps it in one part over several.
    """
    group = experiment.data.group
    if group is None or len(schemas) < 2:
        return []
    hashes = {site: schema["groups"] for site, schema in schemas.items() if schema.get("groups")}
    shared = []
    for first, second in combinations(sorted(hashes), 2):
        if hashes[first]["keyed"] != hashes[second]["keyed"]:
            continue
        if both := len(set(hashes[first]["hashes"]) & set(hashes[second]["hashes"])):
            shared.append(f"{first} and {second} ({both if both >= _LEAST_TOLD else 'a few'})")
    notes = []
    if shared:
        more = f", and {len(shared) - _MOST_PAIRS} more pairs" if len(shared) > _MOST_PAIRS else ""
        notes.append(
            f"data.group '{group}' has values in common at {', '.join(shared[:_MOST_PAIRS])}{more}: where that is the "
            "same patient, and no numbering that begins anew, he may be trained on at one and tested at the other"
        )
    keyed = [site for site in hashes if hashes[site]["keyed"]]
    # Hashes of two keys have nothing in common: those of fewer sites are the odd ones.
    odd = min(keyed, sorted(set(hashes) - set(keyed)), key=len)
    if lacking := sorted({*odd, *schemas} - (set(hashes) - set(odd))):
        notes.append(
            f"data.group '{group}': whether a patient stands at two sites could not be compared for {listed(lacking)}: "
            "their nodes tell no hashes (V6_ALGORITHM_PATIENT_HASHES), or of another secret"
        )
    return notes
