"""The gym: tasks that check themselves, over real data, with a pool drawn for each.

========================  ==========================================================================
``episodes``              `draw` and `draws`: an episode by a seed, of a set
``splits``                the sets, and what each holds out
``questions``, ``plans``  what is asked, in six families, and the gold plan of each
``pools``                 who is there, what is said of them, what they cost, how they fail
``kinds``, ``workers``    what workers can do, by real tools; their adapters, in this process
``hosted``                the same on real actors
``oracle``, ``teacher``   who knows how it is done; one that slips, and marks it
``keywords``              hand-written rules, and a static router
``baselines``             chance, and a vote of several runs
``evaluate``, ``tables``  what a policy does on a set, with intervals; as tables
========================  ==========================================================================

``grammar``, ``wordings``, ``descriptions`` and ``facts`` are what questions and pools are composed
of. Every draw is a pure function of a seed; nothing here knows a clock.
"""
