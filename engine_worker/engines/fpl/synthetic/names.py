"""Fictional clubs and players. PURE. Places and people here were made up from syllables; any likeness is chance."""

from random import Random

# (name, short name): towns that are on no map.
CLUBS = (
    ("Ashmere Rovers", "ASM"),
    ("Brackwell Town", "BKW"),
    ("Caldermoor", "CLD"),
    ("Dunfold Athletic", "DNF"),
    ("Eastmarrow", "EMW"),
    ("Fenwick Vale", "FWV"),
    ("Garrowby United", "GBY"),
    ("Harthollow", "HTH"),
    ("Inglemoss", "IGM"),
    ("Jarrowfield City", "JFC"),
    ("Kestrel Bay", "KSB"),
    ("Lorndale", "LND"),
    ("Merrowick Albion", "MWK"),
    ("Northcliffe Orient", "NCO"),
    ("Oldspire", "OSP"),
    ("Pellworth County", "PLW"),
    ("Quenby Wanderers", "QNB"),
    ("Ravensholt", "RVH"),
    ("Stonemarsh", "STM"),
    ("Thistledown", "THD"),
)
_STARTS: tuple[str, ...] = (
    "Bar",
    "Cor",
    "Dal",
    "Els",
    "Fen",
    "Gar",
    "Hol",
    "Ist",
    "Jor",
    "Kel",
    "Lun",
    "Mar",
    "Nor",
    "Osk",
    "Pel",
)
_STARTS += ("Quil", "Ros", "Sal", "Tor", "Ulv", "Ves", "Wex", "Yar", "Zan", "Bre", "Cla", "Dro", "Fro", "Gri", "Stro")
_MIDDLES = ("a", "e", "i", "o", "u", "an", "el", "in", "or", "ul", "ava", "eni", "ori", "imo", "ede")
_ENDS = (
    "bek",
    "dane",
    "fell",
    "garth",
    "kov",
    "lund",
    "mire",
    "nash",
    "quist",
    "rell",
    "sen",
    "tak",
    "vane",
    "wick",
    "zar",
)
_FIRST: tuple[str, ...] = (
    "Ado",
    "Bren",
    "Cael",
    "Dov",
    "Emre",
    "Fio",
    "Gael",
    "Hano",
    "Ilo",
    "Jore",
    "Kai",
    "Levo",
    "Milo",
    "Nilo",
)
_FIRST += ("Oren", "Pavo", "Ravi", "Sile", "Timo", "Umar", "Vito", "Wim", "Xan", "Yori", "Zeno")


def player_names(rng: Random, count: int) -> list[tuple[str, str]]:
    """`count` (first name, surname) pairs, surnames all different."""
    surnames = [start + middle + end for start in _STARTS for middle in _MIDDLES for end in _ENDS]
    return [(rng.choice(_FIRST), surname) for surname in rng.sample(surnames, count)]
