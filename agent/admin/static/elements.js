// Making elements. Text only ever becomes text: names come from requests and from people.

const SVG = "http://www.w3.org/2000/svg";

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== null && value !== undefined && value !== false) {
      made.setAttribute(name, value === true ? "" : String(value));
    }
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

export const el = (name, attributes, ...children) =>
  fill(document.createElement(name), attributes, children);

export const svg = (name, attributes, ...children) =>
  fill(document.createElementNS(SVG, name), attributes, children);

export const byId = (id) => document.getElementById(id);

// Redraws only what has changed, so that a reader's selection and focus survive a refresh.
const shown = new WeakMap();
export function show(parent, data, draw) {
  const key = JSON.stringify(data);
  if (shown.get(parent) === key) return;
  shown.set(parent, key);
  parent.replaceChildren(...[draw(data)].flat());
}

export function say(name, text) {
  for (const place of document.querySelectorAll(`[data-figure="${name}"]`)) {
    if (place.textContent !== text) place.textContent = text;
  }
}
