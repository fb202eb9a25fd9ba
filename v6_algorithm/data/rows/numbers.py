"""Rows of numbers: each feature is a column of the table."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from v6_algorithm.data.description.hints import HINTS
from v6_algorithm.data.measurements import without_unit
from v6_algorithm.data.names import not_there
from v6_algorithm.data.preparation.setup import Setup
from v6_algorithm.data.reading.cells import blurred, columns_at
from v6_algorithm.data.rows.kind import Agreed, Array, RowKind, Schemas, listed
from v6_algorithm.experiment.table_form import of_one_table

if TYPE_CHECKING:
    import pandas as pd

# Names of columns, which are looked at for each of many sites' tables.
_NAMES_KEPT = 10_000
# Columns of a wide table that are converted at once.
_BLOCK_COLUMNS = 512
# Names that say "this is who, not what": numeric, but nothing to learn from. `data.features` overrules this.
_IDENTIFIER = re.compile(
    r"(index|level_0|unnamed: [\d.]+|x|(.*[_ .-])?(id|mrn|bsn|ssn)|(.*[_ .-])?(pid|patid|uid|guid|uuid)|subject|"
    r"patient|participant|pseudonym|name|sample|specimen|accession|barcode|upn|empi|ppn|row|nr|num[eé]ro|n°|zeile|"
    r"deelnemer|teilnehmer(in)?|proband|(.*[_ .-])?identifier|"
    # UK Biobank's eid, ADNI's rid and ptid, NHANES' seqn, PLINK's iid and fid, CDISC's subjid and usubjid.
    r"eid|rid|ptid|seqn|iid|fid|sid|u?subjid|"
    # Numbers of persons by law or hospital: Spanish, Portuguese, Italian, French, Swiss, Austrian, Dutch.
    r"(n[uú]mero|num|n[ºo°]?)[_ .-]*(de[_ .-])?(historia|paciente|expediente|registro|prontu[aá]rio|processo)"
    r"([_ .-]*cl[ií]nica)?|nhc|historia[_ .-]*cl[ií]nica|"
    r"(codice|numero|id|cod)[_ .-]*(del[_ .-])?(paziente|cartella|fiscale|paciente)|"
    r"ipp|nip|nir|ahv|ahvn13|svnr|zisnr|patnr|"
    r"redcap_(event_name|repeat_instrument|repeat_instance|data_access_group|survey_identifier)|"
    r"id[_ .-]?(patient|subject|case|record|visit)|"
    r"(num[eé]ro|n°|num|nr|no)[_ .-]?(de[_ .-])?(patient|dossier|s[eé]jour|visite|cas)|"
    # Danish, Norwegian, Swedish, Finnish, Polish, Czech, Turkish, Brazilian, Italian, Japanese, Chinese, Korean ones.
    r"(cpr|f[oø]dsels?|person|personal|identitets|journal)[ _.-]?(nr|no|nummer|number)|hetu|henkil[oö]tunnus|"
    r"pesel|(numer|nr)[ _.-]?(pacjenta|historii([ _.-]?choroby)?|ksi[eę]gi)|l\.?p\.|rodn[eé][ _.-]?[cč][ií]slo|"
    r"(hasta|dosya|protokol|tc[ _.-]?kimlik|kimlik)[ _.-]?(no|numaras[iı])|tckn|prontu[aá]rio|utente|cpf|curp|"
    r"(n(umero|r|\.|°)?[ _.-]*)?nosologico|患者(番号|编号|id)|(住院|病历|病案|门诊|身份证)号码?|カルテ番号|症例番号|"
    r"환자번호|등록번호|"
    r"fin[ _.-]?(nbr|num|no)|(admission|chart|file|journal)[ _.-]?(id|nr|no|nbr|nummer|key)|"
    r"(subject|patient|participant|pat|record|sample|specimen|encounter|visit|case|row|person|study|hosp|hospital|nhs|"
    r"accession|barcode|medical[ _.-]?record|patienten?|fall|zaak|volg|lfd|dossier|opname|deelnemers?|"
    r"teilnehmer|probanden|episoden?|rij|regel|zeilen|proben|auftrags|versicherten|monster|client|bsn|zis|mrn)"
    r"[ _.-]*(id|nr|no|num|nbr|number|nummer|key)|"
    # Where and how a person is reached.
    r"(tel|telephone|telefoon|telefon|phone|mobile|mobiel|mobil|fax|iban)([ _.-]*(nr|no|num|number|nummer))?|"
    r"postcode|pc[46]|postal[ _.-]?code|zip([ _.-]?code)?|plz|code[ _.-]?postal|"
    r"(?-i:.*[a-z](UID|ID|Id))|rownames?|row[ _.-]?names?)[.#]?",
    re.I,
)

# More than half of the values of a measurement have a fraction; of a column that is called as patients' numbers are
# also behind the second decimal, for 12.1 may be patient 12's first visit.
_MEASURED, _VISITS = 0.5, 100
# Of identifiers, those of persons, and not of rows, samples, visits or places.
_PERSON = re.compile(
    r"patient|pa[cz]ient|nhc|historia|expediente|pat(_|id|nr)|subj|participant|person|proband|teilnehmer|deelnemer|pseudonym|client|mrn|bsn|zis|ssn|"
    r"hasta|kimlik|pesel|pacjent|cpr|f[oø]dsel|hetu|prontu|utente|curp|患者|住院|病历|カルテ|환자|"
    r"^(id|pid|ptid|eid|rid|seqn|ipp|nip|sid)$|record[ _.-]?id|study[ _.-]?id",
    re.I,
)


class Numbers(RowKind):
    """Rows whose features are columns of numbers."""

    tables: ClassVar[bool] = True

    def agree(self, schemas: Schemas, notes: list[str], problems: list[str]) -> Agreed:
        """Take `data.features`, or every numeric column that all sites have and that is not used otherwise."""
        features = self._features(schemas, notes, problems)
        return Agreed(features, required=features)

    def inputs(self, setup: Setup) -> list[str]:
        """Name the features."""
        return setup.features

    def encode(self, frame: pd.DataFrame, setup: Setup, dtype: str) -> tuple[Array, Array]:
        """Return (rows, features) numbers."""
        return numbers_of(frame, setup.features, dtype), np.empty(0, dtype=np.int64)

    def misfits(self, schema: Mapping[str, Any], setup: Setup) -> list[str]:
        """Name the inputs that the table has not, or not as numbers."""
        problems, columns = [], schema["columns"]
        for name in [*(setup.pixels or setup.features), *setup.covariates]:
            if name not in columns:
                problems.append(not_there(f"column '{name}', an input of the model,", name, columns))
            elif columns[name] not in ("numeric", "empty"):
                problems.append(f"column '{name}' holds {columns[name]} where the model's input is numbers")
        return problems + [
            not_there(f"column '{name}', an input of the model,", name, columns)
            for name in setup.categories
            if name not in columns
        ]

    def _features(self, schemas: Schemas, notes: list[str], problems: list[str]) -> list[str]:
        data = self.data
        if data.features is not None:
            return [name for name in data.features if name not in data.categorical]
        used = {*data.target_columns.values(), data.group, data.synthetic, *data.split_columns}
        used |= {*data.exclude, *data.categorical, data.measures}
        everywhere, left_out = [], LeftOut()
        names = dict.fromkeys(name for schema in schemas.values() for name in schema["columns"])
        plain = _plain_numbers(schemas.values())
        for name in names:
            if name in used:
                continue
            if name in plain and not looks_like_identifier(name):
                everywhere.append(name)
                continue
            kinds = {site: schema["columns"].get(name) for site, schema in schemas.items()}
            hints = {site: str(schema.get("hints", {}).get(name, "")) for site, schema in schemas.items()}
            numeric = [site for site, kind in kinds.items() if kind == "numeric"]
            identifies = looks_like_identifier(name) and "measured" not in hints.values()
            if identifies and not (name.startswith("Unnamed: ") and not numeric):
                left_out.identifiers.append(name)
            elif not numeric:
                left_out.add(name, kinds, hints)
            elif text := [site for site, kind in kinds.items() if kind in ("text", "other")]:
                reason, remedy = HINTS.get(hints[text[0]], ("", ""))
                problems.append(
                    f"site '{text[0]}': column '{name}' holds {reason or kinds[text[0]]}, at site '{numeric[0]}' it "
                    f"holds numbers; {remedy or 'clean it there, list it under data.categorical'}"
                    f"{of_one_table(remedy, text[0])}, or leave it out with data.exclude"
                )
            elif lacking := [site for site, kind in kinds.items() if kind is None]:
                left_out.somewhere[name] = lacking
            elif all(hints[site] == "row numbers" for site in numeric):
                left_out.row_numbers.append(name)
            else:
                everywhere.append(name)
        notes += left_out.notes()
        return everywhere


@dataclass
class LeftOut:
    """Columns that are not used, by the reason."""

    identifiers: list[str] = field(default_factory=list)
    somewhere: dict[str, list[str]] = field(default_factory=dict)
    row_numbers: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    text: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, kinds: Mapping[str, str | None], hints: Mapping[str, str]) -> None:
        """Add a column that holds numbers at no site."""
        if all(kind in ("empty", None) for kind in kinds.values()):
            self.empty.append(name)
        else:
            known = [reason for reason in hints.values() if reason in HINTS]
            self.text.setdefault(known[0] if known else "", []).append(name)

    def notes(self) -> list[str]:
        """Say for each reason which columns are not used, and what would make them so."""
        notes = []
        if self.identifiers:
            notes.append(
                f"left out as identifiers by their names: {listed(self.identifiers)}; "
                "data.features uses them all the same"
            )
        if self.row_numbers:
            notes.append(
                f"left out, for they hold whole numbers that never repeat, such as row or patient numbers: "
                f"{listed(self.row_numbers)}; data.features uses them all the same"
            )
        if self.somewhere:
            lacking: dict[str, list[str]] = {}
            for name, sites in self.somewhere.items():
                lacking.setdefault(listed(sites), []).append(name)
            shown = "; ".join(f"{listed(names)} (not at {sites})" for sites, names in lacking.items())
            notes.append(f"left out because not every site has them: {shown}{_alike(list(self.somewhere))}")
        if self.empty:
            notes.append(f"left out, empty at every site that has them: {listed(self.empty)}")
        for reason, names in self.text.items():
            holds, remedy = HINTS.get(reason, ("text", f"use them with data.categorical: [{listed(names)}]"))
            notes.append(f"left out, for they hold {holds}: {listed(names)}; {remedy}")
        return notes


def _alike(names: Sequence[str]) -> str:
    """Say of names that not every site has which are one name, but for case, spaces or Unicode form."""
    from v6_algorithm.data.preparation.spelling import folded

    written: dict[object, list[str]] = {}
    for name in names:
        written.setdefault(folded(name), []).append(name)
    pairs = [" and ".join(f"{name!a}" for name in same) for same in written.values() if len(same) > 1]
    alike = f"; {'; '.join(pairs)} are one name, spelled differently: spell it alike at all sites" if pairs else ""
    bare: dict[object, list[str]] = {}
    for same in written.values():
        bare.setdefault(folded(without_unit(same[0])), []).append(same[0])
    units = [" and ".join(f"{name!a}" for name in same) for same in bare.values() if len(same) > 1]
    return alike + (
        f"; {'; '.join(units)} differ in the unit that their names have: write them in one unit there, under one name"
        if units
        else ""
    )


def _plain_numbers(schemas: Collection[Mapping[str, Any]]) -> set[str]:
    """Name the columns that hold numbers at every site, and of which none has anything to say."""
    at_sites = [{name for name, kind in schema["columns"].items() if kind == "numeric"} for schema in schemas]
    plain = set.intersection(*at_sites) if at_sites else set()
    return plain.difference(*(schema.get("hints", ()) for schema in schemas))


# All sites of a run ask of the same names.
@lru_cache(maxsize=20_000)
def looks_like_identifier(name: str) -> bool:
    """Say whether a column's name tells that it says who, not what."""
    return _IDENTIFIER.fullmatch(name.strip()) is not None


def are_measured(name: str, numbers: Array) -> bool:
    """Say whether (rows,) numbers, NaN where a cell is empty, are measured, though their column is called a number."""
    known = numbers[np.isfinite(numbers)]
    if _PERSON.search(name) is not None or re.search(r"(?i)id$|nr$|no$|num(ber|mer)?$", name.strip()):
        known = known * _VISITS
        broken = np.abs(known - np.rint(known)) > 1e-6 * np.maximum(np.abs(known), 1.0)
    else:
        broken = known != np.floor(known)
    return bool(len(known) and broken.mean() > _MEASURED)


@lru_cache(_NAMES_KEPT)
def says_whose(name: str) -> bool:
    """Say whether a column's name tells that it says whose rows these are, as patients' numbers do."""
    return looks_like_identifier(name) and _PERSON.search(name) is not None


def numbers_of(frame: pd.DataFrame, features: list[str], dtype: str) -> Array:
    """Return (rows, features) numbers, NaN where a cell is empty or infinite; some columns at a time.

    They are float64, whatever `dtype` is, where a column's numbers are so far from 0 that float32 cannot tell them
    apart (10,000,000 and 10,000,000.4): `TableData.inputs` rounds them when they are centred.
    """
    import pandas as pd

    values = np.empty((len(frame), len(features)), dtype=dtype)
    places = {name: place for place, name in enumerate(frame.columns.tolist())}
    for start in range(0, len(features), _BLOCK_COLUMNS):
        names = features[start : start + _BLOCK_COLUMNS]
        block = columns_at(frame, [places[name] for name in names])
        kinds = block.dtypes.tolist()
        text = {kind for kind in set(kinds) if not pd.api.types.is_numeric_dtype(kind)}
        texts = [name for name, kind in zip(names, kinds, strict=True) if kind in text]
        if texts:
            block = block.assign(**{name: pd.to_numeric(block[name], errors="coerce") for name in texts})
        rounds = dtype == "float32" and len(frame) > 0 and set(kinds) != {np.dtype("float32")}
        if rounds and blurred(block.to_numpy(dtype=np.float64, na_value=np.nan)).any():
            return numbers_of(frame, features, "float64")
        numbers = values[:, start : start + _BLOCK_COLUMNS]
        # What float32 cannot hold becomes infinite, and counts as empty.
        of_numpy = not texts and all(isinstance(kind, np.dtype) and kind.kind in "biuf" for kind in set(kinds))
        with np.errstate(over="ignore"):
            # Numbers of numpy have no other empty cell than NaN, which need not be looked for.
            numbers[:] = block.to_numpy(dtype=dtype) if of_numpy else block.to_numpy(dtype=dtype, na_value=np.nan)
        if (infinite := np.isinf(numbers)).any():
            numbers[infinite] = np.nan
    return values
