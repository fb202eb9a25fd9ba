"""What was asked for and by which rules, by name and fact."""

from __future__ import annotations

from typing import Any

from v6_algorithm.researcher.report import reading
from v6_algorithm.researcher.report.formatting import number
from v6_algorithm.researcher.report.reading import finite, mapping, sequence

# Of columns, in one line.
_MOST_NAMES = 20


def facts(result: dict[str, Any]) -> dict[str, str]:
    """Return the facts by name, those that are known."""
    experiment, preparation = mapping(result, "experiment"), mapping(result, "preparation")
    privacy = [name.replace("_", " ") for name, value in mapping(experiment, "privacy").items() if value]
    classes = [str(name) for name in sequence(preparation, "classes")]
    shape = [str(length) for length in sequence(preparation, "image_shape")]
    measured = {name for row in reading.metric_rows(result) for name in row.metrics}
    listed = {
        "Problem": kind_of(experiment.get("problem")),
        "Target": target_of(experiment),
        # Of an image the features are its channels.
        "Features": "" if shape else _features(preparation),
        "Columns not used": _not_used(result),
        "Images": f"{' x '.join(shape[1:])}, channels: {shape[0]}" if shape else "",
        "Classes": ", ".join(classes[:12]) + (" …" if classes[12:] else ""),
        "Metrics of one class": reading.positive_class(result, measured),
        "Event": reading.event_of(result).removeprefix("event: "),
        "Model": network_of(result),
        "Strategy": kind_of(experiment.get("strategy")),
        "Split": kind_of(experiment.get("split")),
        "Rounds at most": str(experiment.get("rounds") or ""),
        "Privacy": ", ".join(privacy) or "none configured",
        "Secure aggregation": _secure_aggregation(mapping(result, "secure_aggregation")),
        "Differential privacy": _differential_privacy(mapping(result, "differential_privacy")),
        "Seed": str(experiment.get("seed", "")),
        "Node policies": _policies(result),
        "Simulated": _simulated(mapping(result, "engine")),
        "Data fingerprints": _fingerprints(result),
        "Image": str(mapping(result, "software").get("image", "")),
        "Finished": _minute(str(mapping(result, "timing").get("finished", ""))),
    }
    return {name: fact for name, fact in listed.items() if fact}


def _minute(moment: str) -> str:
    """Write a moment in ISO 8601 for a reader, ``2026-11-30 01:17 UTC``; another text as it is."""
    day, _, rest = moment.partition("T")
    return f"{day} {rest[:5]} UTC" if rest.endswith(("+00:00", "Z")) else moment


def _simulated(engine: dict[str, Any]) -> str:
    """Say by how many workers the sites were simulated, and with which quicker steps; neither is the rule."""
    workers, lost = engine.get("workers"), sequence(engine, "workers_lost")
    said = [f"by {workers} workers"] if isinstance(workers, int) else []
    said += [f"lost: {'; '.join(map(str, lost))}"] if lost else []
    if quicker := sequence(engine, "quicker"):
        said.append(f"equal to a network but for rounding: {', '.join(map(str, quicker))}")
    return "; ".join(said)


def _features(preparation: dict[str, Any]) -> str:
    """Count and name the columns that the model sees, the categorical ones with their number of categories."""
    numeric = [str(name) for name in sequence(preparation, "features")]
    categories = [f"{name} ({len(labels)} categories)" for name, labels in mapping(preparation, "categories").items()]
    names = [*numeric, *categories]
    if not names:
        return ""
    more = f", … {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{len(names)}: {', '.join(names[:_MOST_NAMES])}{more}"


def _not_used(result: dict[str, Any]) -> str:
    """Return which columns the sites have and the model does not see, with the reasons, as the notes have them."""
    notes = (str(note) for note in sequence(result, "notes"))
    return "; ".join(note.removeprefix("left out").strip(" ,") for note in notes if note.startswith("left out"))


def _policies(result: dict[str, Any]) -> str:
    """Say which rules the nodes held, by preset."""
    by_preset: dict[str, list[str]] = {}
    for name, site in mapping(result, "sites").items():
        if preset := mapping(site, "policy").get("preset"):
            by_preset.setdefault(str(preset), []).append(str(name))
    return "; ".join(f"{preset}: {', '.join(names)}" for preset, names in by_preset.items())


def _fingerprints(result: dict[str, Any]) -> str:
    """Name the keyed fingerprint of each site's table, and the sites that tell none."""
    told = {str(name): mapping(result, "sites", name).get("fingerprint") for name in mapping(result, "sites")}
    silent = [name for name, text in told.items() if not text]
    lines = [f"{name}: {text}" for name, text in told.items() if text]
    return ", ".join([*lines, *([f"not told by {', '.join(silent)}"] if silent else [])])


def _secure_aggregation(section: dict[str, Any]) -> str:
    """Say who opened the sums and what clipping changed; empty of a run in the clear."""
    if not section:
        return ""
    sites, clipped = mapping(section, "sites"), finite(section.get("clipped_share")) or 0.0
    cut = (
        f"{clipped:.2%} of changes cut to {section.get('clip')}"
        if clipped
        else f"no change above {section.get('clip')}"
    )
    return f"{section.get('threshold')} of {len(sites)} sites open a sum; {section.get('sums')} sums; {cut}"


def _differential_privacy(section: dict[str, Any]) -> str:
    """Say what training has cost, by site, and what it was planned to; empty of a run without."""
    if not section:
        return ""
    cost, planned = finite(section.get("epsilon")), finite(section.get("planned_epsilon"))
    by_site = ", ".join(
        f"{site} {number(finite(numbers.get('epsilon')))}" for site, numbers in mapping(section, "sites").items()
    )
    return (
        f"epsilon {number(cost)} at most a site, of {number(planned)} planned, at delta {section.get('delta')}; unit "
        f"{section.get('unit')}, clip {section.get('clip')}"
        + (f"; {by_site}" if by_site else "")
        + "".join(
            f"; {label} {section[key]}"
            for key, label in (("accountant", "counted by"), ("noise", "noise:"))
            if key in section
        )
    )


def kind_of(section: object) -> str:
    """Return the `kind` of a section, or the section itself where the kind is all that was given."""
    return str((section.get("kind") if isinstance(section, dict) else section) or "")


def network_of(result: dict[str, Any]) -> str:
    """Name the network that was trained: a problem's own, one that others ship by its name, or the kind of `model`."""
    model = mapping(result, "experiment").get("model")
    if own := result.get("network"):
        return str(own)
    if isinstance(model, dict) and model.get("kind") == "module":
        return f"{model.get('name')} (a network of one's own)"
    return kind_of(model)


def target_of(experiment: dict[str, Any]) -> str:
    """Return the names of the target, or of several."""
    target = mapping(experiment, "data").get("target") or dict.fromkeys(mapping(experiment, "data", "targets"))
    if isinstance(target, dict):
        # Of survival roles without a column, of several targets those without options.
        kept = {key: value for key, value in target.items() if value or key not in ("entry", "competing")}
        return ", ".join(str(value or key) for key, value in kept.items())
    return str(target or "")
