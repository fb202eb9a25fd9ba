"""The style sheet of the report page, kept in the page itself so that the file can be mailed on its own.

Light and dark follow the reader's system; print is always light. The four looks are the colours of Okabe and Ito
(https://jfly.uni-koeln.de/color/), told apart by the colour-blind too, brightened for the dark page.
"""

COLOURS = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1b2430; --soft: #5b6776; --rule: #e3e7ec;
  --accent: #0a62a5; --warn: #9a5b00; --warn-back: #fff6e5; --warn-rule: #f0cf94; --stop: #a3262b;
  --look-0: #0072b2; --look-1: #c65a00; --look-2: #00815f; --look-3: #a8457f; --stripe: #f6f8fb; }
@media (prefers-color-scheme: dark) { :root { --page: #12161c; --card: #1b2129; --ink: #e6eaf0; --soft: #9aa7b6;
  --rule: #2e3742; --accent: #6cb8f0; --warn: #f2bd63; --warn-back: #2b2416; --warn-rule: #5c4a22; --stop: #ff8d8d;
  --look-0: #56b4e9; --look-1: #f0954a; --look-2: #34c79d; --look-3: #e193c3; --stripe: #202731; } }
@media print { :root { color-scheme: light; --page: #fff; --card: #fff; --ink: #000; --soft: #444; --rule: #ccc;
  --accent: #0a62a5; --warn: #6b3f00; --warn-back: #fff; --warn-rule: #999; --stop: #a3262b;
  --look-0: #0072b2; --look-1: #c65a00; --look-2: #00815f; --look-3: #a8457f; --stripe: #fff; } }
"""

_PAGE = """
@media print { section, .tiles > div, tr { break-inside: avoid; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 36px 24px 48px; }
header { margin-bottom: 22px; }
h1 { font-size: 29px; line-height: 1.2; margin: 0 0 8px; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { font-size: 18px; line-height: 1.3; margin: 0 0 12px; }
h3 { font-size: 14px; margin: 0 0 6px; color: var(--soft); font-weight: 600; }
p { margin: 0 0 10px; max-width: 76ch; overflow-wrap: anywhere; }
.kicker { color: var(--soft); font-size: 13px; margin: 0 0 6px; }
.status { display: inline-block; padding: 1px 9px; border: 1px solid currentColor; border-radius: 99px;
  font-size: 12px; font-weight: 600; color: var(--look-2); vertical-align: 1px; margin-left: 6px; }
.status.stopped { color: var(--stop); }
.lead { font-size: 17px; line-height: 1.5; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(142px, 1fr)); gap: 10px; margin: 0 0 18px; }
.tiles > div { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 10px 14px; }
.tiles dt { color: var(--soft); font-size: 12.5px; }
.tiles dd { margin: 0; font-size: 23px; font-weight: 600; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tiles dd small { display: block; font-size: 12px; font-weight: 400; color: var(--soft); }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 18px 22px 20px;
  margin-bottom: 16px; }
section > :last-child { margin-bottom: 0; }
section.notes { background: var(--warn-back); border-color: var(--warn-rule); }
section.notes h2 { color: var(--warn); }
.notes ul { margin: 0; padding-left: 20px; max-width: 86ch; }
.notes li { margin: 3px 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: 0 -22px; padding: 0 22px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: 6px 9px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule); }
th:first-child, td:first-child { text-align: left; padding-left: 8px; }
tbody th { font-weight: 400; min-width: 64px; max-width: 300px; white-space: normal; overflow-wrap: anywhere; }
.wide tbody th { min-width: 132px; }
thead th { color: var(--soft); font-size: 12.5px; font-weight: 600; vertical-align: bottom;
  line-height: 1.35; white-space: normal;  border-bottom: 2px solid var(--rule); }
thead abbr { text-decoration: none; cursor: help; }
tr.strong th, tr.strong td { font-weight: 650; background: var(--stripe); }
tr.group th { font-weight: 650; padding-top: 16px; color: var(--accent); max-width: none; }
tbody:last-child tr:last-child > * { border-bottom: 0; }
.hint { color: var(--soft); font-size: 13px; margin: 10px 0 0; max-width: 90ch; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 18px 26px; }
figure { margin: 0; max-width: 640px; }
figure svg { display: block; width: 100%; height: auto; }
.squares { grid-template-columns: repeat(auto-fit, minmax(min(100%, 280px), 390px)); margin-bottom: 16px; }
.counts table { width: auto; min-width: min(100%, 320px); margin-bottom: 14px; }
figure.groups { max-width: 520px; margin-bottom: 14px; }
figure.runs { max-width: 520px; margin-top: 22px; }
.grid-scroll { overflow-x: auto; margin: 0 -22px; padding: 0 22px 4px; }
.grid-scroll svg { display: block; }
.samples { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 18px 22px; }
.samples figcaption { color: var(--soft); font-size: 13px; margin-top: 6px; }
.samples figcaption b { color: var(--ink); }
.lines { display: grid; grid-template-columns: auto minmax(0, 1fr); gap: 0 8px; }
.lines img { display: block; width: 100%; height: auto; image-rendering: pixelated; }
.classes { display: grid; grid-auto-rows: 1fr; color: var(--soft); font-size: 12px; }
.classes span { align-self: center; max-width: 90px; overflow-wrap: anywhere; }
details { margin-top: 14px; }
section > details:first-child { margin-top: 0; }
summary { cursor: pointer; color: var(--accent); font-weight: 600; font-size: 14px; }
details[open] > summary { margin-bottom: 10px; }
pre { margin: 0; padding: 14px 16px; background: var(--stripe); border-radius: 6px; overflow-x: auto;
  font: 12.5px/1.5 ui-monospace, "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 10px 24px; margin: 0; }
.facts dt { color: var(--soft); font-size: 12.5px; }
.facts dd { margin: 0; overflow-wrap: anywhere; }
footer { color: var(--soft); font-size: 12.5px; padding: 4px 2px; overflow-wrap: anywhere; }
"""

CHARTS = """
svg text { font-family: inherit; font-size: 11px; fill: var(--soft); font-variant-numeric: tabular-nums; }
svg .axis-title { font-size: 11.5px; }
svg .legend { fill: var(--ink); }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .axis, svg .span { stroke: var(--soft); stroke-width: 1; }
svg .span { opacity: .5; }
svg .best { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 2 3; }
svg .best-label { fill: var(--ink); font-weight: 600; }
svg .line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
svg .line.faint { stroke-width: 1; opacity: .38; }
svg .marker { stroke-width: 1.6; }
svg .marker.hidden { opacity: 0; }
svg .look-0 { stroke: var(--look-0); } svg .marker.look-0 { fill: var(--look-0); }
svg .look-1 { stroke: var(--look-1); stroke-dasharray: 6 4; } svg .marker.look-1 { fill: var(--card); }
svg .look-2 { stroke: var(--look-2); stroke-dasharray: 1.5 4; } svg .marker.look-2 { fill: var(--look-2); }
svg .look-3 { stroke: var(--look-3); stroke-dasharray: 9 3 2 3; } svg .marker.look-3 { fill: var(--card); }
svg .marker { stroke-dasharray: none; }
svg .answered rect { fill: var(--look-0); opacity: .75; }
svg .missing rect { fill: none; stroke: var(--look-1); stroke-width: 1.5; }
svg .missing path { fill: none; stroke: var(--look-1); stroke-width: 1.5; }
svg .not-asked { fill: var(--soft); }
"""

_NARROW = """
@media (max-width: 560px) { main { padding: 20px 12px 32px; } section { padding: 14px 14px 16px; }
  .scroll, .grid-scroll { margin: 0 -14px; padding-left: 14px; padding-right: 14px; }
  h1 { font-size: 24px; } .lead { font-size: 16px; } th, td { padding: 6px 7px; }
  .tiles { grid-template-columns: repeat(auto-fit, minmax(120px, 1fr)); } .tiles dd { font-size: 20px; }
  .wide tbody th, .wide thead th:first-child { position: sticky; left: -14px; background: var(--card);
  min-width: 112px; max-width: 132px; }
  .wide tr.strong th { background: var(--stripe); } .wide tr.group th { max-width: none; position: static; } }
"""

CSS = COLOURS + _PAGE + CHARTS + _NARROW


def document(title: str, body: str) -> str:
    """Return a page that refers to nothing outside itself; `title` is escaped already, `body` is HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        # The page needs nothing from outside; the browser is told to refuse it, should an escape ever be missed.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
