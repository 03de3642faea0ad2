"""Tools over real public data, which need no key and no network.

``gazetteer`` (countries and cities), ``calculator``, ``library`` (a search over documents),
``figures`` (a number out of them) and ``snippets`` (small programs) are plain functions.
``offline`` makes workers of some, which the shipped pool (`podium.pools.offline`) offers; the gym's
workers are made of all.
"""
