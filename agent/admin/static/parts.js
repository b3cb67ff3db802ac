// The parts of the page: what each answer of the API looks like.

import { bars, meter, series, spark, timeline } from "./charts.js";
import { el } from "./elements.js";
import { STATES, brief, bytes, clock, evidence, figure, metric, percent, plainState, seconds, share, span, stateOf, whole } from "./words.js";

export const quiet = (text) => el("p", { class: "quiet" }, text);

export function tag(state) {
  const name = stateOf(state);
  return el("span", { class: `state state-${name}` },
    el("span", { "aria-hidden": "true" }, STATES[name].sign), " ", el("span", {}, STATES[name].word));
}

// The most telling first: the state, then how far it moved.
export function byConcern(features) {
  const rank = (f) => STATES[stateOf(f.state)].rank;
  return [...features].sort((a, b) => rank(b) - rank(a) || (b.psi ?? 0) - (a.psi ?? 0));
}

export function featureCard(feature, effect) {
  const bins = feature.bins ?? [];
  return el("article", { class: `feature is-${stateOf(feature.state)}` },
    el("header", {}, el("h3", { title: feature.name }, feature.name), tag(feature.state)),
    bars(bins, `Shares of ${bins.length} bins of ${feature.name}: reference and last rows`),
    axis(bins.map((bin) => String(bin.label))),
    el("p", { class: "figures" },
      el("span", {}, "PSI ", el("b", {}, figure(feature.psi))),
      el("span", {}, "KS ", el("b", {}, figure(feature.ks))),
      el("span", { title: "log10 of the e-value; above the limit it is believed" }, "evidence ",
        el("b", {}, evidence(feature.evidence)),
        feature.evidence_threshold ? ` of ${figure(feature.evidence_threshold, 2)}` : ""),
      feature.missing_ratio > 0 ? el("span", {}, "missing ", el("b", {}, share(feature.missing_ratio))) : null,
    ),
    spark(series(feature.history ?? [], "psi"), `PSI of ${feature.name} over time`, effect),
  );
}

const LABELLED_MAX = 5;

// Numbers by their limits from left to right, then what is no number; few categories one by one.
function axis(labels) {
  const limits = labels.map((label) => label.split("..").map(Number)).filter((pair) => pair.length === 2 && !pair.some(Number.isNaN));
  const text = (label) => el("span", { title: label }, label);
  if (limits.length > 1) {
    const rest = labels.slice(limits.length).join(", ");
    const [first, last] = [limits[0][0], limits.at(-1)[1]].map((value) => figure(value, 4));
    return el("p", { class: "ends" }, text(first), text(rest ? `${last} · ${rest}` : last));
  }
  if (labels.length <= LABELLED_MAX) return el("p", { class: "ends each" }, ...labels.map(text));
  return el("p", { class: "ends" }, text(labels[0]), text(`${labels.length - 2} more`), text(labels.at(-1)));
}

export function featureRow(f) {
  const cells = [figure(f.psi), figure(f.ks), figure(f.wasserstein), share(f.missing_ratio), evidence(f.evidence), figure(f.detectable_shift), whole(f.rows)];
  return el("tr", {}, el("th", { scope: "row", title: f.name }, f.name), el("td", {}, tag(f.state)),
    ...cells.map((text) => el("td", {}, text)));
}

export function charts({ points, effect, threshold }) {
  const line = (key, kind, name) => ({ points: series(points, key), kind, name });
  const has = (key) => points.some((p) => typeof p[key] === "number");
  const any = (name) => has(name) || has(`${name}_estimated`);
  const score = any("rmse") && !any("accuracy") ? "rmse" : "accuracy";
  const told = [line(score, "calm", "from labels"), line(`${score}_estimated`, "second", "estimated")];
  const shown = told.filter((_, place) => has(place ? `${score}_estimated` : score));
  return [
    timeline("Largest PSI", [line("psi_max", "now")], { low: 0, high: effect * 1.3, limit: effect, format: figure }),
    timeline("Strongest evidence, log₁₀", [line("evidence_max", "now")], { low: 0, high: threshold, limit: threshold, format: evidence }),
    timeline("Requests per second", [line("requests_s", "calm")], { low: 0, format: figure }),
    timeline("Errors", [line("error_ratio", "bad")], { low: 0, high: 0.005, format: share }),
    timeline("Latency", [line("p50_s", "calm", "p50"), line("p99_s", "second", "p99")], { low: 0, format: seconds }),
    timeline(score === "rmse" ? "RMSE" : "Accuracy", shown.length ? shown : [line(score, "calm")],
      { format: (value) => metric(score, value), none: "no labels yet" }),
  ];
}

// When labels are believed, and whether they come as they did.
function inTime(cohorts) {
  if (typeof cohorts?.join_ratio !== "number") return {};
  const standing = (state) => (state === "warning" || state === "drift" ? `${STATES[state].sign} ${STATES[state].word}` : null);
  return {
    with_a_label: share(cohorts.join_ratio),
    believed_after: cohorts.maturity_s > 0 ? span(cohorts.maturity_s) : null,
    waiting: cohorts.waiting ? whole(cohorts.waiting) : null,
    fewer_than_before: standing(cohorts.join_state),
    their_delay: standing(cohorts.delay_state),
  };
}

const VERDICTS = { successful: "ok", failed: "drift", error: "warning", inconclusive: "insufficient_data" };

function measurement(m) {
  const verdict = String(m.verdict ?? "inconclusive").toLowerCase();
  const name = VERDICTS[verdict] ?? "insufficient_data";
  return el("tr", {}, el("th", { scope: "row" }, plainState(m.guard ?? m.metric ?? m.name)),
    el("td", {}, el("span", { class: `state state-${name}` }, el("span", { "aria-hidden": "true" }, STATES[name].sign), ` ${verdict}`)),
    el("td", { class: "words" }, m.words ?? m.reason ?? ""));
}

const OVER = new Set(["live", "rolled_back", "aborted", "failed"]);
export const isOver = (rollout) => OVER.has(String(rollout?.state ?? ""));

export function rollouts(list) {
  if (!list.length) return quiet("No candidate has been rolled out yet.");
  const [newest, ...before] = list;
  const weight = newest.weight ?? 0;
  const parts = [
    el("p", { class: "lead" }, el("b", {}, plainState(newest.state)), " ",
      el("code", {}, brief(newest.candidate)), newest.stable ? " against " : "",
      newest.stable ? el("code", {}, brief(newest.stable)) : null),
  ];
  if (!isOver(newest)) {
    const copied = newest.state === "shadow";
    const words = copied ? copies(newest) : `${percent(weight, 0)} of traffic${steps(newest)}`;
    const done = copied ? (newest.copies_answered ?? 0) / Math.max(1, newest.copies_min ?? 1) : weight;
    parts.push(el("p", { class: "weight" }, meter(done, words), el("span", {}, words)));
    if (copied) parts.push(quiet(`${percent(newest.shadow_share, 0)} of requests are copied to it; no client sees its answers.`));
  }
  if (newest.pairs?.compared) parts.push(el("p", {}, compared(newest.pairs)));
  const why = newest.because || newest.reason;
  if (why) parts.push(quiet(why));
  if (newest.measurements?.length) {
    parts.push(el("div", { class: "scroll" }, el("table", {}, el("tbody", {}, ...newest.measurements.map(measurement)))));
  }
  if (newest.transitions?.length) {
    parts.push(el("ol", { class: "timeline" }, ...newest.transitions.slice(-6).reverse().map((t) =>
      entry(t.at, plainState(t.to ?? t.state), t.reason ?? ""))));
  }
  if (before.length) {
    parts.push(el("details", {}, el("summary", {}, `${before.length} before`),
      el("ol", { class: "timeline" }, ...before.map((r) => entry(r.started_at, plainState(r.state), `${brief(r.candidate)} ${r.because || r.reason || ""}`)))));
  }
  return parts;
}

function steps({ state, step, steps: all }) {
  if (state !== "canary" || typeof step !== "number") return "";
  return `, step ${step + 1}${all?.length ? ` of ${all.length}` : ""}`;
}

function copies({ copies_answered: answered, copies_min: needed }) {
  return `copies answered ${whole(answered ?? 0)}${needed ? ` of ${whole(needed)}` : ""}`;
}

function compared({ compared: all, disagreeing, disagreement, unpaired }) {
  const alone = Object.values(unpaired ?? {}).reduce((sum, n) => sum + n, 0);
  const differ = disagreeing ? `${whole(disagreeing)} differ (${share(disagreement)})` : "none differs";
  return `Of ${whole(all)} pairs of answers ${differ}${alone ? `; ${whole(alone)} without the other` : ""}.`;
}

function entry(at, what, text, more) {
  return el("li", {}, el("time", {}, clock(at)), el("div", {}, el("b", {}, what), " ", text, more ?? null));
}

export function runs(list) {
  if (!list.length) return quiet("No run yet.");
  return el("ol", { class: "timeline" }, ...list.slice(0, 3).map((run) =>
    entry(run.requested_at ?? run.at, plainState(run.outcome ?? run.state), run.reason ?? run.trigger ?? "")));
}

export function ledger(entries) {
  if (!entries.length) return el("li", { class: "quiet" }, "Nothing yet.");
  return entries.map((e) => entry(e.at, plainState(e.kind), e.reason ?? "", el("small", {}, `${brief(e.subject)} · ${e.actor ?? ""}`)));
}

export function findings(list) {
  if (!list.length) return el("li", { class: "quiet" }, "Nothing yet.");
  return list.map((f) =>
    el("li", {}, el("time", {}, clock(f.at)), el("div", {}, tag(f.state), " ", String(f.explain ?? "").startsWith(f.subject) ? "" : el("b", {}, f.subject ?? ""), " ",
      f.explain ?? "", el("small", {}, `${plainState(f.kind)}${f.version ? ` · ${f.version}` : ""} · row ${whole(f.row)}`))));
}

export function processes(found) {
  return Object.entries(found).map(([name, p]) =>
    el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, p.cpu_s === undefined ? "–" : p.cpu_s < 60 ? `${p.cpu_s.toFixed(1)} s` : span(p.cpu_s)),
      el("td", {}, bytes(p.memory_bytes)), el("td", {}, whole(p.restarts ?? 0))));
}

export function notes({ drops, labels, cohorts }) {
  const list = (title, found, format) => {
    const entries = Object.entries(found ?? {}).filter(([, value]) => value);
    if (!entries.length) return null;
    return el("div", {}, el("h3", {}, title), el("dl", { class: "pairs" },
      ...entries.flatMap(([name, value]) => [el("dt", {}, plainState(name)), el("dd", {}, format(value))])));
  };
  const made = [list("Dropped", drops, whole), list("Labels", labels, whole), list("Labels in time", inTime(cohorts), String)];
  return made.filter((part) => part !== null);
}
