// The shop's pages in a real browser, before a real gateway, updater, Triton and Valkey.
//
// `tests/server/storefront.rs` starts these and runs this file with Node's own test runner. In the environment:
//   SHOP             address of the gateway
//   TRITON_PROCESS   process id of Triton, which is frozen for a while
//   KNOWN_USER       a user of the store
//   PLAYWRIGHT       folder that playwright-core is installed in
//   CHROMIUM         the browser
//   SCREENSHOTS      folder for pictures of the pages

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, test } from "node:test";

const { SHOP, TRITON_PROCESS, KNOWN_USER, PLAYWRIGHT, CHROMIUM, SCREENSHOTS } = process.env;
const { chromium } = createRequire(join(PLAYWRIGHT, "index.js"))("playwright-core");

const ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const CARDS = "#recommended .card";
// Time that a click may take to show in the row.
const SECOND = 1000;

let browser;

before(async () => {
  mkdirSync(SCREENSHOTS, { recursive: true });
  browser = await chromium.launch({ executablePath: CHROMIUM, args: ARGUMENTS });
});

after(() => browser?.close());

/** A page of a new visitor's browser; whatever goes wrong in it fails the test. */
async function open(path, use, viewport = { width: 1280, height: 900 }) {
  const context = await browser.newContext({ viewport });
  const page = await context.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  // What the pages' policy forbids is not there, and the browser says so here alone.
  page.on("console", (message) => {
    if (message.text().includes("Content Security Policy")) errors.push(message.text());
  });
  try {
    await page.goto(SHOP + path);
    await use(page, context);
  } finally {
    await context.close();
  }
  assert.deepEqual(errors, []);
}

const shown = (page) => page.$$eval(CARDS, (cards) => cards.map((card) => Number(card.dataset.id)));

/**
 * Waits for a row that `fits`, as long as `within` milliseconds. One that stands in for recommendations, as on a busy machine the first may,
 * is soon asked for anew, and so does not count.
 */
async function row(page, fits, within = 10 * SECOND) {
  const until = Date.now() + within;
  for (;;) {
    const ids = await shown(page);
    const busy = await page.$("#recommended[aria-busy], #notice.degraded:not([hidden])");
    if (!busy && fits(ids)) return ids;
    assert.ok(Date.now() < until, `the row is ${ids}`);
    await page.waitForTimeout(20);
  }
}

const full = (ids) => ids.length === 10;

/** Does something that makes the page ask anew, and gives the row that comes of it. */
async function changed(page, act) {
  const answered = page.waitForResponse((response) => response.url().includes("/recommendations"));
  await act();
  await answered;
  return row(page, full);
}

async function hour(page, value) {
  await page.locator("#now").setChecked(false);
  await page.locator("#hour").fill(String(value));
}

test("a known user gets ten products with titles, scores and the release", async () => {
  await open(`/?user=${KNOWN_USER}`, async (page) => {
    // Whoever comes first finds a Triton that has not warmed up; the page asks again by itself.
    await page.locator("#recommended .score").first().waitFor();
    const first = page.locator(CARDS).first();
    assert.match(await first.locator(".title").innerText(), /\w{3,}/);
    assert.match(await first.locator(".score").innerText(), /^[01]\.\d{3}$/);
    assert.match(await page.locator("#answer-meta").innerText(), /release /);
    await page.locator("#who", { hasText: new RegExp(`User ${KNOWN_USER}: .*age`) }).waitFor({ timeout: 10 * SECOND });
    await page.locator("#categories .cards .card").first().waitFor();
    assert.ok((await page.locator("#popular .card").count()) >= 5);
    await page.screenshot({ path: join(SCREENSHOTS, "known-user.png"), fullPage: true });
  });
});

test("for a new id the row changes with device and hour", async () => {
  await open("/", async (page) => {
    await row(page, full);
    await changed(page, () => page.check("input[value=new]"));
    assert.match(await page.locator("#who").innerText(), /unknown to the store, a cold start/);
    const rows = [];
    for (const device of ["0", "1"]) {
      await changed(page, () => page.check(`input[name=device][value="${device}"]`));
      for (const at of [8, 21]) {
        await changed(page, () => hour(page, at));
        rows.push((await shown(page)).join());
      }
    }
    const [phoneMorning, phoneEvening, desktopMorning, desktopEvening] = rows;
    assert.notEqual(phoneMorning, desktopMorning);
    assert.notEqual(phoneEvening, desktopEvening);
    assert.ok(phoneMorning !== phoneEvening || desktopMorning !== desktopEvening, "the hour changes nothing");
  });
});

test("what was clicked never returns", async () => {
  await open("/", async (page) => {
    await row(page, full);
    await changed(page, () => page.check("input[value=new]"));
    const user = (await page.locator("#who").innerText()).match(/User (\d+)/)[1];
    const clicked = [];
    for (let click = 0; click < 5; click += 1) {
      const [id] = await shown(page);
      await changed(page, () => page.locator(CARDS).first().click());
      clicked.push(id);
      await row(page, (ids) => full(ids) && !ids.some((shown) => clicked.includes(shown)));
    }
    await page.goto(`${SHOP}/?user=${user}`);
    const ids = await row(page, full);
    assert.ok(!ids.some((id) => clicked.includes(id)), `${clicked} in ${ids}`);
    // It comes with another answer than the row.
    await page.locator("#who", { hasText: "Lately: " }).waitFor({ timeout: 10 * SECOND });
    // Forgotten, it comes back.
    await changed(page, () => page.click("#reset"));
    assert.doesNotMatch(await page.locator("#who").innerText(), /Lately: /);
    await row(page, (ids) => ids.some((id) => clicked.includes(id)));
  });
});

test("a few clicks in one category shift a known user's row within a second", async () => {
  await open(`/?user=${KNOWN_USER}`, async (page) => {
    await row(page, full);
    await page.click("#reset");
    await page.waitForTimeout(500);
    const of = (ids) => Promise.all(ids.map((id) => page.evaluate(async (id) => (await (await fetch(`/items/${id}`)).json()).categories.category_l1, id)));
    const count = async (ids, category) => (await of(ids)).filter((found) => String(found) === String(category)).length;
    const start = await row(page, full);
    // A category that the row has some of, or else none.
    const rows = await page.$$eval("#categories .row", (sections) => sections.map((section) => ({ name: section.querySelector("h2").innerText, ids: [...section.querySelectorAll(".card")].map((card) => Number(card.dataset.id)) })));
    const counted = await Promise.all(rows.map(async (one) => ({ ...one, before: await count(start, one.name) })));
    // Which products there are depends on the hour and the day at which the test runs.
    const [chosen] = counted.filter((one) => one.ids.length >= 4 && one.before <= 4).sort((left, right) => right.before - left.before);
    // What is clicked leaves the row: counted are the category's other products.
    const inRow = (id) => start.includes(id);
    const clicked = [...chosen.ids].sort((left, right) => inRow(right) - inRow(left)).slice(0, 4);
    const before = await count(start.filter((id) => !clicked.includes(id)), chosen.name);
    for (const id of clicked.slice(0, 3)) {
      await changed(page, () => page.locator(`#categories .card[data-id="${id}"]`).first().click());
    }
    const last = page.locator(`#categories .card[data-id="${clicked[3]}"]`).first();
    const stored = page.waitForResponse((response) => response.url().endsWith("/events"));
    await last.click();
    await stored;
    const since = Date.now();
    await page.waitForResponse((response) => response.url().includes("/recommendations"));
    await row(page, (ids) => full(ids) && ids.join() !== start.join(), SECOND);
    const took = Date.now() - since;
    const now = await count(await shown(page), chosen.name);
    assert.ok(now > before, `${chosen.name}: ${before} before, ${now} after`);
    assert.ok(took < SECOND, `${took} ms`);
    assert.match(await page.locator("#who").innerText(), new RegExp(`top category ${chosen.name}`));
    await page.screenshot({ path: join(SCREENSHOTS, "shifted.png") });
    await page.click("#reset");
    await page.waitForTimeout(300);
  });
});

test("why this: stages, features, what was hidden, and any product's fate", async () => {
  await open(`/?user=${KNOWN_USER}`, async (page) => {
    const ids = await row(page, full);
    await page.click("#why");
    await page.locator("#panel details").first().waitFor();
    // The 14 steps but for the lookup of embeddings, which this shop has none of.
    assert.equal(await page.locator("#panel details").count(), 13);
    const text = await page.locator("#panel").innerText();
    for (const part of ["faiss_retrieval", "dlrm_ranking", "retrieved", "not seen yet", "age_norm", "rank in retrieval"]) assert.ok(text.includes(part), part);
    await page.fill("#ask-item", String(ids[2]));
    await page.click("#ask button");
    await page.waitForFunction(() => document.querySelector("#ask-says").textContent.includes("is shown at place 3"));
    await page.fill("#ask-item", "1");
    await page.click("#ask button");
    await page.waitForFunction(() => document.querySelector("#ask-says").textContent.includes("not in the catalogue"));
    await page.screenshot({ path: join(SCREENSHOTS, "why-this.png"), fullPage: true });
  });
});

test("the keyboard is enough", async () => {
  await open("/", async (page) => {
    await row(page, full);
    await changed(page, () => page.check("input[value=new]"));
    const before = await shown(page);
    await page.locator(CARDS).first().focus();
    await page.keyboard.press("ArrowRight");
    const focused = () => page.evaluate(() => Number(document.activeElement.dataset.id));
    assert.equal(await focused(), before[1]);
    await changed(page, () => page.keyboard.press("Enter"));
    await row(page, (ids) => full(ids) && !ids.includes(before[1]));
    assert.ok(await page.evaluate(() => document.activeElement !== document.body), "the focus is not lost");
    await page.focus("#why");
    await page.keyboard.press("Enter");
    await page.locator("#panel details").first().waitFor();
    await page.focus("#close-panel");
    await page.keyboard.press("Escape");
    assert.ok(await page.locator("#panel").isHidden());
    assert.equal(await page.evaluate(() => document.activeElement.id), "why");
  });
});

test("one who has seen it all is told so", async () => {
  await open("/", async (page) => {
    await row(page, full);
    await changed(page, () => page.check("input[value=new]"));
    const user = Number((await page.locator("#who").innerText()).match(/User (\d+)/)[1]);
    await page.evaluate(async (user) => {
      const { items } = await (await fetch("/popular?k=100")).json();
      const ids = new Set(items.map((item) => item.id));
      for (const { column, value } of await (await fetch("/categories")).json()) {
        const row = await (await fetch(`/items?category=${column}:${value}&k=100`)).json();
        row.items.forEach((item) => ids.add(item.id));
      }
      const events = [...ids].map((item_id) => ({ user_id: user, item_id, type: "view" }));
      await fetch("/events", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(events) });
    }, user);
    await page.waitForTimeout(SECOND);
    await page.goto(`${SHOP}/?user=${user}`);
    await row(page, (ids) => ids.length === 0);
    await page.locator("#recommended-empty").waitFor({ state: "visible" });
    await page.screenshot({ path: join(SCREENSHOTS, "empty.png") });
  });
});

test("a gateway out of reach is said, and asked again on demand", async () => {
  await open(`/?user=${KNOWN_USER}`, async (page, context) => {
    await row(page, full);
    await context.setOffline(true);
    await page.check("input[name=device][value='2']");
    await page.locator("#notice.failed").waitFor();
    assert.match(await page.locator("#notice").innerText(), /cannot be reached/);
    await page.screenshot({ path: join(SCREENSHOTS, "failed.png") });
    await context.setOffline(false);
    await changed(page, () => page.click("#notice button"));
    assert.ok(await page.locator("#notice").isHidden());
  });
});

test("a Triton that hangs leaves popular products, marked so, and comes back", async () => {
  await open(`/?user=${KNOWN_USER}`, async (page) => {
    await row(page, full);
    const process_id = Number(TRITON_PROCESS);
    process.kill(process_id, "SIGSTOP");
    try {
      await page.check("input[name=device][value='1']");
      await page.locator("#notice.degraded").waitFor();
      assert.ok((await shown(page)).length > 0, "popular products are shown");
      await page.screenshot({ path: join(SCREENSHOTS, "degraded.png") });
    } finally {
      process.kill(process_id, "SIGCONT");
    }
    const until = Date.now() + 10 * SECOND;
    while (await page.locator("#notice").isVisible()) {
      assert.ok(Date.now() < until, "recommendations do not come back");
      await changed(page, () => page.click("#notice button"));
    }
  });
});

test("a phone shows everything without scrolling sideways", async () => {
  await open(`/?user=${KNOWN_USER}`, async (page) => {
    await row(page, full);
    const [wide, has] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok(wide <= has, `${wide} of ${has}`);
    await page.screenshot({ path: join(SCREENSHOTS, "phone.png") });
  }, { width: 390, height: 844 });
});

test("operators see parts, traffic, stages and releases", async () => {
  await open("/operators", async (page) => {
    await page.locator(".part.up").nth(1).waitFor();
    await page.evaluate(async (user) => {
      for (let ask = 0; ask < 30; ask += 1) await fetch(`/recommendations?user_id=${user}`);
    }, KNOWN_USER);
    await page.locator("#steps th", { hasText: "dlrm_ranking" }).waitFor();
    await page.waitForFunction(() => [...document.querySelectorAll("#traffic .key")].some((key) => /recommendations [1-9]/.test(key.textContent)));
    assert.equal(await page.locator("#releases tr.serving").count(), 1);
    assert.ok((await page.locator("#traffic svg path").count()) >= 5);
    await page.screenshot({ path: join(SCREENSHOTS, "operators.png"), fullPage: true });
  });
});
