"""The page's style. Blue and orange of Okabe and Ito's palette, told apart by colour-blind eyes."""

STYLE = """
:root {
  color-scheme: light;
  --page: #ffffff; --card: #f7f8fa; --ink: #16191d; --soft: #5a636e; --line: #e1e5ea;
  --grid: #e8ebef; --arm0: #d1720f; --arm1: #0068a8; --good: #1a6e4b; --bad: #a5341f;
  --good-back: #e4f2ea; --bad-back: #fae9e4; --note: #fff6e0; --note-line: #e3b341;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    color-scheme: dark;
    --page: #121519; --card: #1a1f25; --ink: #e8ebee; --soft: #9aa5b1; --line: #2c343d;
    --grid: #29313a; --arm0: #f0a04b; --arm1: #5cb3ec; --good: #7ccfa3; --bad: #f29c86;
    --good-back: #16332a; --bad-back: #3d211b; --note: #2e2814; --note-line: #8a6d1f;
  }
  svg .bar { opacity: 0.62; }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
    "Liberation Sans", sans-serif;
  font-variant-numeric: tabular-nums; -webkit-text-size-adjust: 100%;
}
main { max-width: 1080px; margin: 0 auto; padding: 48px 24px 72px; }
h1 { font-size: 1rem; font-weight: 600; color: var(--soft); margin: 0 0 12px; }
.verdict { font-size: 1.55rem; line-height: 1.35; font-weight: 600; letter-spacing: -0.01em;
  margin: 0 0 20px; max-width: 46em; text-wrap: pretty; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 0 0 6px; letter-spacing: -0.01em; }
h3 { font-size: 0.95rem; margin: 0 0 8px; font-weight: 600; }
section { margin-top: 64px; }
p { margin: 0 0 12px; }
.lead, .remarks, .absent { color: var(--soft); max-width: 46em; }
.lead { margin-bottom: 22px; }
.remarks { list-style: none; margin: 0 0 8px; padding: 0; }
.remarks li { margin: 5px 0; }
.remarks { max-width: 62em; }
.remarks b { color: var(--ink); font-weight: 600; }
.absent { border-left: 3px solid var(--line); padding: 2px 0 2px 14px; }
.warning { background: var(--note); border-left: 3px solid var(--note-line); padding: 8px 14px;
  margin: 0 0 10px; max-width: 56em; }
nav { font-size: 0.9rem; margin-top: 22px; display: flex; flex-wrap: wrap; }
nav a { color: var(--soft); margin-right: 18px; white-space: nowrap;
  text-underline-offset: 3px; text-decoration-color: var(--line); }
nav a:hover, nav a:focus-visible { color: var(--ink); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(232px, 1fr)); gap: 0 16px;
  margin: 32px 0 12px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 16px 18px 14px; display: grid; grid-row: span 4; grid-template-rows: subgrid; row-gap: 0;
  align-content: start; margin-bottom: 16px; }
.tile h3 { margin: 0; }
.tile .aim { font-size: 0.8rem; color: var(--soft); margin: 0 0 14px; }
.tile .figure { margin-top: 8px; }
.figure .who { font-size: 0.85rem; display: flex; align-items: baseline; gap: 6px; }
.figure .big { font-size: 1.75rem; font-weight: 650; line-height: 1.15; letter-spacing: -0.02em; }
.figure .small { font-size: 1.1rem; font-weight: 600; line-height: 1.2; }
.figure .range-text { font-size: 0.82rem; color: var(--soft); white-space: nowrap; }
.name { overflow-wrap: anywhere; }
.swatch { flex: none; width: 10px; height: 10px; border-radius: 2px; display: inline-block; }
.swatch.arm0 { background: var(--arm0); } .swatch.arm1 { background: var(--arm1); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; font-size: 0.88rem; margin: 0 0 14px;
  padding: 0; list-style: none; }
.legend li { display: flex; align-items: center; gap: 7px; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr));
  gap: 36px 48px; margin-top: 8px; }
.panels.three { grid-template-columns: repeat(auto-fit, minmax(min(290px, 100%), 1fr));
  gap: 28px 36px; }
.panel { min-width: 0; margin: 0; break-inside: avoid; }
.panel figcaption { font-size: 0.82rem; color: var(--soft); margin-top: 4px; }
svg { display: block; width: 100%; height: auto; }
svg.chart { max-width: 520px; }
svg.sample { width: 30px; height: 12px; flex: none; }
svg.strip { margin: 4px 0 2px; max-width: 260px; }
svg text { font-size: 12px; fill: var(--ink); }
svg .tick, svg .axis { fill: var(--soft); font-size: 11px; }
svg .value { font-size: 11px; } svg .heading { font-weight: 600; fill: var(--soft); }
svg .grid { stroke: var(--grid); stroke-width: 1; }
svg .track { stroke: var(--line); stroke-width: 2; stroke-linecap: round; }
svg .range { stroke-width: 4; stroke-linecap: round; opacity: 0.45; }
svg .whisker { stroke: var(--ink); stroke-width: 1.2; }
svg .band { opacity: 0.16; }
svg .line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
svg .bar.arm0, svg .dot.arm0, svg .band.arm0 { fill: var(--arm0); }
svg .bar.arm1, svg .dot.arm1, svg .band.arm1 { fill: var(--arm1); }
svg .dot.other { fill: var(--soft); }
svg .line.arm0, svg .range.arm0 { stroke: var(--arm0); }
svg .line.arm1, svg .range.arm1 { stroke: var(--arm1); }
.scroll { overflow-x: auto; margin: 20px 0; }
table { border-collapse: collapse; width: 100%; font-size: 0.88rem; line-height: 1.4; }
caption { text-align: left; color: var(--soft); padding-bottom: 8px; font-size: 0.85rem; }
th, td { text-align: left; padding: 7px 14px 7px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; font-weight: 400; overflow-wrap: break-word; }
th:last-child, td:last-child { padding-right: 0; }
thead th { font-weight: 600; color: var(--soft); font-size: 0.82rem; vertical-align: bottom; }
.number { text-align: right; }
td.number { white-space: nowrap; }
.under { display: block; color: var(--soft); font-size: 0.92em; }
.wide th, .wide td { padding-right: 10px; }
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(310px, 100%), 1fr));
  gap: 18px; }
.example { border: 1px solid var(--line); border-radius: 8px; overflow: hidden; background:
  var(--card); break-inside: avoid; display: grid; grid-template-columns: 104px 1fr; }
.example > div:last-child { padding: 12px 14px; min-width: 0; }
.picture { position: relative; display: block; overflow: hidden; min-height: 104px; }
.picture img { display: block; width: 100%; height: 100%; object-fit: contain;
  object-position: top; position: absolute; }
.picture .gone { display: block; padding: 12px; font-size: 0.78rem; color: var(--soft); }
.picture input { position: absolute; inset: 0; z-index: 1; opacity: 0; width: 100%; height: 100%;
  margin: 0; cursor: pointer; }
.blurred img { filter: blur(14px) saturate(0.6); transform: scale(1.2); }
.blurred input:checked ~ img { filter: none; transform: none; }
.blurred .show { position: absolute; left: 0; right: 0; top: 42px; text-align: center;
  font-size: 0.75rem; font-weight: 600; color: #fff; text-shadow: 0 0 4px #000, 0 0 2px #000;
  pointer-events: none; }
.blurred input:checked ~ .show { display: none; }
.picture:focus-within { outline: 3px solid var(--arm1); outline-offset: -3px; }
.example .where { font-size: 0.76rem; color: var(--soft); margin: 0 0 2px; }
.example .prompt { font-weight: 600; font-size: 0.88rem; line-height: 1.35; margin: 0 0 10px;
  overflow-wrap: anywhere; }
.answer { font-size: 0.86rem; line-height: 1.4; margin: 0 0 8px; border-left: 3px solid;
  padding-left: 10px; overflow-wrap: anywhere; }
.answer.arm0 { border-color: var(--arm0); } .answer.arm1 { border-color: var(--arm1); }
.answer .who { display: flex; flex-wrap: wrap; gap: 2px 8px; align-items: center;
  font-size: 0.76rem; color: var(--soft); }
.mark { border-radius: 3px; padding: 0 6px; font-weight: 600; font-size: 0.72rem; }
.mark.good { color: var(--good); background: var(--good-back); }
.mark.bad { color: var(--bad); background: var(--bad-back); }
.mark.plain { border: 1px solid var(--line); }
details { margin: 12px 0; } summary { cursor: pointer; font-weight: 600; font-size: 0.9rem; }
summary:focus-visible, .scroll:focus-visible { outline: 2px solid var(--arm1);
  outline-offset: 3px; }
code { font: 0.92em ui-monospace, Menlo, Consolas, "Liberation Mono", monospace; }
footer { margin-top: 72px; padding-top: 16px; border-top: 1px solid var(--line); color:
  var(--soft); font-size: 0.85rem; }
@media (max-width: 600px) {
  main { padding: 28px 16px 48px; } .verdict { font-size: 1.25rem; } section { margin-top: 48px; }
}
@media print {
  @page { margin: 16mm; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { font-size: 10.5pt; } main { max-width: none; padding: 0; } nav { display: none; }
  section { margin-top: 28px; } h2, h3, .lead, .legend { break-after: avoid; }
  .tile, tr { break-inside: avoid; }
  .scroll { overflow: visible; } td.number { white-space: normal; }
  .blurred input:checked ~ img { filter: blur(14px) saturate(0.6); transform: scale(1.2); }
}
"""
