// The parts of the page about the service: objectives, latency, sources, budgets, the model server.
// Each gives null where there is nothing to show, and its panel stays hidden.

import { meter } from "./charts.js";
import { el } from "./elements.js";
import { STATES, amount, bytes, figure, plainState, seconds, share, span, whole } from "./words.js";

const ROWS_MAX = 12;
const known = (value) => typeof value === "number" && Number.isFinite(value);

const WORDS = new Set(["Route", "Of", "State"]);
const head = (...titles) => el("thead", {}, el("tr", {},
  ...titles.map((text) => el("th", { scope: "col", class: WORDS.has(text) && "words" }, text))));
const named = (text) => el("th", { scope: "row", title: text }, text);
const cells = (...texts) => texts.map((text) => el("td", {}, text));
const table = (heading, rows) => el("div", { class: "scroll" }, el("table", {}, heading, el("tbody", {}, ...rows)));

function mark(state, words) {
  return el("span", { class: `state state-${state}` },
    el("span", { "aria-hidden": "true" }, STATES[state].sign), " ", el("span", {}, words));
}

function more(list) {
  return list.length > ROWS_MAX ? el("p", { class: "quiet" }, `and ${list.length - ROWS_MAX} more`) : null;
}

// What a person should know first. Plain sentences, the worst first.
export function troubles(status) {
  const found = [];
  if (status.upstream === "unreachable") found.push("The model server does not answer: clients get 502 or 504.");
  for (const source of status.sources ?? []) {
    if (source.reason) found.push(`Source ${source.kind} (${source.of}) ${plainState(source.state)}: ${source.reason}`);
  }
  for (const one of status.slo ?? []) {
    const [state, words] = standing(one);
    if (state === "drift") found.push(`Objective ${one.name}: ${words}.`);
  }
  const kills = status.server?.oom_kills;
  if (kills > 0) found.push(`The model server was killed for memory ${whole(kills)} times.`);
  for (const [limit, held] of Object.entries(status.governor?.held ?? {})) {
    if (!held) found.push(`The ${BUDGETS[limit] ?? limit} budget cannot be held, even at the lowest sampling rate.`);
  }
  return found;
}

export const trouble = (list) => list.map((text) => el("li", {}, text));

// The limits of the alerts that come with Remora (deploy/prometheus).
function standing({ burn = {}, remaining }) {
  const over = (limit, ...windows) => windows.every((name) => (burn[name] ?? 0) > limit);
  if (over(14.4, "1h", "5m") || over(6, "6h", "30m")) return ["drift", "its budget burns fast"];
  if (known(remaining) && remaining <= 0) return ["warning", "its budget is spent"];
  if (over(1, "3d", "6h")) return ["warning", "burns"];
  return known(remaining) ? ["ok", "ok"] : ["insufficient_data", "no requests"];
}

const SHORT = { "its budget burns fast": "burns fast", "its budget is spent": "spent" };

export function objectives(list) {
  if (!list?.length) return null;
  const rows = list.slice(0, ROWS_MAX).map((one) => {
    const [state, words] = standing(one);
    const left = Math.max(0, one.remaining ?? 0);
    const text = one.remaining <= 0 ? "none" : share(one.remaining);
    return el("tr", {}, named(one.name), el("td", { class: "words" }, mark(state, SHORT[words] ?? words)), ...cells(share(one.objective)),
      el("td", {}, el("span", { class: "left" }, meter(left, `${text} of the budget left`), el("span", {}, text))),
      ...cells(...["5m", "1h", "6h", "3d"].map((name) => figure(one.burn?.[name], 2))));
  });
  return el("div", {}, el("h3", {}, "Objectives"),
    table(head("Objective", "State", "Goal", "Budget left", "5\u202fmin", "1\u202fh", "6\u202fh", "3\u202fd"), rows), more(list),
    el("p", { class: "quiet" }, "How fast the budget was used over the last 5 minutes to 3 days: 1 uses it up just in time."));
}

export function latency(list, stable) {
  if (!list?.length) return null;
  const ordered = [...list].sort((a, b) => (b.version === stable) - (a.version === stable));
  const rows = ordered.slice(0, ROWS_MAX).map((one) =>
    el("tr", {}, named(one.version || "–"), el("td", { class: "words" }, one.route),
      ...cells(...["p50_s", "p90_s", "p95_s", "p99_s"].map((key) => seconds(one[key])))));
  return el("div", {}, el("h3", {}, "Latency by version and route"),
    table(head("Version", "Route", "p50", "p90", "p95", "p99"), rows), more(list));
}

export function generations(list) {
  if (!list?.length) return null;
  const rows = list.slice(0, ROWS_MAX).map((one) =>
    el("tr", {}, named(one.version || "–"), ...cells(whole(one.answers), amount(one.input_tokens), amount(one.output_tokens)),
      ...[one.first_token, one.per_token].map((times) => el("td", { class: "whole" }, pair(times)))));
  const total = (key) => list.reduce((sum, one) => {
    for (const [name, n] of Object.entries(one[key] ?? {})) sum[name] = (sum[name] ?? 0) + n;
    return sum;
  }, {});
  const parts = [
    table(head("Version", "Answers", "Tokens in", "Tokens out", "First token", "Each further"), rows), more(list),
    el("p", { class: "quiet" }, "Times of streamed answers: half of them within the first, 99 % within the second."),
  ];
  const ends = shares(total("finish_reasons"));
  if (ends) parts.push(el("p", {}, "Ended by ", ends, "."));
  const bases = total("bases");
  if (bases.counted || bases.cut || bases.unknown) parts.push(el("p", {}, "Output tokens known from ", shares(bases, BASES), "."));
  return parts.filter((part) => part !== null);
}

const BASES = { usage: "the server", counted: "pieces counted", cut: "pieces of a cut copy", unknown: "nobody", none: "answers without tokens" };
const pair = (times) => (known(times?.p50_s) ? `${seconds(times.p50_s)} · ${seconds(times.p99_s)}` : "–");

function shares(counts, names = {}) {
  const all = Object.values(counts).reduce((sum, n) => sum + n, 0);
  return Object.entries(counts).filter(([, n]) => n > 0).sort((a, b) => b[1] - a[1])
    .map(([name, n]) => `${names[name] ?? plainState(name)} ${share(n / all)}`).join(", ");
}

// CPU time is told as a sum: how much is used now is what two looks differ by.
const LOOKS_S = 60;
let looks = [];
export function cores(status) {
  const now = { at: status.uptime_s, cpu_s: status.server?.cpu_s };
  const last = looks.at(-1);
  if (!known(now.cpu_s) || (last && (now.at < last.at || now.cpu_s < last.cpu_s))) looks = [];
  if (!known(now.cpu_s)) return null;
  looks = [...looks.filter((one) => one.at >= now.at - LOOKS_S), now];
  const took = now.at - looks[0].at;
  return took >= 10 ? (now.cpu_s - looks[0].cpu_s) / took : null;
}

const ENERGY = { rapl: "measured by the processor (RAPL)", model: "estimated from the watts of a core" };

export function server({ server: used = {}, gpus = [], energy_source: source, cost, absent = {}, cores: now }) {
  const lines = [
    ["Cost", money(cost)],
    ["Killed for memory", used.oom_kills > 0 ? mark("drift", `${whole(used.oom_kills)} times`) : null],
    ["Memory", limited(used.memory_limit_bytes && used.cgroup_memory_bytes || used.memory_bytes, used.memory_limit_bytes)],
    ["CPU", processor(used, now)],
    ["Held back", used.throttled_s > 0 ? `${span(used.throttled_s)} by its CPU limit` : null],
    ...gpus.map((gpu) => [`GPU ${gpu.gpu}`, `${share(gpu.utilization_ratio)} busy, ${bytes(gpu.memory_bytes)}`]),
    ["Network", known(used.received_bytes) ? `${bytes(used.received_bytes)} received, ${bytes(used.sent_bytes)} sent` : null],
    ["Energy", known(used.energy_j) ? `${joules(used.energy_j)}, ${ENERGY[source] ?? source ?? "of unknown source"}` : null],
    ["Threads", known(used.threads) ? whole(used.threads) : null],
    ["Open files", known(used.fds) ? whole(used.fds) : null],
  ].filter(([, value]) => value !== null);
  const unread = Object.entries(absent).map(([name, why]) => [plainState(name), String(why)]);
  if (!lines.length && !unread.length) return null;
  return [lines.length ? pairs(lines) : null, unread.length ? el("h3", {}, "Cannot be read") : null, unread.length ? pairs(unread) : null]
    .filter((part) => part !== null);
}

const pairs = (lines) => el("dl", { class: "pairs" },
  ...lines.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));

function money(cost) {
  if (!known(cost?.per_thousand_predictions) && !known(cost?.per_month)) return cost ? "known after a minute of predictions" : null;
  const each = known(cost.per_thousand_predictions) ? `${price(cost.per_thousand_predictions)} ${cost.currency} for 1,000 predictions` : null;
  const month = known(cost.per_month) ? `${price(cost.per_month)} ${cost.currency} a month` : null;
  return [each, month].filter(Boolean).join(", ");
}

function limited(used, most) {
  if (!known(used)) return null;
  return known(most) ? `${bytes(used)} of ${bytes(most)} (${share(used / most)})` : bytes(used);
}

function processor({ cpu_s: total, cpu_limit_cores: most }, now) {
  if (!known(total)) return null;
  const limit = known(most) ? ` of ${figure(most)}` : "";
  return known(now) ? `${figure(now, 2)}${limit} cores` : `${span(total)} in all${known(most) ? `, ${figure(most)} cores allowed` : ""}`;
}

function joules(value) {
  if (value < 1000) return `${figure(value)} J`;
  return value < 3.6e6 ? `${figure(value / 1000)} kJ` : `${figure(value / 3.6e6)} kWh`;
}

// A price may be a small part of a cent.
const price = (value) => (value >= 1000 ? whole(value) : String(Number(value.toPrecision(3))));

export function sources(list) {
  if (!list?.length) return null;
  const rows = list.map((one) => {
    const state = one.state === "runs" ? "ok" : one.state === "starts" ? "insufficient_data" : "warning";
    const dropped = Object.values(one.dropped ?? {}).reduce((sum, n) => sum + n, 0);
    return el("tr", {}, named(one.kind), el("td", { class: "words" }, one.of ?? ""), el("td", { class: "words" }, mark(state, plainState(one.state))),
      ...cells(known(one.completeness) ? share(one.completeness) : "–", whole(dropped)));
  });
  return table(head("Source", "Of", "State", "Complete", "Lost"), rows);
}

const BUDGETS = { cpu: "CPU", memory: "memory", rows: "rows" };

// The words under the rows watched.
export function rate({ sampling, governor }) {
  const lowered = governor?.why && governor.why !== "none";
  return lowered ? `${share(sampling?.rate)}, lowered for the ${BUDGETS[governor.why] ?? governor.why} budget` : share(sampling?.rate);
}

export function budgets({ sampling, governor }) {
  if (!governor) return null;
  const { cpu, memory, rows, held = {} } = governor;
  const line = (limit, text) => [BUDGETS[limit], held[limit] === false ? [text, " ", mark("warning", "not held")] : text];
  const lines = [["sampling", `${share(sampling?.rate)} of requests`]];
  if (known(sampling?.asked) && sampling.asked !== sampling.rate) lines.push(["asked for", share(sampling.asked)]);
  if (sampling?.errors > (sampling?.rate ?? 0)) lines.push(["of errors", share(sampling.errors)]);
  if (governor.why !== "none") lines.push(["why", governor.explain ?? governor.why]);
  if (known(cpu?.used_cores)) lines.push(line("cpu", `${figure(cpu.used_cores, 2)} of ${figure(cpu.budget_cores)} cores`));
  if (known(memory?.used_bytes)) lines.push(line("memory", `${bytes(memory.used_bytes)} of ${bytes(memory.budget_bytes)}`));
  if (known(rows?.budget_per_s)) lines.push(line("rows", `${figure(rows.used_per_s)} of ${figure(rows.budget_per_s)} a second`));
  return [el("h3", {}, "Sampling"), pairs(lines)];
}
