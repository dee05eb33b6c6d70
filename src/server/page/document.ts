import { sha256 } from "../../base/digest.ts";
import { ACTIONS_SCRIPT } from "./actions_script.ts";
import { CHARTS_SCRIPT } from "./charts_script.ts";
import { STREAM_SCRIPT } from "./stream_script.ts";
import { STYLE } from "./style.ts";
import { VIEW_SCRIPT } from "./view_script.ts";

const SCRIPT =
  `"use strict";(() => {${VIEW_SCRIPT}${CHARTS_SCRIPT}${ACTIONS_SCRIPT}${STREAM_SCRIPT}})();`;

/** The live page: one document that needs nothing else. */
export const DOCUMENT: string = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>kvtier</title>
<link rel="icon" href="data:,">
<style>${STYLE}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header>
<h1>kvtier</h1>
<span class="badge" id="health" role="status">Waiting</span>
<span class="soft small" id="device"></span>
<span class="spacer"></span>
<span class="badge warn" id="connection" role="status">Connecting</span>
<span class="soft small" id="version"></span>
</header>
<main id="main" tabindex="-1">
<section id="sign-in" hidden aria-labelledby="sign-in-title">
<h2 id="sign-in-title">Token</h2>
<form id="token-form">
<p id="token-help">This server asks for its token. The page keeps it in this tab only.</p>
<label for="token">Token</label>
<input id="token" type="password" autocomplete="current-password" required aria-describedby="token-help">
<button type="submit">Connect</button>
</form>
</section>
<section id="problems" hidden aria-labelledby="problems-title">
<h2 id="problems-title">Problems</h2>
<ul id="problem-list"></ul>
</section>
<section aria-labelledby="tiers-title">
<h2 id="tiers-title">Tiers</h2>
<div class="cards" id="tiers"></div>
</section>
<section class="third" aria-label="Hit ratio by tier"><figure id="chart-hits"></figure></section>
<section class="third" aria-label="Misses by reason"><figure id="chart-misses"></figure></section>
<section class="third" aria-label="Throughput"><figure id="chart-io"></figure></section>
<section aria-labelledby="adapters-title">
<h2 id="adapters-title">Adapters</h2>
<div class="scroll" tabindex="0" role="group" aria-labelledby="adapters-title">
<table><thead id="adapter-head"></thead><tbody id="adapters"></tbody></table>
</div>
</section>
<section class="half" aria-labelledby="models-title">
<h2 id="models-title">Top models in L1</h2>
<table><thead><tr><th scope="col">Model</th><th scope="col" class="num">Bytes</th></tr></thead><tbody id="models"></tbody></table>
</section>
<section class="half" aria-labelledby="salts-title">
<h2 id="salts-title">Top cache salts in L1</h2>
<table><thead><tr><th scope="col">Salt</th><th scope="col" class="num">Bytes</th></tr></thead><tbody id="salts"></tbody></table>
</section>
<section aria-labelledby="events-title">
<div class="row">
<h2 id="events-title">Recent events</h2>
<label class="inline"><input type="checkbox" id="routine"> Show stores, loads and removals</label>
</div>
<ol class="events" id="events" tabindex="0" role="list" aria-labelledby="events-title"></ol>
</section>
<section aria-labelledby="actions-title">
<h2 id="actions-title">Actions</h2>
<p class="soft" id="actions-help">The server has no token, so that nothing can be changed from here.</p>
<div class="forms" id="actions" hidden>
<form id="forget"><fieldset><legend>Forget</legend>
<label for="forget-by">Objects of</label>
<select id="forget-by"><option value="salt">a cache salt</option><option value="model">a model</option></select>
<label for="forget-name">Name</label>
<input id="forget-name" autocomplete="off" spellcheck="false">
<button type="submit">Forget</button>
</fieldset></form>
<form id="quota"><fieldset><legend>Quota of a cache salt</legend>
<label for="quota-salt">Cache salt</label>
<input id="quota-salt" autocomplete="off" spellcheck="false">
<label for="quota-l1">MiB in L1; empty for no limit</label>
<input id="quota-l1" inputmode="decimal" autocomplete="off">
<label for="quota-l2">MiB in each adapter; empty for no limit</label>
<input id="quota-l2" inputmode="decimal" autocomplete="off">
<button type="submit">Set</button><button type="button" class="plain" id="quota-remove">Remove quota</button>
</fieldset></form>
<form id="add"><fieldset><legend>Add an adapter</legend>
<label for="add-config">Configuration in JSON</label>
<textarea id="add-config" spellcheck="false" placeholder='{"type":"fs","base_path":"/data/kv"}'></textarea>
<button type="submit">Add</button>
</fieldset></form>
<form id="remove"><fieldset><legend>Remove an adapter</legend>
<label for="remove-id">Adapter</label>
<select id="remove-id"></select>
<label for="remove-mode">Mode</label>
<select id="remove-mode"><option value="drain">drain: when it is no longer in use</option><option value="migrate">migrate: copy its objects to the others first</option><option value="drop">drop: at once</option></select>
<button type="submit">Remove</button>
</fieldset></form>
</div>
<output id="result" role="status"></output>
</section>
</main>
<dialog id="confirm" aria-labelledby="confirm-title" aria-describedby="confirm-text">
<form method="dialog">
<h2 id="confirm-title">Please confirm</h2>
<p id="confirm-text"></p>
<button type="submit" value="yes">Confirm</button><button type="submit" value="no" class="plain">Cancel</button>
</form>
</dialog>
<script>${SCRIPT}</script>
</body>
</html>
`;

/** Content-Security-Policy of the page: its own style and script, and requests to its server. */
export const DOCUMENT_POLICY: string = [
  "default-src 'none'",
  `script-src ${hashOf(SCRIPT)}`,
  `style-src ${hashOf(STYLE)}`,
  "img-src data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

function hashOf(text: string): string {
  return `'sha256-${sha256(new TextEncoder().encode(text)).toBase64()}'`;
}
