// Figures and moments as people read them. Nothing here touches the document.

const THIN = "\u202f";

export const STATES = {
  ok: { word: "ok", sign: "●", rank: 0 },
  insufficient_data: { word: "too few rows", sign: "○", rank: -1 },
  warning: { word: "warning", sign: "▲", rank: 1 },
  drift: { word: "drift", sign: "■", rank: 2 },
};

export const stateOf = (name) => (name in STATES ? name : "insufficient_data");

const known = (value) => typeof value === "number" && Number.isFinite(value);

export function whole(value) {
  return known(value) ? Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, THIN) : "–";
}

export function figure(value, digits = 3) {
  if (!known(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1000) return whole(value);
  if (size < 0.001) return value.toExponential(1);
  return Number(value.toPrecision(digits)).toString();
}

// A count that may be huge.
export function amount(value) {
  if (!known(value) || value < 1e6) return whole(value);
  const [size, word] = value < 1e9 ? [1e6, "million"] : [1e9, "billion"];
  return `${figure(value / size)} ${word}`;
}

// Evidence without a row to rest on comes as a very small logarithm.
export const evidence = (value) => (known(value) && value > -20 ? figure(value) : known(value) ? "none" : "–");

export function percent(value, digits = 1) {
  return known(value) ? `${(100 * value).toFixed(digits)}${THIN}%` : "–";
}

// A share that may be very small: two digits that count.
export function share(value) {
  if (!known(value)) return "–";
  return `${Number((100 * value).toPrecision(3))}${THIN}%`;
}

export function seconds(value) {
  if (!known(value)) return "–";
  if (value < 0.001) return `${(1e6 * value).toFixed(0)}${THIN}µs`;
  if (value < 1) return `${Number((1000 * value).toPrecision(3))}${THIN}ms`;
  return `${Number(value.toPrecision(3))}${THIN}s`;
}

export function bytes(value) {
  if (!known(value)) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let place = 0;
  while (value >= 1024 && place < units.length - 1) {
    value /= 1024;
    place += 1;
  }
  return `${value < 10 ? Number(value.toPrecision(2)) : Math.round(value)}${THIN}${units[place]}`;
}

export function span(value) {
  if (!known(value)) return "–";
  let left = Math.max(0, Math.floor(value));
  const parts = [];
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]]) {
    const count = Math.floor(left / size);
    left %= size;
    if (count || parts.length || unit === "s") parts.push(`${count} ${unit}`);
  }
  return parts.slice(0, 2).join(" ");
}

// Unix seconds or RFC 3339, whichever it is; null for neither.
export function moment(value) {
  const date = known(value) ? new Date(1000 * value) : new Date(value ?? NaN);
  return Number.isNaN(date.getTime()) ? null : date;
}

export function clock(value) {
  const date = moment(value);
  if (!date) return "";
  const time = date.toLocaleTimeString([], { hour12: false });
  const day = date.toLocaleDateString([], { month: "short", day: "numeric" });
  return Date.now() - date.getTime() < 20 * 3600e3 ? time : `${day} ${time}`;
}

// A version by its digest: enough characters to tell two apart.
export function brief(digest) {
  const text = String(digest ?? "");
  return text.startsWith("sha256:") ? text.slice(7, 19) : text;
}

const RATIOS = new Set(["accuracy", "f1", "precision", "recall", "specificity", "roc_auc", "pr_auc"]);
export const metric = (name, value) => (RATIOS.has(name) ? percent(value) : figure(value));

export function plainState(state) {
  return String(state ?? "").replaceAll("_", " ");
}
