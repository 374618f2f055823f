"""The look of the report: light, dark and on paper.

Colours of lines and bars are Okabe and Ito's (https://jfly.uni-koeln.de/color/), which people with
any kind of colour blindness can tell apart; in the dark they are lighter.
"""

COLOURS = 6  # Of lines: `.c0` to `.c5`.

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --panel: #f6f7f9; --ink: #1b1f24; --soft: #5b6470;
  --line: #d5dae1; --right: #0a7d54; --wrong: #b5480a; --c0: #0072b2; --c1: #d55e00; --c2: #009e73;
  --c3: #b5568a; --c4: #3d9fd6; --c5: #a87b00; }
@media (prefers-color-scheme: dark) { :root { --ground: #15181c; --panel: #1e2329; --ink: #e6e9ed;
  --soft: #9aa4b1; --line: #363d47; --right: #3ecf97; --wrong: #f08a4b; --c0: #56b4e9;
  --c1: #f0853a; --c2: #2fc79a; --c3: #dd8fb9; --c4: #9ad4f5; --c5: #e6b93a; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, "Noto Sans", sans-serif; max-width: 66rem; margin: 0 auto;
  padding: 1.5rem 1rem 4rem; background: var(--ground); color: var(--ink); }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; padding-top: .6rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
p { max-width: 46rem; margin: .4rem 0; }
a { color: var(--c0); }
small, .soft { color: var(--soft); }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: .8rem 0 1.2rem; }
.lead { font-size: 1.15rem; max-width: 52rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums; }
td, th { padding: .2rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th { font-weight: 600; color: var(--soft); vertical-align: bottom; }
td:first-child, th:first-child { text-align: left; padding-left: 0; overflow-wrap: anywhere;
  min-width: 9rem; }
tr.soft td { color: var(--soft); }
table.matrix td { text-align: center; padding: .2rem .5rem; }
table.words td { text-align: left; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 1rem; }
.card { background: var(--panel); border: 1px solid var(--line); border-radius: .6rem;
  padding: .8rem 1rem 1rem; }
.card h3 { margin: 0; overflow-wrap: anywhere; }
.big { font-size: 2.2rem; font-weight: 650; line-height: 1.1; }
.big small { font-size: 1rem; font-weight: 400; }
.bar { position: relative; height: .7rem; background: var(--line); border-radius: .35rem;
  margin: .5rem 0 .2rem; min-width: 9rem; print-color-adjust: exact; }
.bar i { position: absolute; inset: 0 auto 0 0; background: var(--c0); border-radius: .35rem; }
.bar b { position: absolute; top: -.2rem; bottom: -.2rem; width: 2px; background: var(--ink); }
.charts, .two { display: grid; gap: 0 1.4rem;
  grid-template-columns: repeat(auto-fit, minmax(min(25rem, 100%), 1fr)); }
.charts { row-gap: 1.4rem; }
figure.chart { margin: 0; }
figure.chart figcaption { color: var(--soft); font-size: .87rem; max-width: 30rem; }
svg { width: 100%; height: auto; max-width: 32rem; display: block; }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
svg text.name { font-weight: 600; font-size: 13px; fill: var(--ink); }
svg .axis { stroke: var(--soft); fill: none; } svg .grid { stroke: var(--line); fill: none; }
svg .mark { stroke: var(--soft); stroke-dasharray: 4 4; fill: none; }
svg polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
.row { display: flex; gap: .9rem; align-items: flex-start; padding: .5rem 0;
  border-bottom: 1px solid var(--line); break-inside: avoid; scroll-margin-top: 1rem; }
.row:target { background: var(--panel); outline: 2px solid var(--c0); }
.ask { flex: 0 0 15rem; overflow-wrap: anywhere; }
.ask b { font-weight: 600; } .ask small { display: block; }
.hits { display: flex; flex-wrap: wrap; gap: .45rem; align-items: flex-start; }
.hits ol { margin: 0; padding-left: 2.2rem; overflow-wrap: anywhere; }
.thumb { width: 5.5rem; text-align: center; font-size: .8rem; color: var(--soft); }
.thumb span { display: block; width: 5.5rem; height: 5.5rem; border: 3px solid var(--line);
  border-radius: .3rem; background: #fff center / contain no-repeat; print-color-adjust: exact; }
.two .ask { flex-basis: 5.5rem; } .two .ask.said { flex-basis: 11rem; }
.thumb.right span { border-color: var(--right); } .thumb.right { color: var(--right); }
.thumb.missed span { border-style: dashed; }
.gap { align-self: center; color: var(--soft); }
.right { color: var(--right); font-weight: 600; } .wrong { color: var(--wrong); }
details { margin: .8rem 0; } summary { cursor: pointer; color: var(--c0); }
@media (max-width: 40rem) { .row { flex-direction: column; } .ask { flex: none; } }
@media print { :root { --ground: #fff; --panel: #fff; --ink: #000; --soft: #444; --line: #bbb;
  --right: #0a7d54; --wrong: #b5480a; --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b5568a;
  --c4: #3d9fd6; --c5: #a87b00; }
  body { font-size: 10pt; max-width: none; padding: 0; } nav, summary { display: none; }
  .charts { grid-template-columns: 1fr 1fr; } h2, h3 { break-after: avoid; }
  .card, figure.chart, table { break-inside: avoid; }
  .thumb, .thumb span { width: 4rem; } .thumb span { height: 4rem; } }
"""
