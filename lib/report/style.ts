/** The style of every page. Pictures take their colours from it, so that they follow light and dark. */
export const pageStyle = `
:root {
  color-scheme: light dark;
  --page: #fbfbfa; --card: #fff; --text: #1c1f23; --soft: #5b636d; --line: #dcdfe3; --grid: #e8eaed; --axis: #777f89; --bad: #b3261e;
  --hue-0: #0069a8; --hue-1: #c04f00; --hue-2: #008060; --hue-3: #b0508c; --hue-4: #a87900; --hue-5: #2f9fd8; --hue-6: #555b63;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --card: #1c2024; --text: #e8eaed; --soft: #a3abb5; --line: #343a41; --grid: #2b3036; --axis: #8b939d; --bad: #ff8a80;
    --hue-0: #5bb2ee; --hue-1: #ff9142; --hue-2: #34c99a; --hue-3: #e58bc4; --hue-4: #e8bd42; --hue-5: #9adcff; --hue-6: #b9c0c8;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .8rem; }
.note { color: var(--soft); font-size: .9rem; max-width: 60rem; margin: 0 0 1rem; }
figure { margin: 0; }
svg { display: block; width: 100%; height: auto; }
svg text { font-family: system-ui, sans-serif; font-size: 12px; }
.wide, .narrow, .card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .75rem; }
.narrow { display: none; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1rem; margin: 1rem 0; align-items: start; }
.card svg { max-width: 32rem; margin: 0 auto; }
figcaption { font-size: .9rem; color: var(--soft); margin-bottom: .25rem; }
svg + figcaption { margin-top: .75rem; }
.legend { list-style: none; padding: 0; margin: .75rem 0; display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .15rem 1rem; font-size: .9rem; }
.legend li { display: flex; align-items: center; gap: .4rem; overflow-wrap: anywhere; }
.legend svg { width: 16px; height: 16px; flex: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; width: 100%; }
caption { text-align: left; color: var(--soft); padding-bottom: .5rem; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, .failed td { text-align: left; }
thead th { vertical-align: bottom; color: var(--soft); font-weight: 600; white-space: normal; }
tbody th { font-weight: 500; position: sticky; left: 0; background: var(--page); }
.card tbody th { background: var(--card); }
.failed td { color: var(--bad); white-space: normal; min-width: 20rem; }
table.words { white-space: normal; }
.words th, .words td { text-align: left; vertical-align: top; }
.words td { white-space: normal; overflow-wrap: anywhere; min-width: 8rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: .75rem 1rem; margin: 1rem 0; }
ul.list { padding-left: 1.2rem; font-size: .88rem; overflow-wrap: anywhere; }
.facts dt { color: var(--soft); font-size: .85rem; }
.facts dd { margin: 0; overflow-wrap: anywhere; }
details { border-bottom: 1px solid var(--line); padding: .4rem 0; }
.card details { border: 0; }
summary { cursor: pointer; }
summary small { color: var(--soft); }
pre { overflow-x: auto; font-size: .8rem; }
@media (max-width: 40rem) { .wide { display: none; } .narrow { display: block; } main { padding: 1rem .75rem 3rem; } }
`;
