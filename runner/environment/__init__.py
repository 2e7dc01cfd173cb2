"""Locked wheels become one read-only folder that the image's interpreter takes for a virtual environment.

    wheel ─unpack→ files ─compile, seal→ tree ─link, seal→ environment

`layout` names places and values, `wheel` unpacks one wheel, `byte_code` compiles in the image
(`compile_in_image` is what runs there), `tree` keeps each unpacked wheel once, `farm` links trees into an
environment, `project` makes the workspace's own package importable, `files` writes single files, `seal`
brings folders in whole, `check` finds damage to them, `locks` keeps builders and collectors apart.

Everything here is cache: any folder of it may be deleted at any moment, which costs time and never a
result. The engine comes in through one callable, `Compile`.
"""
