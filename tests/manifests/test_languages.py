"""The ten languages are described, in their own words, and `--langs` is understood or refused in one line."""

import unicodedata

import pytest

from manifests.languages import WILD, languages, load, load_file
from manifests.table import ManifestError

TAGS = ("en", "de", "zh", "fr", "hr", "ru", "pl", "es", "ar", "th")
SCRIPTS = {"zh": "CJK", "ru": "CYRILLIC", "ar": "ARABIC", "th": "THAI"}


def test_the_ten_languages_come_in_the_order_of_their_hours():
    found = load()
    assert tuple(language.tag for language in found) == TAGS
    assert [language.hours for language in found] == [35.8, 32.4, 28.8, 25.9, 24.6, 22.0, 20.3, 19.8, 17.6, 14.5]


@pytest.mark.parametrize("tag", TAGS)
def test_every_language_has_a_dozen_distinct_queries(tag):
    queries = load_file(WILD / f"{tag}.toml").queries
    assert len(set(queries)) == len(queries) >= 12
    assert all(query == query.strip() for query in queries)


@pytest.mark.parametrize("tag", TAGS)
def test_queries_are_written_in_the_language(tag):
    language = load_file(WILD / f"{tag}.toml")
    script = SCRIPTS.get(tag, "LATIN")
    for query in (*language.queries, language.own_name):
        names = [unicodedata.name(letter) for letter in query if letter.isalpha()]
        # "vlog" is written in Latin letters in Chinese too.
        assert sum(name.startswith(script) for name in names) > len(names) / 2, query


def test_creative_commons_is_the_rule_for_all():
    assert {language.licence for language in load()} == {"cc"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('tag = "de"\nname = "German"\nown_name = "Deutsch"\nhours = "many"\nqueries = ["x y"]\n', "hours"),
        ('tag = "de"\nname = "German"\nown_name = "Deutsch"\nhours = 0\nqueries = ["x y"]\n', "hours"),
        ('tag = "Deutsch"\nname = "German"\nown_name = "Deutsch"\nhours = 1\nqueries = ["x y"]\n', "tag"),
        ('tag = "de"\nname = "German"\nown_name = "Deutsch"\nhours = 1\nlicense = "cc"\n', "license"),
        ('tag = "de"\nname = "German"\nown_name = "Deutsch"\nhours = 1\nlicence = "mine"\n', "licence"),
        ('tag = "de"\nname = "German"\nown_name = "Deutsch"\nhours = 1\nchannels = ["@name"]\n', "channels[0]"),
        ('tag = "de"\nown_name = "Deutsch"\nhours = 1\nqueries = ["x y"]\n', "name"),
        ('tag = "de"\nname = "German"\nown_name = "Deutsch"\nhours = 1\n', "queries"),
        ("tag = \n", "Invalid value"),
        ("tag = " + "[" * 20_000 + "]" * 20_000, "nested too deeply"),
    ],
)
def test_a_mistake_is_named_with_file_and_field(tmp_path, text, said):
    path = tmp_path / "de.toml"
    path.write_text(text)
    with pytest.raises(ManifestError) as caught:
        load(tmp_path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_files_of_one_language_are_refused(tmp_path):
    text = 'tag = "de"\nname = "German"\nown_name = "Deutsch"\nhours = 1\nqueries = ["x y"]\n'
    (tmp_path / "a.toml").write_text(text)
    (tmp_path / "b.toml").write_text(text)
    with pytest.raises(ManifestError, match=r"b\.toml: field tag: 'de' is also in"):
        load(tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="no language files"):
        load(tmp_path)


def test_a_tag_may_be_written_in_any_case_and_is_picked_all_the_same(tmp_path):
    text = 'name = "Portuguese"\nown_name = "português"\nhours = 1\nqueries = ["x y"]\n'
    (tmp_path / "pt.toml").write_text(f'tag = "pt-br"\n{text}')
    (found,) = load(tmp_path)
    assert found.tag == "pt-BR" and languages("pt-br", [found.tag]) == ("pt-BR",)


@pytest.mark.parametrize(
    ("selection", "picked"),
    [
        ("10", TAGS),
        ("1", ("en",)),
        ("3", ("en", "de", "zh")),
        ("pl,de", ("de", "pl")),
        ("German, th", ("de", "th")),
        ("PL", ("pl",)),
    ],
)
def test_langs_picks(selection, picked):
    assert languages(selection, TAGS) == picked


@pytest.mark.parametrize("selection", ["0", "11", "", "xx", "de,", "de;pl", "-1", "²", "ten words", "de,ko"])
def test_langs_refuses_saying_what_is_allowed(selection):
    with pytest.raises(ValueError, match=r"a number from 1 to 10, or any of en,de,zh") as caught:
        languages(selection, TAGS)
    assert "\n" not in str(caught.value)
