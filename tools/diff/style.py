"""The report's style sheet, all below one class, so that it leaves the rest of a page alone.

Colours are variables in two themes. The reader's system chooses, or a page of the documentation's
theme with its own switch. A test computes the contrast of every pair in PAIRS.
"""

from __future__ import annotations

import re

LIGHT = {
    "bg": "#ffffff",
    "fg": "#1f2328",
    "muted": "#57606a",
    "line": "#d1d9e0",
    "head": "#f6f8fa",
    "link": "#0757b5",
    "add": "#dafbe1",
    "add-word": "#8fe8ac",
    "del": "#ffebe9",
    "del-word": "#ffc9c3",
    "move": "#e6e9ff",
    "empty": "#f3f4f6",
    "target": "#fff3bf",
    "warn": "#8a5a00",
    "plus": "#116329",
    "minus": "#a40e26",
    "keyword": "#9e1c33",
    "string": "#0a3069",
    "number": "#0a4691",
    "comment": "#4c5560",
    "name": "#5a30a8",
}
DARK = {
    "bg": "#0d1117",
    "fg": "#e6edf3",
    "muted": "#9aa4af",
    "line": "#3d444d",
    "head": "#151b23",
    "link": "#79b8ff",
    "add": "#12261e",
    "add-word": "#14542b",
    "del": "#2d1517",
    "del-word": "#6b2024",
    "move": "#20264d",
    "empty": "#12171f",
    "target": "#3d3200",
    "warn": "#e3b341",
    "plus": "#56d364",
    "minus": "#ff9492",
    "keyword": "#ffaba3",
    "string": "#b6deff",
    "number": "#9fd0ff",
    "comment": "#b3bcc6",
    "name": "#e0c2ff",
}
_TEXT = ("fg", "keyword", "string", "number", "comment", "name")
# Text on ground, as it occurs; each at least 4.5 to 1 (WCAG 2.1, AA).
PAIRS = (
    *((text, ground) for text in _TEXT for ground in ("bg", "add", "del", "move", "target")),
    *((text, ground) for text in _TEXT for ground in ("add-word", "del-word")),
    *(("muted", ground) for ground in ("bg", "head", "add", "del", "move", "target")),
    *(("fg", ground) for ground in ("head", "empty")),
    *((text, ground) for text in ("link", "plus", "minus", "warn") for ground in ("bg", "head")),
    ("plus", "add"),
    ("minus", "del"),
    ("link", "move"),
)


def _variables(theme: dict[str, str]) -> str:
    return "".join(f"--gd-{name}:{value};" for name, value in theme.items())


_RULES = """
.gd, .gd * {
  box-sizing: border-box;
}
.gd {
  background: var(--gd-bg);
  color: var(--gd-fg);
  font: 15px/1.5 system-ui,sans-serif;
  overflow-wrap: anywhere;
}
.gd a, .gd a code {
  color: var(--gd-link);
}
.gd a {
  text-decoration: underline;
  text-underline-offset: 4px;
}
.gd small {
  opacity: 1;
}
.gd a, .gd summary, .gd .wide {
  scroll-margin-top: calc(var(--gd-top,0px) + max(84px,20vh));
}
.gd :focus-visible {
  outline: 2px solid var(--gd-link);
  outline-offset: -2px;
}
.gd h1, .gd h2, .gd h3, .gd h4, .gd h5 {
  color: inherit;
  font-weight: 600;
  letter-spacing: 0;
  margin: 24px 0 6px;
  line-height: 1.3;
}
.gd .title {
  font-size: 26px;
  margin-top: 8px;
}
.gd .section {
  font-size: 18px;
}
.gd .group {
  font-size: 15px;
}
.gd section:has(.split) {
  container: gd-lines/inline-size;
}
.gd .tree {
  font-size: 13px;
}
.gd .tree p {
  margin: 12px 0 2px;
  font-weight: 600;
}
.gd .tree ul {
  list-style: none;
  margin: 0;
  padding: 0;
}
.gd .tree.tree li {
  margin: 0;
  padding: 1px 0;
}
.gd .title small {
  color: var(--gd-muted);
  font-weight: 400;
  font-size: 20px;
}
.gd p {
  margin: 8px 0;
}
.gd .sum b {
  font-size: 18px;
}
.gd code, .gd summary code {
  background: none;
  box-shadow: none;
  color: inherit;
  padding: 0;
  font: 13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
  word-break: normal;
}
.gd .warn {
  border-left: 4px solid var(--gd-warn);
  background: var(--gd-head);
  padding: 6px 12px;
}
.gd .warn b {
  color: var(--gd-warn);
}
.gd .cards {
  columns: 360px;
  column-gap: 12px;
}
.gd .card {
  break-inside: avoid;
  border: 1px solid var(--gd-line);
  border-radius: 6px;
  margin: 0 0 12px;
  padding: 10px 14px;
  font-size: 13px;
}
.gd .card h3, .gd .card h4 {
  margin: 0;
  font-size: 14px;
}
.gd .cards .card ul {
  margin: 4px 0 0;
  padding-left: 18px;
}
.gd .cards .card li {
  margin: 0;
}
.gd .chip {
  font-size: 12px;
  font-weight: 400;
  color: var(--gd-muted);
  border: 1px solid var(--gd-line);
  border-radius: 20px;
  padding: 0 7px;
  white-space: nowrap;
}
.gd .file>summary .chip {
  margin-left: 4px;
}
.gd .wide {
  overflow-x: auto;
  max-width: 100%;
}
.gd table.facts {
  display: table;
  border: 0;
  border-collapse: collapse;
  font-size: 13px;
  width: auto;
  background: none;
}
.gd .facts th, .gd .facts td {
  border: 0;
  border-bottom: 1px solid var(--gd-line);
  padding: 5px 16px 5px 0;
  text-align: left;
  vertical-align: top;
  min-width: 0;
  color: inherit;
  background: none;
  font-size: 13px;
  overflow-wrap: break-word;
}
.gd .facts th {
  font-weight: 600;
  vertical-align: bottom;
}
.gd .facts .num {
  text-align: right;
  font-variant-numeric: tabular-nums;
  white-space: nowrap;
}
.gd ins, .gd del {
  text-decoration: none;
  color: inherit;
  border-radius: 2px;
}
.gd ins {
  background: var(--gd-add-word);
}
.gd del {
  background: var(--gd-del-word);
}
.gd .file {
  display: block;
  border: 1px solid var(--gd-line);
  border-radius: 6px;
  margin: 16px 0;
  padding: 0;
  background: var(--gd-bg);
  color: inherit;
  font-size: 15px;
  box-shadow: none;
  container-type: inline-size;
  content-visibility: auto;
  contain-intrinsic-size: auto 1200px;
  scroll-margin-top: calc(var(--gd-top,0px) + 8px);
}
.gd:has(:target) .file {
  content-visibility: visible;
}
.gd summary::before, .gd summary::after {
  content: none;
}
.gd .file>summary {
  position: sticky;
  top: var(--gd-top,0px);
  z-index: 1;
  background: var(--gd-head);
  border: 0;
  border-bottom: 1px solid var(--gd-line);
  border-radius: 6px 6px 0 0;
  margin: 0;
  padding: 7px 12px;
  cursor: pointer;
  display: list-item;
  list-style: inside disclosure-closed;
  font-weight: 400;
  min-height: 0;
}
.gd .file[open]>summary {
  list-style-type: disclosure-open;
}
.gd .file>summary h4, .gd .file>summary h5 {
  display: inline;
  font-size: 14px;
  margin: 0;
}
.gd .plus {
  color: var(--gd-plus);
  font: 600 13px ui-monospace,monospace;
}
.gd .minus {
  color: var(--gd-minus);
  font: 600 13px ui-monospace,monospace;
}
.gd .note {
  margin: 0;
  padding: 4px 12px;
  border-bottom: 1px solid var(--gd-line);
  font-size: 13px;
}
.gd .fold {
  display: block;
  margin: 0;
  padding: 0;
  border: 0;
  background: none;
  color: inherit;
  box-shadow: none;
  font-size: 13px;
}
.gd .fold>summary {
  display: list-item;
  list-style: inside disclosure-closed;
  margin: 0;
  padding: 2px 0 0 4px;
  background: none;
  color: var(--gd-muted);
  font-size: 12px;
  font-weight: 400;
  border: 0;
  cursor: pointer;
  min-height: 0;
}
.gd .fold[open]>summary {
  list-style-type: disclosure-open;
}
.gd .was {
  margin: 0;
  padding: 3px 12px;
  background: var(--gd-head);
  color: var(--gd-muted);
  font-size: 12px;
  border-block: 1px solid var(--gd-line);
}
.gd table.d {
  display: table;
  table-layout: fixed;
  width: 100%;
  border: 0;
  border-collapse: collapse;
  margin: 0;
  background: none;
  font: 12px/1.55 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
}
.gd .d col:nth-child(odd) {
  width: 56px;
}
.gd .d td {
  border: 0;
  padding: 0 6px 0 20px;
  min-width: 0;
  vertical-align: top;
  white-space: break-spaces;
  overflow-wrap: anywhere;
  tab-size: 4;
  font-size: 12px;
  text-indent: -14px;
}
.gd .d td.n {
  scroll-margin-top: calc(var(--gd-top,0px) + max(84px,20vh));
  padding: 0 6px 0 0;
  text-align: right;
  text-indent: 0;
  white-space: nowrap;
  user-select: none;
  -webkit-user-select: none;
}
.gd .d td.n a {
  color: var(--gd-muted);
  text-decoration: none;
}
.gd .d td.n a:hover {
  text-decoration: underline;
}
.gd .d td.n:target, .gd .d td.n:target+td {
  background: var(--gd-target)!important;
  box-shadow: inset 0 1px var(--gd-warn),inset 0 -1px var(--gd-warn);
}
.gd .d td+td.n {
  border-left: 1px solid var(--gd-line);
}
.gd .d td:not(.n)::before {
  content: "  ";
  white-space: pre;
}
.gd .d td.r::before {
  content: "- "!important;
  color: var(--gd-minus);
}
.gd .d td.a::before {
  content: "+ "!important;
  color: var(--gd-plus);
}
.gd .d td.r {
  background: var(--gd-del);
}
.gd .d td.a {
  background: var(--gd-add);
}
.gd .d td.e {
  background: var(--gd-empty);
}
.gd .v td.r, .gd .v td.a {
  background: var(--gd-move);
}
.gd .v td.r::before {
  content: "< "!important;
  color: inherit;
}
.gd .v td.a::before {
  content: "> "!important;
  color: inherit;
}
.gd .m td.r, .gd .m td.a {
  background: none;
}
.gd .m td.r::before, .gd .m td.a::before {
  content: "≈ "!important;
  color: var(--gd-muted);
}
.gd .f td.r::before, .gd .f td.a::before {
  content: "· "!important;
}
.gd .m del, .gd .m ins {
  background: none;
  text-decoration: underline dotted var(--gd-muted);
}
.gd .go {
  font-size: 11px;
  margin-right: 6px;
  user-select: none;
  -webkit-user-select: none;
}
.gd .u {
  border: 1px solid var(--gd-warn);
  border-radius: 3px;
  padding: 0 2px;
  font-size: 11px;
  unicode-bidi: isolate;
}
.gd i {
  font-style: normal;
}
.gd i.k {
  color: var(--gd-keyword);
}
.gd i.s {
  color: var(--gd-string);
}
.gd i.m {
  color: var(--gd-number);
}
.gd i.c {
  color: var(--gd-comment);
}
.gd i.f {
  color: var(--gd-name);
}
.gd .h {
  position: absolute;
  width: 1px;
  height: 1px;
  overflow: hidden;
  clip-path: inset(50%);
  white-space: nowrap;
}
@container gd-lines (min-width:1180px) {
  .gd .split {
    display: grid;
    grid-template-columns: 220px minmax(0,1fr);
    gap: 20px;
  }
  .gd .tree {
    position: sticky;
    top: calc(var(--gd-top,0px) + 8px);
    max-height: calc(100vh - var(--gd-top,0px) - 16px);
    overflow-y: auto;
    align-self: start;
  }
}
@container (max-width:719px) {
  .gd .d colgroup {
    display: none;
  }
  .gd table.d, .gd .d tbody {
    display: block;
  }
  .gd .d tr {
    display: grid;
    grid-template-columns: 44px minmax(0,1fr);
  }
  .gd .d td.e, .gd .d td.n:has(+.e), .gd .d tr.s td:nth-child(2) {
    display: none;
  }
  .gd .d tr.s {
    position: relative;
  }
  .gd .d tr.s td:first-child {
    position: absolute;
    inset: 0;
    visibility: hidden;
  }
  .gd .d tr.s:has(>:target)>td {
    background: var(--gd-target);
    box-shadow: inset 0 1px var(--gd-warn),inset 0 -1px var(--gd-warn);
  }
  .gd .d td+td.n {
    border-left: 0;
  }
}
@media print {
  .gd .tree {
    display: none;
  }
  .gd table.d, .gd .d td {
    font-size: 9px;
    line-height: 1.35;
  }
  .gd .d col:nth-child(odd) {
    width: 36px;
  }
  .gd .d tr {
    break-inside: avoid;
  }
  .gd .file>summary {
    position: static;
  }
  .gd .file {
    content-visibility: visible;
  }
}
"""

STYLE = (
    f".gd{{color-scheme:light dark;{_variables(LIGHT)}}}"
    f"@media(prefers-color-scheme:dark){{.gd{{{_variables(DARK)}}}}}"
    f"[data-md-color-scheme=default] .gd{{color-scheme:light;{_variables(LIGHT)}}}"
    f"[data-md-color-scheme=slate] .gd{{color-scheme:dark;{_variables(DARK)}}}"
    f"@media print{{:root .gd.gd{{color-scheme:light;{_variables(LIGHT)}}}}}"
) + re.sub(r"\s*\n\s*", "", _RULES)

# For the page that is nothing but a report.
PAGE = (
    f"html{{background:{LIGHT['bg']}}}body{{margin:0}}main.gd{{padding:16px;min-height:100vh}}"
    f"@media(prefers-color-scheme:dark){{html{{background:{DARK['bg']}}}}}"
)
