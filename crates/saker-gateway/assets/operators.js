// The operators' page: looks at /status.json every two seconds and draws what changed in between.
import { ask, element, keyForm, milliseconds, number, plot } from "./shared.js";

const $ = (id) => document.getElementById(id);
const EVERY = 2000;
// Two minutes of looks.
const KEPT = 60;
// Stages are averaged over the last looks.
const AVERAGED = 30;

const looks = [];

const rate = (now, before, of) => {
  const seconds = (now.at - before.at) / 1000;
  const count = of(now.status) - of(before.status);
  // A gateway that was started anew counts from 0.
  return seconds > 0 && count >= 0 ? count / seconds : null;
};

function over(of) {
  return looks.slice(1).map((look, place) => of(look, looks[place]));
}

function share(part, of) {
  return (now, before) => {
    const total = of(now.status) - of(before.status);
    const taken = part(now.status) - part(before.status);
    return total > 0 ? (100 * taken) / total : null;
  };
}

function traffic() {
  const requests = (status) => status.gateway.requests;
  const plots = [
    ["Requests", plot([{ name: "recommendations", values: over((now, before) => rate(now, before, requests)) }, { name: "events", values: over((now, before) => rate(now, before, (status) => status.events.accepted)) }], "/s")],
    ["Latency at the gateway", plot([{ name: "p50", values: looks.slice(1).map((look) => look.status.gateway.p50_ms) }, { name: "p99", values: looks.slice(1).map((look) => look.status.gateway.p99_ms) }], "ms")],
    ["Degraded and shed", plot([{ name: "degraded", values: over(share((status) => status.gateway.degraded, requests)) }, { name: "shed", values: over((now, before) => rate(now, before, (status) => status.gateway.shed)) }], "% and /s")],
    ["Hidden as seen", plot([{ name: "of candidates", values: over(share((status) => status.seen_filter?.hidden ?? 0, (status) => status.seen_filter?.candidates ?? 0)) }], "%")],
    ["Events waiting", plot([{ name: "in the stream", values: looks.slice(1).map((look) => look.status.events.waiting) }], "")],
  ];
  $("traffic").replaceChildren(...plots.map(([title, figure]) => element("div", {}, element("h3", {}, title), figure)));
}

// One server alone is what "Triton" says already.
const several = (servers) => (servers.length > 1 ? servers : []);

function parts(status) {
  const part = (name, ready, says, state = ready ? "ready" : "down") =>
    element("div", { class: `part ${ready ? "up" : "down"}` }, element("strong", {}, name), " ", state, says ? element("span", { class: "says" }, ` ${says}`) : "");
  const { gateway } = status;
  $("parts").replaceChildren(
    part("Triton", status.triton.ready, status.triton.ready ? status.triton.address : status.triton.reason),
    ...several(status.triton.servers ?? []).map((server) => part(server.address, server.state === "ready", `${server.requests} requests, ${server.failures} failed, ${server.in_flight} under way`, server.state)),
    part("Valkey", status.valkey.ready, status.valkey.reason),
    element("div", { class: "part" }, element("strong", {}, "Answered"), ` ${gateway.requests}`, element("span", { class: "says" }, ` ${gateway.degraded} degraded, ${gateway.shed} shed`)),
  );
}

function steps() {
  const now = looks.at(-1).status;
  const before = looks.at(-Math.min(looks.length, AVERAGED)).status;
  const earlier = new Map(before.steps.map((step) => [`${step.model}/${step.version}`, step]));
  const lines = now.steps.map((step) => {
    const old = earlier.get(`${step.model}/${step.version}`);
    const requests = step.requests - (old?.requests ?? 0);
    const mean = (of) => (requests > 0 ? (step[of] * step.requests - (old?.[of] ?? 0) * (old?.requests ?? 0)) / requests : null);
    const parts = { queue: mean("queue_us"), input: mean("input_us"), infer: mean("infer_us"), output: mean("output_us") };
    return { name: step.model, version: step.version, requests, failed: step.failed, total: mean("total_us"), parts };
  }).filter((line) => line.requests > 0);
  if (!lines.length) {
    $("steps").replaceChildren(element("p", { class: "empty" }, "No request in the last minute."));
    return;
  }
  const single = lines.filter((line) => line.parts.infer > 0 || line.parts.queue > 0);
  const most = Math.max(...single.map((line) => Object.values(line.parts).reduce((sum, value) => sum + (value ?? 0), 0)), 1);
  const rows = lines.sort((left, right) => (right.total ?? 0) - (left.total ?? 0)).map((line) => {
    const track = element("span", { class: "stack" });
    for (const [kind, value] of Object.entries(line.parts)) {
      const piece = element("span", { class: `piece ${kind}`, title: `${kind} ${number(value, 0)} µs` });
      piece.style.width = `${Math.min(100, (100 * (value ?? 0)) / most)}%`;
      track.append(piece);
    }
    return element("tr", {}, element("th", { scope: "row" }, `${line.name}`), element("td", {}, String(line.version)), element("td", {}, String(line.requests)), element("td", {}, String(line.failed)), element("td", {}, milliseconds((line.parts.queue ?? 0) / 1000)), element("td", {}, milliseconds((line.total ?? 0) / 1000)), element("td", { class: "wide" }, track));
  });
  const key = element("caption", {}, ...["queue", "input", "infer", "output"].map((kind) => element("span", { class: `key piece-${kind}` }, kind)));
  $("steps").replaceChildren(element("div", { class: "scroll" }, element("table", {}, key, element("thead", {}, element("tr", {}, ...["stage", "version", "requests", "failed", "queue", "in all", "where the time goes"].map((name) => element("th", {}, name)))), element("tbody", {}, ...rows))));
}

const date = (seconds) => (seconds ? new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ") : "–");

function releases(list) {
  const records = Array.isArray(list) ? list : (list?.releases ?? []);
  if (!records.length) {
    $("releases").replaceChildren(element("p", { class: "empty" }, "No release record is at hand: the repository is elsewhere."));
    return;
  }
  // Of the list that is served: what `saker evaluate` measured on the test part.
  const measured = (release) => release.metrics?.methods?.find((method) => method.method === "ranked list")?.list;
  const metrics = [["NDCG@10", "ndcg_10"], ["hit@10", "hit_10"], ["recall@100", "recall_100"]];
  const learned = (release) => (release.data ? `${release.data.interactions} events up to ${date(release.data.last)}` : "–");
  const head = ["release", "state", "made", "learned", ...metrics.map(([name]) => name)];
  const rows = records.map((release) =>
    element("tr", { class: release.state === "serving" ? "serving" : "" },
      element("th", { scope: "row" }, release.release ?? release.id ?? "–"), element("td", {}, release.state ?? "–"), element("td", {}, date(release.created)), element("td", {}, learned(release)),
      ...metrics.map(([, name]) => element("td", {}, number(measured(release)?.[name], 4)))));
  $("releases").replaceChildren(element("table", {}, element("thead", {}, element("tr", {}, ...head.map((name) => element("th", {}, name)))), element("tbody", {}, ...rows)));
}

async function look() {
  try {
    const status = await ask("/status.json");
    looks.push({ at: performance.now(), status });
    if (looks.length > KEPT) looks.shift();
    $("notice").hidden = true;
    parts(status);
    traffic();
    steps();
    releases(status.releases);
  } catch (error) {
    $("notice").hidden = false;
    $("notice").className = "notice failed";
    $("notice").textContent = `Nothing to show: ${error.message}. Looking again.`;
    if (error.status === 401) {
      $("notice").replaceChildren(keyForm(() => location.reload()));
      return;
    }
  }
  setTimeout(look, EVERY);
}

look();
