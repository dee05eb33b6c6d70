/** Styles of the live page. */
export const STYLE: string = `
:root {
  color-scheme: light dark;
  --page: #f4f6f9; --card: #ffffff; --ink: #17202e; --soft: #51607a; --line: #d9e0ea;
  --track: #e6ebf2; --focus: #1d4ed8; --button: #1d4ed8; --on-button: #ffffff;
  --good: #0b6b3a; --good-bg: #dff5e7; --warn: #7a4a00; --warn-bg: #fdf0d2;
  --bad: #a51d2d; --bad-bg: #fde4e6;
  --c0: #2563c9; --c1: #0e8577; --c2: #b45f06; --c3: #7c3aed; --c4: #c2324a; --c5: #5b6b80;
  --c6: #7a6a00; --c7: #9d2b8a; --c8: #31708f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0e141d; --card: #171f2b; --ink: #e6ecf5; --soft: #a3b1c6; --line: #2b3647;
    --track: #263142; --focus: #8ab4ff; --button: #8ab4ff; --on-button: #0e141d;
    --good: #7fe0a7; --good-bg: #11301f; --warn: #f5c76b; --warn-bg: #36290c;
    --bad: #ff9ea8; --bad-bg: #3d161c;
    --c0: #6ea8ff; --c1: #3ec9b8; --c2: #f2a03d; --c3: #b794ff; --c4: #ff8496; --c5: #a9b6c9;
    --c6: #d9c84a; --c7: #ea8bd9; --c8: #7cc4e4;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  font-variant-numeric: tabular-nums;
}
header, main { max-width: 1240px; margin: 0 auto; padding: 16px 20px; }
header { display: flex; flex-wrap: wrap; align-items: center; gap: 8px 14px; padding-bottom: 4px; }
h1 { font-size: 22px; margin: 0; letter-spacing: -0.01em; }
h2 { font-size: 16px; margin: 0 0 10px; }
h3 { font-size: 14px; margin: 0; }
p { margin: 0; }
.soft { color: var(--soft); }
.small { font-size: 13px; }
.spacer { flex: 1; }
.badge {
  display: inline-block; border-radius: 999px; padding: 1px 10px; font-size: 13px;
  font-weight: 600; background: var(--track); color: var(--ink); white-space: nowrap;
}
.badge.good { background: var(--good-bg); color: var(--good); }
.badge.warn { background: var(--warn-bg); color: var(--warn); }
.badge.bad { background: var(--bad-bg); color: var(--bad); }
main { display: grid; gap: 16px; grid-template-columns: repeat(12, minmax(0, 1fr)); }
section {
  grid-column: 1 / -1; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; padding: 16px;
}
section.half { grid-column: span 6; }
section.third { grid-column: span 4; }
#problems { border-color: var(--bad); }
#problems ul { margin: 0; padding-left: 20px; }
.cards { display: grid; gap: 12px; grid-template-columns: repeat(auto-fill, minmax(260px, 1fr)); }
.card { border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px; min-width: 0; }
.card .top { display: flex; justify-content: space-between; gap: 8px; align-items: center; }
.card .big { font-size: 20px; font-weight: 650; margin: 6px 0 2px; }
.bar {
  height: 10px; border-radius: 5px; background: var(--track); overflow: hidden; display: flex;
  margin: 8px 0;
}
.bar i { display: block; height: 100%; background: var(--c0); }
.bar i.dirty { background: var(--c2); }
.card dl { display: grid; grid-template-columns: auto auto; gap: 2px 12px; margin: 8px 0 0; }
.card dt { color: var(--soft); font-size: 13px; }
.card dd { margin: 0; text-align: right; font-size: 13px; overflow-wrap: anywhere; }
figure { margin: 0; }
.plot { position: relative; height: 140px; border-bottom: 1px solid var(--line); }
.plot svg { width: 100%; height: 100%; display: block; }
.plot .max { position: absolute; top: 0; left: 0; font-size: 12px; color: var(--soft); }
.plot .none {
  position: absolute; inset: 0; display: grid; place-items: center; color: var(--soft);
  font-size: 13px;
}
.times { display: flex; justify-content: space-between; font-size: 12px; color: var(--soft); }
.legend {
  list-style: none; margin: 8px 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: 2px 16px;
  font-size: 13px;
}
.legend i {
  display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 6px;
}
.legend b { font-weight: 600; margin-left: 4px; }
.scroll { overflow-x: auto; border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; font-size: 13px; white-space: nowrap; }
td, tbody th { vertical-align: top; }
tbody th { color: var(--ink); font-size: 14px; }
td.num, th.num { text-align: right; white-space: nowrap; }
td.name { overflow-wrap: anywhere; min-width: 120px; }
td.error { min-width: 220px; overflow-wrap: anywhere; font-size: 13px; }
tr:last-child td, tr:last-child th { border-bottom: 0; }
.circuits { display: flex; flex-wrap: wrap; gap: 4px; min-width: 150px; }
.events { list-style: none; margin: 0; padding: 0; max-height: 320px; overflow-y: auto; }
.events li {
  display: flex; gap: 12px; padding: 5px 0; border-bottom: 1px solid var(--line); font-size: 14px;
}
.events time { color: var(--soft); white-space: nowrap; font-size: 13px; }
.events span { overflow-wrap: anywhere; min-width: 0; }
.events li:last-child { border-bottom: 0; }
.row { display: flex; justify-content: space-between; align-items: baseline; flex-wrap: wrap; gap: 8px; }
.forms { display: grid; gap: 14px; grid-template-columns: repeat(auto-fit, minmax(250px, 1fr)); }
fieldset { border: 1px solid var(--line); border-radius: 10px; padding: 10px 14px 14px; margin: 0; min-width: 0; }
legend { font-weight: 600; padding: 0 6px; }
label { display: block; font-size: 13px; margin-top: 8px; }
label.inline { display: inline-flex; gap: 6px; align-items: center; margin: 0; }
input:not([type=checkbox]), select, textarea {
  width: 100%; font: inherit; color: var(--ink); background: var(--page);
  border: 1px solid var(--soft); border-radius: 7px; padding: 6px 9px; margin-top: 3px;
}
textarea { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 13px; min-height: 74px; }
button {
  font: inherit; font-weight: 600; border-radius: 7px; border: 1px solid var(--button);
  background: var(--button); color: var(--on-button); padding: 6px 14px; margin: 10px 8px 0 0;
  cursor: pointer; min-height: 36px;
}
button.plain { background: transparent; color: var(--button); }
button:disabled, fieldset:disabled button { opacity: 0.55; cursor: default; }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; }
output { display: block; margin-top: 10px; font-size: 14px; overflow-wrap: anywhere; }
dialog {
  border: 1px solid var(--line); border-radius: 12px; background: var(--card); color: var(--ink);
  max-width: min(460px, 92vw); padding: 20px;
}
dialog::backdrop { background: rgb(0 0 0 / 55%); }
.skip { position: absolute; left: -999px; }
.skip:focus { left: 12px; top: 12px; background: var(--card); padding: 8px 12px; z-index: 1; }
[hidden] { display: none !important; }
@media (max-width: 900px) {
  section.half, section.third { grid-column: 1 / -1; }
}
@media (max-width: 560px) {
  header, main { padding: 12px; }
  section { padding: 12px; }
  .events li { flex-direction: column; gap: 0; }
}
`;
