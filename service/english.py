"""What highlighting knows of English, the language of the model: which words say nothing, and which are forms of one.

The vectors need none of it. But the model weighs `engine` where a text says `engines`, and gives the `how` of a
question a weight that no reader wants to see marked. The cost of so few rules: irregular forms (`won` for `win`) are
missed, and a rare pair such as `cars` and `cared` is taken for one word.
"""

from functools import lru_cache

FUNCTION_WORDS = frozenset(
    """
    a about all also am an and any are as at be been being but by can could d did do does doing for from had has
    have having he her hers him his how i if in into is it its ll m many may me might mine more most much must my no
    nor not of on or our ours re s shall she should so some such t than that the their theirs them then there these
    they this those to too ve very was we were what when where which while who whom whose why will with would you
    your yours
    """.split()  # noqa: SIM905 - easier to read than a list
)

SIBILANTS = ("s", "x", "z", "ch", "sh", "o")
"""A word that ends so takes -es."""

SHORTEST = 3
"""Letters of the shortest base form: `bed` is not a form of `b`."""


@lru_cache(2**15)
def base_forms(word: str) -> frozenset[str]:
    """The words that a word may be a form of by the regular rules, itself among them.

    Args:
        word: In lower case.

    >>> sorted(base_forms("libraries")), sorted(base_forms("planes")), sorted(base_forms("stopped"))
    (['libraries', 'library'], ['plane', 'planes'], ['stop', 'stopp', 'stoppe', 'stopped'])
    """
    forms = [word]
    if word.endswith("ies") or word.endswith("ied"):
        forms.append(word[:-3] + "y")
    elif word.endswith("es") and word[:-2].endswith(SIBILANTS):
        forms += [word[:-2], word[:-1]]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        forms.append(word[:-1])
    for ending in ("ed", "ing"):
        if word.endswith(ending):
            stem = word.removesuffix(ending)
            forms += [stem, f"{stem}e"]
            if len(stem) > 1 and stem[-1] == stem[-2]:
                forms.append(stem[:-1])
    return frozenset({word, *(form for form in forms if len(form) >= SHORTEST)})
