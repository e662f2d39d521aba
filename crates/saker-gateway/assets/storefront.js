// The shop: asks the gateway's own interface, nothing else.
import { ask, bars, element, keyForm, milliseconds, newTrace, number } from "./shared.js";

const $ = (id) => document.getElementById(id);
const SHOWN = 10;
// How long after a click the row is asked for anew: events are applied within milliseconds.
const AFTER_CLICK = 250;
// How long after a degraded answer the row is asked for once more.
const AFTER_DEGRADED = 3000;
const GUEST = -1;

// The gateway's reasons for an answer that is not the best there is.
const REASONS = {
  triton_deadline: "the recommender does not answer in time",
  triton_unreachable: "the recommender cannot be reached",
  triton_error: "the recommender refuses",
  triton_answer: "the recommender's answer cannot be read",
  store_unreachable: "what is known of the visitor cannot be read",
  user_features_unknown: "the visitor's features cannot be read",
  seen_items_unknown: "what the visitor has seen cannot be read",
};

const state = { newId: null, asked: 0, items: new Map(), categories: [] };

// ---- the visitor

function visitor() {
  const kind = document.querySelector("input[name=visitor]:checked").value;
  if (kind === "guest") return GUEST;
  if (kind === "new") {
    state.newId ??= 1_500_000_000 + Math.floor(Math.random() * 400_000_000);
    return state.newId;
  }
  return Number($("user").value);
}

/** 0 phone, 1 desktop, 2 tablet; empty: unknown. */
const device = () => document.querySelector("input[name=device]:checked").value;

function moment() {
  if ($("now").checked) return undefined;
  const midnight = new Date();
  midnight.setUTCHours(Number($("hour").value), 0, 0, 0);
  return Math.floor(midnight.getTime() / 1000);
}

function visit() {
  const query = new URLSearchParams({ user_id: visitor(), k: SHOWN });
  if (device() !== "") query.set("device_type", device());
  const timestamp = moment();
  if (timestamp !== undefined) query.set("timestamp", timestamp);
  return query;
}

/** A feature as people read it: a category by its name. */
function said(name, value) {
  return `${name.replaceAll("_", " ")} ${value == null || value === -1 ? "unknown" : value}`;
}

// ---- products

function hue(text) {
  let sum = 0;
  for (const letter of text) sum = (sum * 31 + letter.codePointAt(0)) % 360;
  return sum;
}

function picture(item) {
  if (item.picture) {
    const image = element("img", { src: item.picture, alt: "", loading: "lazy", width: 160, height: 160 });
    image.addEventListener("error", () => image.replaceWith(drawn(item)));
    return image;
  }
  return drawn(item);
}

// A product without a picture has a tile in the colour of its category.
function drawn(item) {
  const title = item.title ?? `#${item.id}`;
  const initials = title.split(/\s+/).slice(0, 2).map((word) => word[0]).join("").toUpperCase();
  const tile = element("span", { class: "tile", "aria-hidden": "true" }, initials);
  tile.style.setProperty("--hue", hue(Object.values(item.categories ?? {})[0] ?? title));
  return tile;
}

function card(item, scored) {
  state.items.set(item.id, item);
  const categories = [...new Set(Object.values(item.categories ?? {}))].join(" · ");
  const facts = [categories];
  if (item.price != null) facts.push(item.price.toFixed(2));
  const button = element("button", { type: "button", class: "card", "data-id": item.id });
  button.append(
    picture(item),
    element("span", { class: "title" }, item.title ?? `Product ${item.id}`),
    element("span", { class: "facts" }, facts.filter(Boolean).join(" · ")),
  );
  if (scored) button.append(element("span", { class: "score", title: "the ranker's probability of a click" }, number(item.score, 3)));
  button.addEventListener("click", () => clicked(item, button));
  return element("li", {}, button);
}

function fill(list, items, scored = false) {
  list.replaceChildren(...items.map((item) => card(item, scored)));
}

// ---- asking

function notice(kind, text, again) {
  const box = $("notice");
  box.hidden = !text;
  box.className = `notice ${kind}`;
  box.replaceChildren(text ?? "");
  if (again) {
    const button = element("button", { type: "button" }, "Try again");
    button.addEventListener("click", again);
    box.append(" ", button);
  }
}

async function recommend(trace = newTrace()) {
  clearTimeout(state.again);
  const asked = ++state.asked;
  const list = $("recommended");
  list.setAttribute("aria-busy", "true");
  const started = performance.now();
  try {
    const answer = await ask(`/recommendations?${visit()}`, { headers: { traceparent: trace } });
    if (asked !== state.asked) return;
    const took = performance.now() - started;
    fill(list, answer.items, answer.release != null);
    $("recommended-empty").hidden = answer.items.length > 0;
    $("answer-meta").textContent =
      `${milliseconds(took)} · ${answer.release ? `release ${answer.release}` : "no release"}`;
    if (answer.degraded) {
      const why = REASONS[answer.reason] ?? answer.reason ?? "something does not answer";
      const what = answer.release == null ? "These are popular products" : "These are not as good as they could be";
      state.again = setTimeout(() => recommend(), AFTER_DEGRADED);
      notice("degraded", `${what}: ${why}. It mends by itself.`, () => refresh());
    } else {
      notice("", null);
    }
  } catch (error) {
    if (asked !== state.asked) return;
    list.replaceChildren();
    $("answer-meta").textContent = "";
    notice("failed", `No recommendations: ${error.message}.`, () => refresh());
    if (error.status === 401) $("notice").replaceChildren(keyForm(() => location.reload()));
  } finally {
    if (asked === state.asked) list.removeAttribute("aria-busy");
  }
  if (!$("panel").hidden) explain();
}

async function describe() {
  const user = visitor();
  const who = $("who");
  if (user === GUEST) {
    who.textContent = "An anonymous guest: only the device and the hour are known, and clicks are not kept for anybody.";
    return;
  }
  try {
    const known = await ask(`/users/${user}`);
    if (visitor() !== user) return;
    const features = Object.entries(known.features ?? {}).map(([name, value]) => said(name, value));
    const recent = known.recent_items.slice(0, 5).map((item) => item.title ?? `product ${item.id}`);
    who.textContent =
      `User ${user}: ${known.known ? features.join(", ") || "known" : "unknown to the store, a cold start"}` +
      (recent.length ? `. Lately: ${recent.join(", ")}.` : ".");
  } catch {
    who.textContent = `User ${user}.`;
  }
}

async function rows() {
  const popular = ask(`/popular?k=${SHOWN}`)
    .then((answer) => fill($("popular"), answer.items))
    .catch((error) => $("popular").replaceChildren(element("li", { class: "empty" }, `Popular products: ${error.message}.`)));
  const list = state.categories;
  const first = list.length ? list[0].column : null;
  const sections = await Promise.all(list.filter((category) => category.column === first).slice(0, 6).map(async (category) => {
    const answer = await ask(`/items?category=${encodeURIComponent(`${category.column}:${category.value}`)}&k=${SHOWN}`).catch(() => ({ items: [] }));
    const id = `category-${category.value}`;
    const cards = element("ol", { class: "cards", "data-category": category.value });
    fill(cards, answer.items);
    return element("section", { class: "row", "aria-labelledby": id }, element("h2", { id }, category.name), cards);
  }));
  $("categories").replaceChildren(...sections);
  await popular;
}

function refresh(trace) {
  describe();
  return recommend(trace);
}

async function clicked(item, button) {
  const user = visitor();
  // The click and the answer that follows it.
  const trace = newTrace();
  button.disabled = true;
  try {
    const event = { user_id: user, item_id: item.id, type: "click" };
    if (device() !== "") event.device_type = Number(device());
    const headers = { "content-type": "application/json", traceparent: trace };
    await ask("/events", { method: "POST", headers, body: JSON.stringify(event) });
  } catch (error) {
    button.disabled = false;
    notice("failed", `The click was not recorded: ${error.message}.`, () => clicked(item, button));
    return;
  }
  $("spoken").textContent = `${item.title ?? `Product ${item.id}`} noted.`;
  if (user === GUEST) {
    button.disabled = false;
    return;
  }
  const list = button.closest("ol");
  const next = (button.parentElement.nextElementSibling ?? button.parentElement.previousElementSibling)?.querySelector("button");
  for (const other of document.querySelectorAll(`.card[data-id="${item.id}"]`)) {
    other.parentElement.classList.add("gone");
    setTimeout(() => other.parentElement?.remove(), 180);
  }
  next?.focus();
  const place = next ? [...list.children].indexOf(next.parentElement) : 0;
  setTimeout(async () => {
    await refresh(trace);
    // The row was made anew: the keyboard stays where it was.
    if (list.id === "recommended" && document.activeElement === document.body) {
      (list.children[Math.max(0, place - 1)] ?? list.firstElementChild)?.querySelector("button")?.focus();
    }
  }, AFTER_CLICK);
}

// ---- why this

function table(head, lines, caption) {
  const of = (tag) => (cells) => element("tr", {}, ...cells.map((cell) => (cell instanceof Node ? element(tag, {}, cell) : element(tag, {}, String(cell ?? "–")))));
  return element("div", { class: "scroll" },
    element("table", {}, element("caption", {}, caption), element("thead", {}, of("th")(head)), element("tbody", {}, ...lines.map(of("td")))));
}

const shown = (value) => (typeof value === "number" && !Number.isInteger(value) ? number(value, 3) : value ?? "–");

function stages(explained) {
  const slowest = Math.max(...explained.stages.map((stage) => stage.milliseconds), 0.001);
  const lines = explained.stages.map((stage) => {
    const preview = [...stage.outputs].map((tensor) => `${tensor.name} [${tensor.shape}] ${tensor.preview.slice(0, 5).map(shown).join(", ")}${tensor.preview.length > 5 ? " …" : ""}`);
    const details = element("details", {}, element("summary", {}, stage.step), ...preview.map((line) => element("div", { class: "tensor" }, line)));
    const width = `${Math.max(1, (100 * stage.milliseconds) / slowest)}%`;
    const bar = element("span", { class: "bar" });
    bar.style.width = width;
    return [details, stage.backend || "ensemble", stage.items_in, stage.items_out, element("span", { class: "timed" }, bar, milliseconds(stage.milliseconds))];
  });
  return table(["stage", "backend", "items in", "out", "time"], lines, "What each stage made of it");
}

function funnel(explained) {
  const of = (step) => explained.stages.find((stage) => stage.step === step);
  const steps = [
    ["retrieved", of("faiss_retrieval")?.items_out],
    ["not seen yet", of("filter_seen_items")?.items_out],
    ["ranked", of("dlrm_ranking")?.items_out],
    ["shown", explained.items.length],
  ].filter(([, count]) => count != null);
  return bars(steps, "From candidates to the row");
}

function features(explained) {
  const { raw, named, encoded } = explained.user_features;
  const stored = (name) => (named[name] === raw[name] ? shown(raw[name]) : `${named[name]} (${shown(raw[name])})`);
  const names = [...new Set([...Object.keys(raw), ...Object.keys(encoded)])];
  return table(["feature", "in the store", "as the model gets it"], names.map((name) => [name, stored(name), shown(encoded[name])]), "What is known of the visitor");
}

function hidden(explained) {
  const list = explained.hidden_by_seen_filter;
  if (!list.length) return element("p", {}, "Nothing was hidden as seen.");
  const titles = list.slice(0, 12).map((item) => item.title ?? `product ${item.id}`).join(", ");
  return element("p", {}, element("strong", {}, `${list.length} hidden as seen: `), titles, list.length > 12 ? " …" : "");
}

async function explain(item) {
  const query = visit();
  if (item !== undefined) query.set("item_id", item);
  try {
    const explained = await ask(`/explain?${query}`);
    if (item !== undefined) {
      $("ask-says").textContent = explained.asked.sentence;
      return;
    }
    const lines = explained.items.map((line) => [line.rank, line.title ?? line.id, number(line.score, 4), line.retrieval_rank ?? "popular"]);
    $("panel-body").replaceChildren(
      funnel(explained),
      stages(explained),
      features(explained),
      hidden(explained),
      table(["rank", "product", "score", "rank in retrieval"], lines, "The shown products"),
    );
    $("ask-items").replaceChildren(...[...state.items.values()].map((known) => element("option", { value: known.id }, known.title ?? "")));
  } catch (error) {
    (item === undefined ? $("panel-body") : $("ask-says")).replaceChildren(`No explanation: ${error.message}.`);
  }
}

// ---- controls

function toggle(open) {
  $("panel").hidden = !open;
  $("why").setAttribute("aria-expanded", String(open));
  if (open) explain();
  else $("why").focus();
}

function moved(event) {
  const button = event.target.closest?.(".card");
  if (!button) return;
  const way = { ArrowRight: "nextElementSibling", ArrowLeft: "previousElementSibling" }[event.key];
  if (!way) return;
  const next = button.parentElement[way]?.querySelector("button");
  if (next) {
    event.preventDefault();
    next.focus();
    next.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
}

async function users() {
  const answer = await ask("/users?k=30").catch(() => ({ users: [] }));
  const option = ({ user_id, features: of }) => {
    const about = Object.entries(of ?? {}).filter(([name]) => name !== "user_id").slice(0, 3).map(([name, value]) => said(name, value));
    return element("option", { value: user_id }, `${user_id}${about.length ? ` (${about.join(", ")})` : ""}`);
  };
  $("user").replaceChildren(...answer.users.map(option));
  const wanted = new URLSearchParams(location.search).get("user");
  if (wanted && /^-?\d+$/.test(wanted)) {
    if (![...$("user").options].some((known) => known.value === wanted)) $("user").prepend(element("option", { value: wanted }, wanted));
    $("user").value = wanted;
  }
  if (!$("user").options.length) document.querySelector("input[name=visitor][value=guest]").checked = true;
}

function changed() {
  $("hour").disabled = $("now").checked;
  $("hour-says").textContent = $("now").checked ? "now" : `${$("hour").value.padStart(2, "0")}:00 UTC`;
  $("user").disabled = document.querySelector("input[name=visitor]:checked").value !== "known";
  $("reset").disabled = visitor() === GUEST;
  refresh();
}

async function start() {
  state.categories = await ask("/categories").catch(() => []);
  await users();
  for (const input of document.querySelectorAll(".controls input, .controls select")) {
    input.addEventListener(input.type === "range" ? "input" : "change", () => {
      clearTimeout(state.later);
      if (input.value === "new" && input.name === "visitor") state.newId = null;
      state.later = setTimeout(changed, input.type === "range" ? 120 : 0);
    });
  }
  $("reset").addEventListener("click", async () => {
    try {
      await ask(`/users/${visitor()}/seen`, { method: "DELETE" });
      $("spoken").textContent = "Forgotten.";
      await Promise.all([refresh(), rows()]);
    } catch (error) {
      notice("failed", `Not forgotten: ${error.message}.`);
    }
  });
  $("why").addEventListener("click", () => toggle($("panel").hidden));
  $("close-panel").addEventListener("click", () => toggle(false));
  $("panel").addEventListener("keydown", (event) => event.key === "Escape" && toggle(false));
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    explain($("ask-item").value.trim());
  });
  document.querySelector("main").addEventListener("keydown", moved);
  changed();
  rows();
}

start();
