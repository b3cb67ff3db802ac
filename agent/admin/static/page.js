// Keeps the page true: asks the API every two seconds and draws what changed.

import { byId, el, say, show } from "./elements.js";
import * as detection from "./detection.js";
import * as parts from "./parts.js";
import * as service from "./service.js";
import { STATES, brief, figure, metric, percent, seconds, share, span, stateOf, whole } from "./words.js";

const EVERY_MS = 2000;
const SHOWN = 6;
const TABLE_ROWS_MAX = 500;
const LEDGER_SHOWN = 30;
const EFFECT = 0.1; // PSI from which evidence is called drift, unless configured otherwise

// Memory of this page alone, never a cookie or storage: gone with the page.
let token = null;

class Locked extends Error {}

async function get(path) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { headers, cache: "no-store" });
  if (answer.status === 401) throw new Locked();
  if (!answer.ok) throw new Error(`${answer.status}`);
  return answer.json();
}

function head(status) {
  const stable = status.stable ?? {};
  say("model", status.model ?? "–");
  document.title = `${status.model ?? "–"} · Remora`;
  say("version", stable.version ?? "–");
  say("digest", brief(stable.digest));
  say("uptime", span(status.uptime_s));
  say("role", status.role ?? "–");
  say("rows", whole(status.rows_total));
  say("sampling", service.rate(status));
  say("dropped", whole(Object.values(status.drops ?? {}).reduce((sum, n) => sum + n, 0)));
  say("reference", reference(status));
  states(status.states ?? {});
  show(byId("processes").tBodies[0], status.processes ?? {}, parts.processes);
  const { drops, labels, label_cohorts: cohorts } = status;
  show(byId("notes"), { drops, labels, cohorts }, parts.notes);
  ofDetection(status);
  ofService(status);
}

// What there is nothing of stays hidden.
function part(id, data, draw) {
  const made = draw(data);
  byId(id).hidden = made === null;
  if (made !== null) show(byId(id), data, () => made);
  return made !== null;
}

function ofDetection(status) {
  const { quality, estimated, estimates_hold, concept_detectors, label_state } = status;
  show(byId("quality"), { quality, estimated }, detection.firstMetric);
  show(byId("metrics"), { quality, estimated, estimates_hold }, detection.quality);
  part("concept", { concept_detectors, label_state }, detection.concept);
  byId("standing").hidden = !part("standing-list", status.standing, detection.standing);
  const together = part("multivariate", status.multivariate, detection.multivariate);
  byId("together").hidden = !together;
  byId("data").hidden = !part("data-quality", status.data_quality, detection.dataQuality);
  byId("odd").hidden = !part("outliers", status.outliers, detection.outliers);
  byId("stream").hidden = !part("segments", status.segments, detection.segments);
  byId("groups").hidden = !part("fairness", status.fairness, detection.fairness);
}

function ofService(status) {
  const { slo, latency, stable, generations, sampling, governor, sources } = status;
  part("troubles", service.troubles(status), (list) => (list.length ? service.trouble(list) : null));
  const promised = part("objectives", slo, service.objectives);
  const timed = part("latency", { latency, stable }, () => service.latency(latency, stable?.version));
  byId("service").hidden = !promised && !timed;
  const talks = part("generations", generations, service.generations);
  byId("language").hidden = !talks;
  byId("answers").hidden = !promised && !timed && !talks;
  const { server, gpus, energy_source, cost, absent } = status;
  const used = { server, gpus, energy_source, cost, absent, cores: service.cores(status) };
  byId("server").hidden = !part("server-figures", used, service.server);
  part("sources", sources, service.sources);
  part("budgets", { sampling, governor }, service.budgets);
}

function reference(status) {
  const known = status.reference;
  if (!known) {
    const { rows, of } = status.learning ?? {};
    return rows === undefined ? "being learnt" : `being learnt, ${whole(rows)} of ${whole(of)} rows`;
  }
  const doubt = known.provisional ? ", provisional" : known.learnt && !known.accepted ? ", learnt, not yet accepted" : "";
  return `${whole(known.rows)} rows${doubt}`;
}

function states(counts) {
  let worst = "insufficient_data";
  for (const name of Object.keys(STATES)) {
    const count = counts[name] ?? 0;
    const place = document.querySelector(`[data-count="${name}"]`);
    place.querySelector("b").textContent = whole(count);
    place.classList.toggle("none", count === 0);
    if (count > 0 && STATES[name].rank > STATES[worst].rank) worst = name;
  }
  const overall = document.querySelector('[data-state="overall"]');
  overall.className = `state state-${worst} big`;
  overall.children[0].textContent = STATES[worst].sign;
  overall.children[1].textContent = STATES[worst].word;
}

function traffic(points) {
  const newest = points.at(-1) ?? {};
  say("requests", figure(newest.requests_s));
  say("errors", newest.error_ratio === 0 ? percent(0) : share(newest.error_ratio));
  say("p50", seconds(newest.p50_s));
  say("p99", seconds(newest.p99_s));
  say("span", points.length > 1 ? `the last ${span(newest.at - points[0].at)}` : "");
}

async function features() {
  const { features: list } = await get("/api/v1/features");
  const ordered = parts.byConcern(list);
  const shown = await Promise.all(
    ordered.slice(0, SHOWN).map((f) => get(`/api/v1/features/${encodeURIComponent(f.name)}`).catch(unlessLocked(f))),
  );
  if (shown.length) show(byId("features"), shown, (all) => all.map((f) => parts.featureCard(f, EFFECT)));
  else show(byId("features"), [], () => parts.quiet("No feature has been seen yet: send requests through the proxy."));
  if (byId("all-features").open) {
    show(byId("all-features").querySelector("tbody"), ordered.slice(0, TABLE_ROWS_MAX), (all) => all.map(parts.featureRow));
  }
  return list.find((f) => typeof f.evidence_threshold === "number")?.evidence_threshold;
}

const unlessLocked = (instead) => (error) => {
  if (error instanceof Locked) throw error;
  return instead;
};

// The ledger is read forward once, then only what is new.
const book = { after: 0, newest: [] };
async function ledger() {
  for (;;) {
    const { entries } = await get(`/api/v1/ledger?after=${book.after}&limit=500`);
    if (!entries.length) break;
    book.after = entries.at(-1).id;
    book.newest = [...book.newest, ...entries].slice(-LEDGER_SHOWN);
    if (entries.length < 500) break;
  }
  show(byId("ledger"), [...book.newest].reverse(), parts.ledger);
}

async function refresh() {
  const [status, history, rollouts, runs, findings, threshold] = await Promise.all([
    get("/api/v1/status"),
    get("/api/v1/history"),
    get("/api/v1/rollouts"),
    get("/api/v1/runs"),
    get("/api/v1/findings?limit=20"),
    features(),
    ledger(),
  ]);
  const points = history.points ?? [];
  head(status);
  traffic(points);
  if (points.length) show(byId("charts"), { points, effect: EFFECT, threshold }, parts.charts);
  else show(byId("charts"), [], () => parts.quiet("The first point comes within seconds."));
  show(byId("rollout"), rollouts.rollouts ?? [], parts.rollouts);
  show(byId("runs"), runs.runs ?? [], parts.runs);
  show(byId("findings"), findings.findings ?? [], parts.findings);
  byId("roll-back").hidden = false;
}

function fresh(text, stale) {
  const place = byId("fresh");
  place.textContent = text;
  place.classList.toggle("stale", stale);
}

let last = null;
async function turn() {
  try {
    if (!document.hidden && byId("locked").hidden) {
      await refresh();
      last = new Date();
      fresh(`live · ${last.toLocaleTimeString([], { hour12: false })}`, false);
    }
  } catch (error) {
    if (error instanceof Locked) {
      token = null;
      byId("locked").hidden = false;
      fresh("a token is needed", true);
    } else {
      const since = last ? `, figures of ${last.toLocaleTimeString([], { hour12: false })}` : "";
      fresh(`no answer${since}; trying again`, true);
    }
  }
  document.documentElement.dataset.turn = String(1 + Number(document.documentElement.dataset.turn ?? 0));
  setTimeout(turn, EVERY_MS);
}

byId("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  token = event.target.elements.token.value.trim();
  event.target.reset();
  byId("locked").hidden = true;
});

byId("all-features").addEventListener("toggle", () => features().catch(() => {}));

// Rolling back: the one thing that this page changes.
const dialog = byId("roll-back-dialog");
byId("roll-back").addEventListener("click", () => {
  byId("roll-back-answer").textContent = "";
  dialog.showModal();
});
byId("roll-back-cancel").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => { byId("roll-back-form").elements.token.value = ""; });
byId("roll-back-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { token: secret, reason } = event.target.elements;
  const answer = byId("roll-back-answer");
  const button = event.submitter;
  if (button) button.disabled = true;
  try {
    const answered = await fetch("/api/v1/rollback", {
      method: "POST",
      headers: { Authorization: `Bearer ${secret.value.trim()}`, "Content-Type": "application/json" },
      body: JSON.stringify({ reason: reason.value }),
    });
    const body = await answered.json().catch(() => ({}));
    answer.textContent = answered.ok ? "Rolling back." : (body.error ?? `refused (${answered.status})`);
    if (answered.ok) setTimeout(() => dialog.close(), 1200);
  } catch {
    answer.textContent = "The agent does not answer.";
  } finally {
    secret.value = "";
    if (button) button.disabled = false;
  }
});

turn();
