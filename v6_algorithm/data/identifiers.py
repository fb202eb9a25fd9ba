"""Names of columns that say who a row is of, or which row it is, and not what was measured; in hospitals' languages.

`rows.numbers` leaves such columns out, `description.repeats` looks among them for patients with several rows.
"""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np

# Names of columns, which are looked at for each of many sites' tables.
_NAMES_KEPT = 20_000
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
    r"编号|序号|登録番号|受診番号|連番|falnr|fallid|uhid|hn|s[/.]?n[/.]?|(?-i:[A-Z]{2,}nr|[A-Za-z]+(Nr|SerNum))|"
    r"\w{3,}nummer|potilasnumero|patienten[ _.-]?(kennung|code|schl(ü|ue)ssel)|"
    r"(sl|sr|ser|serial|s\.|pt|reg|registration|trial)[ _.-]*(no|nr|num|nbr|number)|"
    r"(code|cod|n|nr|no|num|numer|id)[ _.-]?(du |de[_ .-])?(patient|pac(iente)?|paziente|usuario|anonymat)|"
    r"id[ _.-]?(nr|no|num)|"
    r"identifiant([ _.-].*)?|identificativo|identificador|matricola|"
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
    r"patient|pa[cz]ient|nhc|historia|expediente|pat(_|id|nr)|subj|participant|person|proband|teilnehmer|deelnemer|"
    r"pseudonym|client|mrn|bsn|zis|ssn|"
    r"hasta|kimlik|pesel|pacjent|cpr|f[oø]dsel|hetu|prontu|utente|curp|患者|住院|病历|カルテ|환자|"
    r"^(id|pid|ptid|eid|rid|seqn|ipp|nip|sid)$|record[ _.-]?id|study[ _.-]?id",
    re.I,
)


@lru_cache(_NAMES_KEPT)
def looks_like_identifier(name: str) -> bool:
    """Say whether a column's name tells that it says who, not what."""
    return _IDENTIFIER.fullmatch(name.strip()) is not None


def are_measured(name: str, numbers: np.ndarray) -> bool:
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
