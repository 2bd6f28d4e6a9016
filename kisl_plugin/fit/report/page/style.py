"""How the page looks: on a phone, on a desk, in the dark and in print."""

CSS = """
:root { color-scheme: light dark; --text: #1d2126; --soft: #5a636d; --line: #d9dee3; --page: #fff; --tint: #f4f6f8;
  --accent: #0b5cad; --good: #1a6b3a; --bad: #a3261b }
@media (prefers-color-scheme: dark) { :root { --text: #e4e7ea; --soft: #a3adb7; --line: #3a424b; --page: #14181c;
  --tint: #1e242a; --accent: #7db7f2; --good: #7fcf9b; --bad: #f2958b } }
* { box-sizing: border-box }
html { -webkit-text-size-adjust: 100% }
body { font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; color: var(--text); background: var(--page);
  max-width: 52rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; overflow-wrap: anywhere }
h1 { font-size: 1rem; font-weight: 600; color: var(--soft); margin: 0 }
h2 { font-size: 1.3rem; line-height: 1.25; margin: 3rem 0 .75rem; padding-top: 1.25rem;
  border-top: 1px solid var(--line) }
h3 { font-size: 1.08rem; margin: 2.25rem 0 .5rem }
h4 { font-size: 1rem; margin: 1.5rem 0 .4rem }
.best { font-weight: 600 }
.finding { font-size: 1.45rem; line-height: 1.35; font-weight: 600; margin: .5rem 0 1rem; text-wrap: pretty }
.soft, figcaption { color: var(--soft) } figcaption, .soft { font-size: .9rem }
p, ul, dl { margin: .6rem 0 } ul { padding-left: 1.2rem } li { margin: .3rem 0 }
a { color: var(--accent) }
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; margin: 1rem 0 0 }
figure { margin: 1.25rem 0 }
figure img { display: block; width: 100%; max-width: 34rem; height: auto; margin: 0 auto .5rem; background: #fff;
  border-radius: 4px }
figcaption { max-width: 34rem; margin: 0 auto }
.scroll { overflow-x: auto; margin: .75rem 0; border: 1px solid var(--line); border-radius: 6px }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums;
  overflow-wrap: normal }
th, td { padding: .38rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line) }
tbody tr:last-child > * { border-bottom: 0 }
th { font-weight: 600 } thead th { background: var(--tint); color: var(--soft) }
th:first-child, th.text, td.text { text-align: left }
tbody th { font-weight: 600 }
code, pre { font: .86rem/1.45 ui-monospace, "SF Mono", Menlo, Consolas, monospace }
pre { background: var(--tint); padding: .8rem 1rem; border-radius: 6px; overflow-x: auto; overflow-wrap: normal }
.badge { font-size: .78rem; font-weight: 700; letter-spacing: .02em; border: 1px solid currentColor;
  border-radius: 4px; padding: .02rem .4rem; white-space: nowrap; margin-right: .4rem }
.passed { color: var(--good) } .failed { color: var(--bad) } .not-tested { color: var(--soft) }
.heat { background: color-mix(in srgb, var(--accent) calc(var(--share) * 45%), transparent) }
dt { font-weight: 600; margin-top: .6rem } dd { margin: 0 }
@media (max-width: 30rem) { .best { font-weight: 600 }
.finding { font-size: 1.2rem } body { padding-top: 1rem } th, td { padding: .35rem .5rem } }
@page { margin: 18mm 16mm }
@media print { :root { --text: #000; --soft: #444; --line: #bbb; --page: #fff; --tint: #f2f2f2; --accent: #0b5cad }
  body { max-width: none; padding: 0; font-size: 10pt } nav { display: none }
  h2, h3, h4 { break-after: avoid } h2 { margin-top: 1.5rem } figure, tr, dl, pre { break-inside: avoid }
  figure img { max-width: 12cm } .scroll { overflow: visible; border: 0 } table { font-size: 7pt }
  th, td { padding: .15rem .25rem; white-space: normal } pre { white-space: pre-wrap }
  a { color: inherit; text-decoration: none } }
"""
