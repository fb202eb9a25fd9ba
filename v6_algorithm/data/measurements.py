"""Measurements that hospitals write in one of two units, told by a column's name: body weight, haemoglobin, creatinine.

`coordinator.preparation.value_ranges` compares sites' means with these ratios, `rows.numbers` names of columns that
differ in their unit only. Nothing is converted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Measurement:
    """One measurement.

    Attributes
    ----------
    called
        A pattern of its names, in lower case, as whole words: words are parted by what is no letter or digit.
    units
        The unit of the smaller numbers, and that of the larger ones.
    ratio
        How many times as large a number in the second unit is.
    means
        Where the means of hospitals' adults lie in either unit, if these ranges lie apart.
    """

    called: str
    units: tuple[str, str]
    ratio: float
    means: tuple[tuple[float, float], tuple[float, float]] | None = None


# Ratios of the substances by their molar masses: Young and Huth, SI Units for Clinical Measurement, 1998.
MEASUREMENTS = (
    Measurement(
        r"(body ?)?(weight|wt|mass)|bw|gewicht|k[oö]rpergewicht|poids|peso|vikt",
        ("kg", "lb"), 2.2046, ((45, 112), (118, 260)),
    ),
    Measurement(
        r"(body ?)?(height|ht|hgt|length|stature)|lengte|gr(ö|oe)(ß|ss)e|k(ö|oe)rpergr(ö|oe)(ß|ss)e|taille|talla|"
        r"altura|estatura|(waist|hip|neck|head|abdominal)( ?circ(umference)?)?|wc|hc|head ?circ",
        ("inches", "cm"),
        2.54,
        ((25, 78), (80, 195)),
    ),
    Measurement(r"ha?emoglobine?|h[aä]moglobin|hemoglobina|hgb|hb", ("mmol/L", "g/dL"), 1.6114),
    Measurement(r"s?(creatinine?|kreatinine?|creatinina|crea?t?|krea)|scr", ("mg/dL", "umol/L"), 88.4),
    Measurement(r"(glucose|glukose|glucosa|glyc[eé]mie|blood ?sugar|bsl|glu)", ("mmol/L", "mg/dL"), 18.016),
    Measurement(
        r"((hdl|ldl|vldl|non ?hdl) ?)?(chol|cholesterol|cholest[eé]rol)|((v?ldl|(non ?)?hdl)( ?c)?)|tc",
        ("mmol/L", "mg/dL"), 38.67,
    ),
    Measurement(r"trig|trigs|tg|tryg|triglycerides?|triglyceriden?", ("mmol/L", "mg/dL"), 88.57),
    Measurement(r"(total|tot|direct|indirect|conj)? ?bili(rubine?)?|tbil|dbil", ("mg/dL", "umol/L"), 17.104),
    Measurement(r"bun|(blood )?urea nitrogen", ("mmol/L", "mg/dL"), 2.801),
    Measurement(r"urea|ureum|harnstoff|ur[eé]e", ("mmol/L", "mg/dL"), 6.006),
    Measurement(r"uric ?acid|urate|ua|harns(ä|ae)ure|urinezuur", ("mg/dL", "umol/L"), 59.48),
    Measurement(r"(total|tot|ionised|ionized|corrected)? ?(calcium|ca)", ("mmol/L", "mg/dL"), 4.008),
    Measurement(r"magnesium|mg", ("mmol/L", "mg/dL"), 2.4305),
    Measurement(r"phosph?ate?|phosphorus|phos|fosfaat|phosphat", ("mmol/L", "mg/dL"), 3.0974),
    Measurement(r"lactate?|laktat|lactaat|lac", ("mmol/L", "mg/dL"), 9.008),
    Measurement(r"(vit(amin(e)?)? ?d3?|25 ?oh ?d3?|25 ?hydroxy ?vit(amin)? ?d3?)", ("ng/mL", "nmol/L"), 2.496),
    Measurement(r"testosterone?", ("nmol/L", "ng/dL"), 28.84),
    Measurement(r"(free )?(t4|ft4|thyroxine?)", ("ng/dL", "pmol/L"), 12.87),
    Measurement(r"cortisol", ("ug/dL", "nmol/L"), 27.59),
    Measurement(r"(serum )?(iron|ferrum|eisen)|fe", ("umol/L", "ug/dL"), 5.585),
    Measurement(r"folate|folic ?acid", ("ng/mL", "nmol/L"), 2.266),
    Measurement(r"(hs ?)?crp|c ?reactive ?protein", ("mg/dL", "mg/L"), 10.0),
    Measurement(r"albumine?|alb|(total )?protein", ("g/dL", "g/L"), 10.0),
    Measurement(r"(hs ?)?(troponin|trop|tn)( ?[it])?|hs ?tn ?[it]", ("ug/L", "ng/L"), 1000.0),
    Measurement(r"d ?dimere?s?", ("mg/L", "ug/L"), 1000.0),
    Measurement(r"fibrinogene?", ("g/L", "mg/dL"), 100.0),
    Measurement(r"(hba1c|a1c|hb ?a1c|glyc(at)?ed ha?emoglobin|ghb)", ("%", "mmol/mol"), 7.5),
    Measurement(r"(sys|dia|systolic|diastolic|mean)? ?(bp|blood ?pressure)|sbp|dbp|map", ("kPa", "mmHg"), 7.5006),
    Measurement(r"p(a|v)?(o2|co2)", ("kPa", "mmHg"), 7.5006),
)  # fmt: skip
# What stands beside a measurement's name: when it was taken, and its unit.
_BESIDE = (
    r"(at|on|in|of|the|baseline|bl|base|admission|adm|first|last|min|max|mean|median|avg|day|visit|v|t|value|result|"
    r"level|lab|serum|plasma|blood|body|fasting|total|pre|post|preop|postop|op|initial|entry|\d+)"
)
_UNIT = (
    r"(kg|kgs|lb|lbs|pounds?|g|cm|mm|m|in|inch|inches|ft|mg|ug|mcg|ng|pg|mol|mmol|umol|nmol|pmol|ul|ml|dl|l|"
    r"mgdl|mmoll|umoll|gdl|gl|mgl|ugl|ngml|nmoll|pmoll|mmhg|kpa|percent|pct|years?|yrs?|months?|days?|weeks?|hours?|"
    r"hrs?|min(utes)?|sec(onds)?|ms|c|f|celsius|fahrenheit)"
)
_WORDS = re.compile(r"[^\W_]+")
_LAST_UNITS = re.compile(rf"((?<=\w)[\W_]+{_UNIT})+[\W_]*$", re.I)


@lru_cache(maxsize=20_000)
def measurement_of(name: str) -> Measurement | None:
    """Return the measurement that a column is called; None where its name is none that is known."""
    words = " ".join(_WORDS.findall(re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", without_unit(name)).lower()))
    for pattern, measurement in _patterns():
        if pattern.fullmatch(words):
            return measurement
    return None


@lru_cache(maxsize=1)
def _patterns() -> list[tuple[re.Pattern[str], Measurement]]:
    return [
        (re.compile(rf"({_BESIDE} )*({measurement.called})( {_BESIDE})*"), measurement) for measurement in MEASUREMENTS
    ]


def without_unit(name: str) -> str:
    """Return a column's name without a unit at its end, in brackets or behind an underscore, a space or a dot."""
    bare = re.sub(r"\s*[(\[][^()\[\]]*[)\]]\s*$", "", name)
    # "map" and "m" alone are names.
    return _LAST_UNITS.sub("", bare) or bare
