"""Ordered words by language: ``low < medium < high``, ``gering < mittel < hoch``.

A table lists the scales of one language, lowest word first. Words after ``=`` are other forms of the same step, such as
the feminine and the plural. A column whose words are of a known scale is read in that order and keeps the language's
words (:func:`unseen.classes.spreadsheets.guessing.guess`); a further language is a further table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from unseen.classes.spreadsheets.cells import fold

LANGUAGES = {
    "English": """
        low < medium < high
        small < medium < large
        short < medium < long
        narrow < medium < broad
        thin < medium < thick
        light < medium < dark
        slow < medium < fast
        weak < moderate < strong
        absent < weak < moderate < strong
        none < weak < moderate < strong
        none < mild < moderate < severe
        none < low < medium < high
        none < few < some < many
        poor < fair < good < excellent
        rare < uncommon < common < abundant
        never < rarely < sometimes < often < always
        strongly disagree < disagree < neutral < agree < strongly agree
        not at all < slightly < moderately < very < extremely
        very low < low < medium < high < very high
        very small < small < medium < large < very large
        very short < short < medium < long < very long
        tiny < small < medium < large < huge
        medium = moderate, mid, average, intermediate; large = big; broad = wide; rarely = seldom
        often = frequently; none = zero, no
    """,
    "German": """
        gering < mittel < hoch
        niedrig < mittel < hoch
        klein < mittel < groß
        kurz < mittel < lang
        schmal < mittel < breit
        dünn < mittel < dick
        hell < mittel < dunkel
        langsam < mittel < schnell
        schwach < mittel < stark
        keine < schwach < mittel < stark
        keine < gering < mittel < hoch
        keine < wenige < einige < viele
        schlecht < mäßig < gut < sehr gut
        selten < gelegentlich < häufig
        nie < selten < manchmal < oft < immer
        trifft nicht zu < trifft eher nicht zu < teils teils < trifft eher zu < trifft zu
        sehr gering < gering < mittel < hoch < sehr hoch
        sehr niedrig < niedrig < mittel < hoch < sehr hoch
        sehr klein < klein < mittel < groß < sehr groß
        sehr kurz < kurz < mittel < lang < sehr lang
        sehr schwach < schwach < mittel < stark < sehr stark
        winzig < klein < mittel < groß < riesig
        mittel = mittlere, mittlerer, mittleres, mittelgroß, mittellang, mittelmäßig, mäßig, durchschnittlich
        groß = gross, große; klein = kleine; hoch = hohe; keine = kein, nein, null; wenige = wenig; viele = viel
        nie = niemals; oft = häufig; häufig = oft; manchmal = gelegentlich; gelegentlich = manchmal; immer = stets
        dünn = duenn; häufig = haeufig; mäßig = maessig; sehr groß = sehr gross
    """,
    "French": """
        faible < moyen < élevé
        bas < moyen < haut
        petit < moyen < grand
        court < moyen < long
        étroit < moyen < large
        mince < moyen < épais
        clair < moyen < foncé
        lent < moyen < rapide
        faible < moyen < fort
        absent < faible < moyen < fort
        aucun < faible < moyen < fort
        aucun < peu < quelques < beaucoup
        mauvais < passable < bon < excellent
        rare < peu commun < commun < abondant
        jamais < rarement < parfois < souvent < toujours
        très faible < faible < moyen < fort < très fort
        très faible < faible < moyen < élevé < très élevé
        très petit < petit < moyen < grand < très grand
        très court < court < moyen < long < très long
        minuscule < petit < moyen < grand < énorme
        faible = faibles; moyen = moyenne, moyens, moyennes, modéré, modérée; élevé = élevée, élevés, élevées
        bas = basse, basses; haut = haute, hauts, hautes; petit = petite, petits, petites; aucun = aucune, non, nul
        grand = grande, grands, grandes; court = courte, courts, courtes; long = longue, longs, longues
        étroit = étroite, étroits, étroites; large = larges; épais = épaisse, épaisses
        clair = claire, clairs, claires; foncé = foncée, foncés, foncées, sombre; lent = lente
        fort = forte, forts, fortes
        parfois = quelquefois, de temps en temps; souvent = fréquemment; absent = absente
    """,
    "Spanish": """
        bajo < medio < alto
        pequeño < mediano < grande
        corto < medio < largo
        estrecho < medio < ancho
        fino < medio < grueso
        delgado < medio < grueso
        claro < medio < oscuro
        lento < medio < rápido
        débil < moderado < fuerte
        ausente < débil < moderado < fuerte
        ninguno < débil < moderado < fuerte
        ninguno < bajo < medio < alto
        ninguno < pocos < algunos < muchos
        malo < regular < bueno < excelente
        raro < poco común < común < abundante
        nunca < raramente < a veces < a menudo < siempre
        muy bajo < bajo < medio < alto < muy alto
        muy pequeño < pequeño < mediano < grande < muy grande
        muy corto < corto < medio < largo < muy largo
        diminuto < pequeño < mediano < grande < enorme
        bajo = baja, bajos, bajas; medio = media, medios, medias, mediano, mediana; alto = alta, altos, altas
        pequeño = pequeña, pequeños, pequeñas; mediano = mediana, medianos, medianas, medio, media; grande = grandes
        corto = corta, cortos, cortas; largo = larga, largos, largas; estrecho = estrecha; ancho = ancha; fino = fina
        delgado = delgada; grueso = gruesa; claro = clara; oscuro = oscura; lento = lenta; rápido = rápida
        moderado = moderada, medio, media; ninguno = ninguna, no, nada, cero; a menudo = frecuentemente, con frecuencia
        raramente = rara vez, casi nunca; a veces = algunas veces
    """,
    "Italian": """
        basso < medio < alto
        piccolo < medio < grande
        corto < medio < lungo
        stretto < medio < largo
        sottile < medio < spesso
        chiaro < medio < scuro
        lento < medio < veloce
        debole < moderato < forte
        assente < debole < moderato < forte
        nessuno < debole < moderato < forte
        nessuno < basso < medio < alto
        nessuno < pochi < alcuni < molti
        scarso < discreto < buono < ottimo
        raro < poco comune < comune < abbondante
        mai < raramente < talvolta < spesso < sempre
        molto basso < basso < medio < alto < molto alto
        molto piccolo < piccolo < medio < grande < molto grande
        molto corto < corto < medio < lungo < molto lungo
        minuscolo < piccolo < medio < grande < enorme
        basso = bassa, bassi, basse; medio = media, medi, medie; alto = alta, alti, alte
        piccolo = piccola, piccoli, piccole; grande = grandi; corto = corta, corti, corte; lungo = lunga, lunghi, lunghe
        stretto = stretta; largo = larga; spesso = spessa; chiaro = chiara; scuro = scura; lento = lenta
        debole = deboli
        moderato = moderata, medio, media; forte = forti; nessuno = nessuna, no, zero; talvolta = a volte, qualche volta
        raramente = di rado
    """,
}


def _read() -> tuple[tuple[tuple[str, ...], ...], dict[str, list[str]]]:
    scales: list[tuple[str, ...]] = []
    same: dict[str, list[str]] = {}
    for text in LANGUAGES.values():
        for line in filter(None, map(str.strip, text.splitlines())):
            if "<" in line:
                scales.append(tuple(step.strip() for step in line.split("<")))
                continue
            for group in line.split(";"):
                step, _, others = group.partition("=")
                for other in others.split(","):
                    same.setdefault(fold(step), []).append(fold(other))
    return tuple(dict.fromkeys(scales)), same


_SIGN = re.compile(r"([^\w\s-])\1*|(x)\2*", re.IGNORECASE)
_NO_SIGN = ("-", "0", "±", "(+)")

SCALES, SAME = _read()
"""All scales, lowest word first; and each step, folded, with the other words for it."""


@lru_cache(maxsize=1024)
def _places(steps: tuple[str, ...]) -> dict[str, int]:
    """Position by word, folded; a step's own word comes before other forms of another step."""
    own = [fold(step) for step in steps]
    return {other: i for i, word in enumerate(own) for other in SAME.get(word, ())} | {w: i for i, w in enumerate(own)}


def step_of(word: str, steps: tuple[str, ...]) -> int | None:
    """Position of a word, or of another form of it, among the steps of a scale; ``None`` if it is not one of them."""
    return _places(steps).get(fold(word))


def repeated_signs(words: Iterable[str]) -> tuple[str, ...]:
    """The order of a sign that is written several times: ``- < + < ++ < +++``; empty if the words are other ones."""
    words = {"-" if word in ("–", "−") else word for word in words}
    signs = {word for word in words if word not in _NO_SIGN}
    if (
        len({word[0] for word in signs}) != 1
        or not all(map(_SIGN.fullmatch, signs))
        or max(map(len, signs)) < 2
        or {"-", "0"} <= words
    ):
        return ()
    none = [word for word in _NO_SIGN if word in words]
    sign = min(signs)[0]
    return (*none, *(sign * count for count in range(1, max(map(len, signs)) + 1)))


def are_signs(steps: tuple[str, ...]) -> bool:
    """Whether the steps of a scale are signs, which say nothing by themselves."""
    return len(steps[-1]) > 1 and _SIGN.fullmatch(steps[-1]) is not None
