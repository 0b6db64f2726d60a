"""Word material of tiny-world: invented names by syllables, and plain nouns for the object classes."""

import random


def _words(text: str) -> tuple[str, ...]:
    return tuple(" ".join(text.split()).split(", "))


OCCUPATIONS = _words(
    """baker, doctor, teacher, painter, farmer, lawyer, sailor, carpenter, nurse, pilot, tailor, gardener,
    journalist, chemist, plumber, dentist, librarian, butcher, printer, surveyor, translator, mechanic,
    jeweller, shepherd, postman, mason, cook, barber, potter, glazier"""
)
INSTRUMENTS = _words(
    """violin, piano, flute, cello, trumpet, harp, guitar, drums, oboe, clarinet, banjo, accordion, tuba,
    mandolin, bassoon, lute, fiddle, zither, horn, viola"""
)
COLLECTIBLES = _words(
    """stamps, coins, shells, maps, clocks, buttons, postcards, knives, teapots, masks, dolls, feathers,
    bottles, medals, fossils, puppets, keys, spoons, lanterns, tiles, books, hats, marbles, kites"""
)
PRODUCTS = _words(
    """bicycles, carpets, engines, candles, mirrors, paper, tractors, ropes, paint, radios, cameras, boats,
    umbrellas, furnaces, saddles, soap"""
)
DISHES = _words(
    """soup, bread, cheese, sausages, pancakes, dumplings, honey, smoked fish, plum cake, pickles, noodles,
    stew, pies, mustard, cider, ham"""
)
NOUNS = {"occupation": OCCUPATIONS, "instrument": INSTRUMENTS, "collectible": COLLECTIBLES}
NOUNS |= {"product": PRODUCTS, "dish": DISHES}

_ONSETS = _words("b, d, f, g, h, k, l, m, n, p, r, s, t, v, w, z, br, dr, gr, kr, tr, st, sk, fl, gl")
_VOWELS = _words("a, e, i, o, u, ai, ei, ou")
_CODAS = _words("n, r, l, s, k, m, nd, rt, lm, st, rn, x")


def invent(rng: random.Random, count: int, endings: tuple[str, ...], taken: set[str]) -> list[str]:
    """Draw ``count`` new capitalised names of three syllables; names in ``taken`` are never repeated."""
    names = []
    while len(names) < count:
        parts = (_ONSETS, _VOWELS, _CODAS, endings)
        name = "".join(rng.choice(part) for part in parts).capitalize()
        if name not in taken:
            taken.add(name)
            names.append(name)
    return names
