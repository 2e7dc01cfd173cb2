"""Releases: states accepted as baselines.

    make     a run → a release; superseding, revoking        bind     what is about to run × a release → a binding
    check    could it run here, now, unchanged?              audit    what became of a release, on one page

How they are kept is `store/releases.py`'s, what is signed of them and whether it holds `attest/releases.py`'s.
"""
