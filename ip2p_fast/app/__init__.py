"""`ip2p-fast app`: a page on which people edit pictures, before the engine that `ip2p-fast serve` runs.

`chain`, `grid` and `words` know nothing of the page; `pictures` goes between files and pictures, `edits` between the
page and the engine; `page` and `looks` are what stands where, `view`, `events` and `grid_events` what is seen and
happens; `site` makes it part of an application.
"""
