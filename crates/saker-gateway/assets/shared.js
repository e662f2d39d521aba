// What both pages need: asking the gateway, making elements, drawing.

const SVG = "http://www.w3.org/2000/svg";

// The API key, where the gateway asks for one; kept until the browser's tab is closed.
const KEY = "saker-api-key";

/** Asks the gateway; an answer that is an error becomes one, with its detail and its `status`. */
export async function ask(path, options = {}) {
  let response;
  try {
    const key = sessionStorage.getItem(KEY);
    const headers = key ? { ...options.headers, "x-api-key": key } : options.headers;
    response = await fetch(path, { signal: AbortSignal.timeout(10_000), ...options, headers });
  } catch (error) {
    throw new Error(error.name === "TimeoutError" ? "the gateway does not answer" : "the gateway cannot be reached");
  }
  const text = await response.text();
  let body = null;
  try {
    body = text ? JSON.parse(text) : null;
  } catch {
    body = null;
  }
  if (!response.ok) {
    const error = new Error(body?.detail ?? body?.title ?? `the gateway answers ${response.status}`);
    throw Object.assign(error, { status: response.status });
  }
  return body;
}

/** A W3C `traceparent` for requests that belong together; the gateway decides whether their trace is recorded. */
export function newTrace() {
  const digits = (bytes) => Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  return `00-${digits(16)}-${digits(8)}-00`;
}

/** A form that asks for the API key and calls `again`. */
export function keyForm(again) {
  const input = element("input", { type: "password", autocomplete: "off", "aria-label": "API key", required: "" });
  const form = element("form", { class: "key-form" }, "This gateway asks for an API key: ", input, " ", element("button", { type: "submit" }, "Use it"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, input.value.trim());
    again();
  });
  return form;
}

/** An element with attributes and children. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export const number = (value, digits) => (value == null || Number.isNaN(value) ? "–" : value.toFixed(digits));

export const milliseconds = (value) =>
  value == null ? "–" : value >= 10 ? `${value.toFixed(0)} ms` : value >= 1 ? `${value.toFixed(1)} ms` : `${(value * 1000).toFixed(0)} µs`;

/** Horizontal bars with a label and a count each. */
export function bars(rows, caption) {
  const most = Math.max(...rows.map(([, count]) => count), 1);
  const figure = element("figure", { class: "bars" }, element("figcaption", {}, caption));
  for (const [label, count] of rows) {
    const bar = element("span", { class: "bar" });
    bar.style.width = `${(100 * count) / most}%`;
    figure.append(element("div", { class: "line" }, element("span", { class: "label" }, label), element("span", { class: "track" }, bar), element("span", { class: "count" }, String(count))));
  }
  return figure;
}

/** A plot of series over time: `series` is a list of {name, values}, newest last; a value may be null. */
export function plot(series, unit, height = 120) {
  const width = 360;
  const left = 44;
  const bottom = 16;
  const known = series.flatMap((one) => one.values).filter((value) => value != null);
  const most = Math.max(...known, 0) || 1;
  const length = Math.max(...series.map((one) => one.values.length), 2);
  const x = (place) => left + ((width - left - 4) * place) / (length - 1);
  const y = (value) => 6 + (height - bottom - 6) * (1 - value / most);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": series.map((one) => `${one.name}: ${number(one.values.at(-1), 2)} ${unit}`).join(", ") });
  for (const share of [0, 0.5, 1]) {
    picture.append(
      svg("line", { x1: left, x2: width - 4, y1: y(most * share), y2: y(most * share), class: "grid" }),
      svg("text", { x: left - 4, y: y(most * share) + 3, class: "tick", "text-anchor": "end" }, short(most * share)),
    );
  }
  series.forEach((one, place) => {
    let path = "";
    let pen = "M";
    one.values.forEach((value, at) => {
      if (value == null) {
        pen = "M";
        return;
      }
      path += `${pen}${x(length - one.values.length + at).toFixed(1)} ${y(value).toFixed(1)}`;
      pen = "L";
    });
    picture.append(svg("path", { d: path, class: `curve c${place}` }));
  });
  const legend = element("figcaption", {}, ...series.map((one, place) => element("span", { class: `key c${place}` }, `${one.name} ${number(one.values.at(-1), one.values.at(-1) >= 100 ? 0 : 2)} ${unit}`)));
  return element("figure", { class: "plot" }, picture, legend);
}

const short = (value) => (value >= 1000 ? `${(value / 1000).toFixed(1)}k` : value >= 10 ? value.toFixed(0) : value.toFixed(2));
