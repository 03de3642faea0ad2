"""Figures that the shipped documents hold: what to search for, and the number that stands there.

Written by hand from `actors/tools/documents`, so that they prove the tool that finds them.
"""

from typing import Final

FACTS: Final[dict[str, int | float]] = {
    "length of the Amazon in kilometres": 6400,
    "length of the Yangtze in kilometres": 6300,
    "length of the Volga in kilometres": 3500,
    "water of the Amazon in cubic metres": 200_000,
    "depth of the Congo bed in metres": 200,
    "countries along the Danube": 10,
    "area of the Caspian Sea in square kilometres": 370_000,
    "depth of Lake Baikal in metres": 1640,
    "area of Lake Superior in square kilometres": 82_000,
    "area of Lake Victoria in square kilometres": 69_000,
    "height of Lake Titicaca in metres": 3800,
    "shore of the Dead Sea in metres": 430,
    "Everest on the border of Nepal in metres": 8849,
    "height of K2 in metres": 8611,
    "height of Kilimanjaro in metres": 5895,
    "height of Aconcagua in metres": 6961,
    "height of Mont Blanc in metres": 4806,
    "height of Elbrus in metres": 5642,
    "mountain range of the Andes in kilometres": 7000,
    "largest desert Antarctica square kilometres": 14_000_000,
    "area of the Sahara in square kilometres": 9_000_000,
    "desert rain in millimetres a year": 250,
    "highest air temperature in degrees Celsius": 56.7,
    "area of Greenland in square kilometres": 2_170_000,
    "age of Madagascar in million years": 88_000_000,
    "distance of Tristan da Cunha in kilometres": 2400,
    "languages spoken today": 7000,
    "native speakers of Mandarin": 900_000_000,
    "speakers of English in all": 1_500_000_000,
    "salt in sea water in grams": 35,
    "tides at the Bay of Fundy in metres": 16,
    "depth of the Challenger Deep in metres": 11_000,
    "area of the Pacific Ocean in square kilometres": 165_000_000,
    "heat of Venus in degrees Celsius": 465,
    "speed of light in metres per second": 299_792_458,
    "distance of the Moon in kilometres": 384_400,
    "reach of Krakatoa in kilometres": 4800,
    "magnitude of the strongest earthquake": 9.5,
    "height of Olympus Mons in kilometres": 22,
    "turn of the Earth in degrees of longitude": 15,
    "planets of the Sun": 8,
}
"""By the words that are searched for. All of them are approximate, as the documents say."""
