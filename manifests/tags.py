"""Names of languages and their BCP-47 tags."""

import re

_TAG = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8})*")

_CASED = {2: str.upper, 4: str.title}
"""Regions and scripts by their length: `pt-BR`, `zh-Hant`; what else follows a language is small."""

_BY_NAME = {
    "arabic": "ar", "bengali": "bn", "bulgarian": "bg", "cantonese": "yue", "catalan": "ca", "chinese": "zh",
    "croatian": "hr", "czech": "cs", "danish": "da", "dutch": "nl", "english": "en", "finnish": "fi", "french": "fr",
    "german": "de", "greek": "el", "hebrew": "he", "hindi": "hi", "hungarian": "hu", "indonesian": "id",
    "italian": "it", "japanese": "ja", "korean": "ko", "malay": "ms", "mandarin": "zh", "norwegian": "no",
    "persian": "fa", "polish": "pl", "portuguese": "pt", "romanian": "ro", "russian": "ru", "serbian": "sr",
    "slovak": "sk", "spanish": "es", "swedish": "sv", "tagalog": "tl", "tamil": "ta", "telugu": "te", "thai": "th",
    "turkish": "tr", "ukrainian": "uk", "urdu": "ur", "vietnamese": "vi",
}  # fmt: skip

ENGLISH_NAMES = {tag: name.title() for name, tag in reversed(_BY_NAME.items())}
"""By tag; of two names of a language the first above."""

_BY_LONGER = """
    aar:aa abk:ab afr:af aka:ak alb:sq amh:am ara:ar arg:an arm:hy asm:as ava:av ave:ae aym:ay aze:az bak:ba bam:bm
    baq:eu bel:be ben:bn bih:bh bis:bi bod:bo bos:bs bre:br bul:bg bur:my cat:ca ces:cs cha:ch che:ce chi:zh chu:cu
    chv:cv cor:kw cos:co cre:cr cym:cy cze:cs dan:da deu:de div:dv dut:nl dzo:dz ell:el eng:en epo:eo est:et eus:eu
    ewe:ee fao:fo fas:fa fij:fj fin:fi fra:fr fre:fr fry:fy ful:ff geo:ka ger:de gla:gd gle:ga glg:gl glv:gv gre:el
    grn:gn guj:gu hat:ht hau:ha hbs:sh heb:he her:hz hin:hi hmo:ho hrv:hr hun:hu hye:hy ibo:ig ice:is ido:io iii:ii
    iku:iu ile:ie ina:ia ind:id ipk:ik isl:is ita:it jav:jv jpn:ja kal:kl kan:kn kas:ks kat:ka kau:kr kaz:kk khm:km
    kik:ki kin:rw kir:ky kom:kv kon:kg kor:ko kua:kj kur:ku lao:lo lat:la lav:lv lim:li lin:ln lit:lt ltz:lb lub:lu
    lug:lg mac:mk mah:mh mal:ml mao:mi mar:mr may:ms mkd:mk mlg:mg mlt:mt mon:mn mri:mi msa:ms mya:my nau:na nav:nv
    nbl:nr nde:nd ndo:ng nep:ne nld:nl nno:nn nob:nb nor:no nya:ny oci:oc oji:oj ori:or orm:om oss:os pan:pa per:fa
    pli:pi pol:pl por:pt pus:ps que:qu roh:rm ron:ro rum:ro run:rn rus:ru sag:sg san:sa sin:si slk:sk slo:sk slv:sl
    sme:se smo:sm sna:sn snd:sd som:so sot:st spa:es sqi:sq srd:sc srp:sr ssw:ss sun:su swa:sw swe:sv tah:ty tam:ta
    tat:tt tel:te tgk:tg tgl:tl tha:th tib:bo tir:ti ton:to tsn:tn tso:ts tuk:tk tur:tr twi:tw uig:ug ukr:uk urd:ur
    uzb:uz ven:ve vie:vi vol:vo wel:cy wln:wa wol:wo xho:xh yid:yi yor:yo zha:za zho:zh zul:zu
"""

TWO_LETTER = dict(pair.split(":") for pair in _BY_LONGER.split())
"""ISO 639-1 codes by those of ISO 639-2, terminological and bibliographic ones. yt-dlp has the former alone, and takes
0.7 s to import."""

UNSTATED = frozenset({"unknown", "auto", "none", "null", "other", "others", "n/a", "?", "-"})
"""What lists say, in any case, where they mean that they do not know the language."""


class UnknownLanguageError(ValueError):
    """Neither a BCP-47 tag nor an English name that we know."""


def language_tag(text: str) -> str:
    """The BCP-47 tag of a tag or an English name, in its usual case: `PT_br` gives `pt-BR`, `German` gives `de`.

    Raises `UnknownLanguageError`. A tag is checked for its form only: whisper and the world know more than any list.
    """
    cleaned = text.strip().replace("_", "-")
    if cleaned.lower() in _BY_NAME:
        return _BY_NAME[cleaned.lower()]
    if not _TAG.fullmatch(cleaned):
        raise UnknownLanguageError(
            f"{text!r} is neither a BCP-47 tag nor the English name of a language we know: say de, pt-BR or German"
        )
    primary, *rest = cleaned.split("-")
    return "-".join([primary.lower(), *(_CASED.get(len(part), str.lower)(part) for part in rest)])


def primary(tag: str) -> str:
    """The language of a tag without its region: `pt-BR` gives `pt`."""
    return tag.partition("-")[0].lower()
