"""What a series' name says: words that technologists type, in the languages they type them in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from toolkit.data.patients import MODALITIES

# Names of what is no plain anatomical series of the head, after spaces stand for `_`, `-`, `.` and `/`.
_OTHER = re.compile(
    r"(?<![a-z])(?:[de]?adc|e?dwi|diff?\w*|dti|dki|trace\w?|tensor|swi\w*|swan|swip|ven ?bold|tof|angio\w*|cow|"
    r"(?:ce ?)?mr[av]|perf\w*|pwi|dsc|dce|dyn\w*|p?c?asl|bold|fmri|rest\w*|local\w*|loc|scout|survey|plan|3 ?plane|"
    r"aahead\w*|mi?n?ip|subtr\w*|sub|stir|dir|double ir|psir|qsm|hemo\w*|gre|medic|field ?map\w*|b[01]\d* ?map|"
    r"b1000|b0|phase|spectro\w*|mrs|svs|csi|calib\w*|asset|shim\w*|smartbrain|mtc?|ciss|fiesta\w*|trufi\w*|"
    r"true ?fisp|b ?ffe|b ?tfe|drive|pc|flow|elasto\w*|mre|uni|(?:t[12]|r2|pd) ?map\w*|roi|seg\w*|mask|screen\w*|"
    r"report|cbv|cbf|mtt|tmax|ttp|phoenix\w*|[ctl] ?spine|spine|cervical|lumbar|thorac\w*|neck|orbits?|pituitary|"
    r"sella\w*|iacs?|tmj|larynx)(?![a-z])|t2 ?(?:\*|star|stern)|t2st(?![a-z])|位置決め|拡散|造影差分"
)
_T1 = re.compile(r"(?<![0-9])t1(?![0-9])|mp ?rage|(?<![a-z])f?spgr|bravo|(?<![a-z])vibe|(?<![a-z])flash|thrive")
_T2 = re.compile(r"(?<![0-9])t2(?![0-9])")
_FLAIR = re.compile(r"flair|dark ?fluid|(?<![a-z])tirm")
_CONTRAST = r"(?:contr\w*|kontrast\w*|gad\w*|gd|km|c|ce|mdc|inj\w*|enh\w*|kontrastmittel|agent)(?![a-z])"
_NOT_FAT = r"(?! ?(?:fs|fat|sat|fett))"
_BOTH = re.compile(
    r"(?<![a-z])(?:w|with|mit|pre)(?: ?(?:&|and|und|\+|/)? ?)(?:w/? ?o|without|ohne|post)(?![a-z])" + _NOT_FAT
)
_BEFORE = re.compile(
    rf"(?<![a-z])(?:pre|without|w/? ?o|ohne|vor|sans|senza|sin|sem|zonder|avant|prior to){_NOT_FAT}(?![a-z])"
    rf"(?: ?{_CONTRAST})?|(?<![a-z])(?:pre|non?|un) ?{_CONTRAST}|(?<![a-z])nativ\w*|(?<![a-z])plain|blanco|"
    rf"(?:^| )-{_CONTRAST}|造影前|非造影|造影なし|単純"
)
_AFTER = re.compile(
    rf"post(?!er|ure|proc)\w*|nach km|gado\w*|dotarem|magnevist|prohance|multihance|clariscan|omniscan|"
    rf"(?<![a-z]){_CONTRAST}(?<!(?<![a-z])c)|\+ ?{_CONTRAST}|(?<=1)c(?![a-z])|(?<![a-z])c ?\+|ct1|w ?/ ?c(?![a-z])|"
    rf"with ?{_CONTRAST}|apres|après|造影"
)
_SAYS = {"t1": "T1", "t2": "T2", "flair": "FLAIR"}


class Name(NamedTuple):
    """What a name says.

    Attributes:
        kind: `t1`, `t2`, `flair`, or empty.
        contrast: `before`, `after`, `both` (it says so, and cannot be believed), or empty.
        other: the word that says it is something else; empty if none does.
        said: the words found, for a sentence; never the whole name.
        site: whether a rule of the site's settings matched.
    """

    kind: str = ""
    contrast: str = ""
    other: str = ""
    said: str = ""
    site: bool = False


def read_name(description: str) -> Name:
    """What a SeriesDescription says by itself.

    Args:
        description: as the scanner or its user wrote it.
    """
    text = " " + re.sub(r"[\s_.,;:()\[\]]+", " ", description.lower()) + " "
    dashed = text.replace("-", " ")
    if found := _OTHER.search(dashed):
        return Name(other=found[0].strip())
    kinds = [kind for kind, pattern in (("t1", _T1), ("t2", _T2), ("flair", _FLAIR)) if pattern.search(dashed)]
    if "flair" in kinds and "t2" in kinds and "t1" not in kinds:
        kinds = ["flair"]  # T2 FLAIR
    if kinds == ["t1", "flair"]:
        kinds = ["t1"]  # T1 FLAIR, T1 dark fluid: a T1 with inversion
    contrast, words = _contrast(text)
    said = " ".join([*(_SAYS[kind] for kind in kinds), *words])
    return Name(kinds[0] if len(kinds) == 1 else "", contrast, "", said)


def read_site_name(description: str, rules: Mapping[str, tuple[str, ...]]) -> Name | None:
    """What the site's own rules say; None where none matches.

    Args:
        description: as the scanner or its user wrote it.
        rules: modality (or `ignore`) -> regular expressions, any case.
    """
    hits = {
        what: word for what, words in rules.items() for word in words if re.search(word, description, re.IGNORECASE)
    }
    if not hits:
        return None
    if "ignore" in hits:
        return Name(other=f"{hits['ignore']} (set to be ignored)", site=True)
    said = " and ".join(f"{what} by the site's '{word}'" for what, word in hits.items())
    if len(hits) > 1:
        return Name(contrast="both", said=said, site=True)
    what = next(what for what in MODALITIES if what in hits)
    contrast = {"t1": "before", "t1ce": "after"}.get(what, "")
    return Name("t1" if what == "t1ce" else what, contrast, "", said, site=True)


def _contrast(text: str) -> tuple[str, list[str]]:
    if found := _BOTH.search(text):
        return "both", [found[0].strip()]
    before = _BEFORE.search(text)
    after = _AFTER.search(_BEFORE.sub(" ", text).replace("-", " "))
    words = [found[0].strip(" -") for found in (before, after) if found]
    if before and after:
        return "both", words
    return "before" if before else "after" if after else "", words
