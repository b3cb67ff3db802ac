// The parts of the page about what detectors know: what stands, quality, how columns go together,
// the data itself, odd rows, parts of the stream, groups. Each gives null where there is nothing to
// say, and its panel stays hidden.

import { el } from "./elements.js";
import { STATES, clock, evidence, figure, metric, plainState, share, stateOf, whole } from "./words.js";

const SHOWN_MAX = 8;
const NAMED_MAX = 5;
const known = (value) => typeof value === "number" && Number.isFinite(value);
const listed = (value) => (Array.isArray(value) ? value : []);

function mark(state, words) {
  const name = stateOf(state);
  return el("span", { class: `state state-${name}` },
    el("span", { "aria-hidden": "true" }, STATES[name].sign), " ", el("span", {}, words ?? STATES[name].word));
}

const head = (...titles) => el("thead", {}, el("tr", {}, ...titles.map((text) =>
  el("th", { scope: "col", class: text === "" && "words" }, text))));
const table = (heading, rows) => el("div", { class: "scroll" }, el("table", {}, heading, el("tbody", {}, ...rows)));
const quiet = (...words) => el("p", { class: "quiet" }, ...words);
const few = (names) => (names.length > NAMED_MAX
  ? `${names.slice(0, NAMED_MAX).join(", ")} and ${names.length - NAMED_MAX} more` : names.join(", "));

// What stands, drifts first.

export function standing(list) {
  if (!listed(list).length) return null;
  const made = el("ul", { class: "standing" }, ...list.slice(0, SHOWN_MAX).map(stand));
  const rest = list.length - SHOWN_MAX;
  return rest > 0 ? [made, quiet(`and ${rest} more, at /api/v1/status`)] : [made];
}

function stand(one) {
  const subject = one.segment ? `${one.subject} in ${one.segment}` : one.subject;
  const words = String(one.explain ?? "");
  return el("li", {},
    el("span", {}, mark(one.state)),
    el("div", {}, words.startsWith(subject) ? null : el("b", {}, subject, words ? " · " : ""), words),
    el("small", {}, plainState(one.kind), one.at ? ` · ${clock(one.at)}` : ""));
}

// Quality, as labels say it and as it is estimated without them.

const KINDS = {
  betting: "hold at every look at once",
  asymptotic: "do so in the limit of many rows",
  sampling: "say where labels will put the figure, as long as scores mean what they did",
  single: "are for one look",
};
const interval = (name, found) => (known(found?.lower) && known(found?.upper)
  ? `${metric(name, found.lower)} – ${metric(name, found.upper)}` : "–");

export function quality({ quality: realised = {}, estimated = {}, estimates_hold: hold }) {
  const names = [...new Set([...Object.keys(realised), ...Object.keys(estimated)])];
  if (!names.length) {
    return quiet("No label has been joined to a prediction yet: send some to ", el("code", {}, "POST /api/v1/labels"), ".");
  }
  const told = [["From labels", realised], ["Estimated", estimated]].filter(([, found]) => Object.keys(found).length);
  const rows = names.map((name) => el("tr", {}, el("th", { scope: "row" }, plainState(name)),
    ...told.flatMap(([, found]) => [
      el("td", {}, found[name] ? metric(name, found[name].value) : "–"),
      el("td", { class: "whole", title: found[name] && plainState(found[name].kind) }, interval(name, found[name])),
    ])));
  const titles = told.flatMap(([title, found]) => [`${title}, ${rowsOf(found)} rows`, "95 %"]);
  return [
    hold === false ? el("p", {}, mark("warning", "Labels contradict the estimates")) : null,
    table(head("Metric", ...titles), rows),
    quiet(meaning([...Object.values(realised), ...Object.values(estimated)])),
  ].filter((part) => part !== null);
}

const rowsOf = (found) => whole(Math.max(...Object.values(found).map((one) => one.rows ?? 0)));

// What the intervals that are shown mean.
function meaning(estimates) {
  const kinds = Object.keys(KINDS).filter((kind) => estimates.some((one) => one.kind === kind));
  if (!kinds.length) return "Intervals at 95 %.";
  return `Intervals at 95 %: ${kinds.map((kind) => `${kind} ones ${KINDS[kind]}`).join("; ")}.`;
}

export function firstMetric({ quality: realised = {}, estimated = {} }) {
  const title = el("dt", {}, "Quality");
  const [name] = Object.keys(realised).length ? Object.keys(realised) : Object.keys(estimated);
  if (!name) return [title, el("dd", {}, el("b", {}, "–"), el("small", {}, "no labels yet"))];
  const [found, other] = realised[name] ? [realised[name], estimated[name]] : [estimated[name], null];
  const bounded = known(found.lower) && known(found.upper);
  const words = [plainState(name), realised[name] ? null : "estimated", bounded ? interval(name, found) : `${whole(found.rows)} rows`,
    other ? `estimated ${metric(name, other.value)}` : null].filter(Boolean);
  return [title, el("dd", {}, el("b", {}, metric(name, found.value)), el("small", {}, words.join(", ")))];
}

// Does the model still mean what it meant? One state for each detector.
const CONCEPTS = { bernoulli: "error rate", residual: "residuals" };

export function concept({ concept_detectors: found = {}, label_state: label }) {
  const entries = Object.entries(found).map(([name, state]) => [CONCEPTS[name] ?? plainState(name), state]);
  if (label) entries.push(["labels", label]);
  if (!entries.some(([, state]) => state !== "insufficient_data")) return null;
  return [el("h3", {}, "Concept"), el("p", { class: "marks" }, ...entries.map(([name, state]) =>
    el("span", {}, name, " ", mark(state))))];
}

// How columns go together.

export function multivariate(found) {
  const drifted = listed(found?.drifted);
  if (!drifted.length) return null;
  const rows = drifted.slice(0, SHOWN_MAX).map((one) => el("tr", {},
    el("th", { scope: "row", class: "wrap" }, columns(one)),
    el("td", { class: "words" }, mark(one.state)),
    el("td", {}, evidence(one.evidence)),
    el("td", { class: "words wrap" }, listed(one.explained_by).length ? `as ${few(one.explained_by)} moved` : "")));
  return [table(head("Columns", "", "Evidence", ""), rows),
    quiet(`Combinations of columns that no longer are what they were; ${whole(found.watched)} are watched, evidence is believed from ${figure(found.evidence_threshold)} on.`)];
}

function columns(one) {
  const names = listed(one.columns).map((column) => `${column.name} ${share(Math.round(100 * column.share) / 100)}`);
  return names.length ? few(names) : one.name;
}

// The data itself.

const TROUBLES = {
  silence: "No rows come",
  schema: "Missing or unexpected",
  types: "Values of another type",
  constant: "No longer varies",
  duplicates: "Copies of rows",
};
const WHOLE = { "(rows)": "more than in the reference", "(order)": "their order", "(others)": "and others" };

export function dataQuality(found) {
  const lines = Object.entries(TROUBLES)
    .map(([name, words]) => [words, listed(found?.[name])])
    .filter(([, names]) => names.length)
    .map(([words, names]) => [words, few(names.map((name) => WHOLE[name] ?? name))]);
  for (const one of listed(found?.new_category)) {
    const named = listed(one.categories).map((category) => `${category.name} ${share(category.share)}`);
    lines.push(["New categories", `${one.feature}${named.length ? `: ${few(named)}` : ""}`]);
  }
  if (!lines.length) return null;
  return el("dl", { class: "pairs" }, ...lines.flatMap(([words, names]) => [el("dt", {}, words), el("dd", {}, names)]));
}

// Rows that are odd by themselves, where there are more of them than in the reference.
const ODD_SHARE = 0.001;

export function outliers(found) {
  if (!(found?.outliers > 0 && found.ratio > ODD_SHARE)) return null;
  const rows = listed(found.oddest).slice(0, NAMED_MAX).map((row) => el("tr", {},
    el("th", { scope: "row" }, whole(row.row)),
    el("td", { class: "words wrap" }, listed(row.features).map((one) => `${one.name} ${one.what}`).join(", ")),
    el("td", {}, row.score >= 300 ? "300 or more" : figure(row.score))));
  return [
    el("p", {}, `${whole(found.outliers)} of ${whole(found.rows)} rows (${share(found.ratio)}) are as odd as at most one in 1,000 of the reference.`),
    rows.length ? table(head("Row", "", "Oddity"), rows) : null,
  ].filter((part) => part !== null);
}

// Parts of the stream; all is told where something drifts in one.

export function segments(found) {
  const parts = listed(found?.segments);
  if (!parts.some((part) => listed(part.drifted).length)) return null;
  const count = (part, state) => part.states?.[state] ?? 0;
  const rows = parts.map((part) => el("tr", {},
    el("th", { scope: "row", title: part.name }, part.name),
    el("td", {}, whole(part.rows)),
    el("td", {}, whole(count(part, "drift"))), el("td", {}, whole(count(part, "warning"))),
    el("td", { class: "words wrap" }, few(listed(part.drifted)))));
  const left = found.left_out > 0 ? ` ${whole(found.left_out)} smaller ones are not watched.` : "";
  return [table(head(plainState(found.column), "Rows", "Drift", "Warning", ""), rows),
    quiet(`Features by state in each part; outside the false-alarm budget.${left}`)];
}

// Groups of people.

export function fairness(found) {
  const attributes = Object.entries(found ?? {}).filter(([, one]) => Object.keys(one.metrics ?? {}).length);
  if (!attributes.length) return null;
  return attributes.flatMap(([attribute, one]) => [
    el("h3", {}, attribute),
    table(head("Gap", "Value", "95 %", "Bound", ""), Object.entries(one.metrics).map(([name, gap]) => el("tr", {},
      el("th", { scope: "row" }, plainState(name)), el("td", {}, figure(gap.value)),
      el("td", { class: "whole" }, `${figure(gap.lower)} – ${figure(gap.upper)}`),
      el("td", {}, bound(name, one.bounds)),
      el("td", { class: "words" }, listed(one.beyond).includes(name) ? mark("warning", "beyond it") : "")))),
    table(head("Group", "Selected", "True positive", "False positive", "Rows"), Object.entries(one.groups ?? {}).map(([name, rates]) =>
      el("tr", {}, el("th", { scope: "row", title: name }, name),
        ...["selection", "true_positive", "false_positive"].map((rate) => el("td", {}, share(known(rates[rate]) ? Number(rates[rate].toPrecision(3)) : null))),
        el("td", {}, whole(rates.rows))))),
  ]);
}

function bound(name, bounds) {
  const limit = bounds?.[name];
  if (!known(limit)) return "–";
  return `${name === "disparate_impact" ? "at least" : "at most"} ${figure(limit)}`;
}

