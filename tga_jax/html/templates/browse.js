"use strict";
// Tables that scroll sideways say so; all text of answers goes in by textContent alone.
const STEP = 40;

function markScrolling() {
  for (const box of document.querySelectorAll(".scroll")) {
    box.classList.toggle("overflows", box.scrollWidth > box.clientWidth + 1);
  }
}
addEventListener("resize", markScrolling);
markScrolling();

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function startBrowser(store) {
  const data = JSON.parse(store.textContent);
  const form = document.getElementById("filters");
  const rows = document.getElementById("rows");
  const more = document.getElementById("more");
  let found = [];
  let shown = 0;

  function matches(row, want) {
    const [benchmark, scene, harmful, prompt, answers] = row;
    if (want.benchmark !== "" && benchmark !== Number(want.benchmark)) return false;
    if (want.scene !== "" && scene !== Number(want.scene)) return false;
    if (want.harmful !== "" && String(harmful) !== want.harmful) return false;
    const given = want.arm === "" ? answers : [answers[Number(want.arm)]];
    const there = given.filter((answer) => answer !== null);
    if (want.outcome === "cut" && !there.some((answer) => answer[2])) return false;
    if (want.outcome !== "" && want.outcome !== "cut"
        && !there.some((answer) => answer[1] === Number(want.outcome))) return false;
    if (want.differ === "judges" && !there.some((answer) => answer[3])) return false;
    if (want.differ === "models") {
      const all = answers.filter((answer) => answer !== null);
      if (new Set(all.map((answer) => answer[1])).size < 2) return false;
    }
    return want.text === "" || prompt.toLowerCase().includes(want.text)
      || there.some((answer) => answer[0].toLowerCase().includes(want.text));
  }

  function card(row) {
    const [benchmark, scene, harmful, prompt, answers] = row;
    const degree = harmful === null ? "" : harmful ? "harmful" : "harmless";
    const names = [data.benchmarks[benchmark], data.scenes[scene], degree];
    const made = element("article", "found");
    made.append(element("p", "where", names.filter(Boolean).join(" \u00b7 ")));
    made.append(element("p", "prompt", prompt));
    answers.forEach((answer, place) => {
      const line = element("div", "answer");
      const who = element("span", "who");
      who.append(element("span", "name", data.arms[place]));
      if (answer === null) {
        who.append(element("span", "mark plain", "was not asked this"));
        line.append(who);
      } else {
        who.append(element("span", "mark plain", data.outcomes[answer[1]]));
        if (answer[2]) who.append(element("span", "mark plain", "cut off"));
        if (answer[3]) who.append(element("span", "mark plain", "judges differ"));
        line.append(who, element("span", "said", answer[0]));
      }
      made.append(line);
    });
    return made;
  }

  function showMore() {
    const next = found.slice(shown, shown + STEP);
    rows.append(...next.map(card));
    shown += next.length;
    more.hidden = shown >= found.length;
  }

  function filter() {
    const want = Object.fromEntries(new FormData(form));
    want.text = want.text.trim().toLowerCase();
    found = data.rows.filter((row) => matches(row, want));
    const text = `${found.length.toLocaleString("en")} of ${data.rows.length.toLocaleString("en")} questions fit.`;
    document.getElementById("found").textContent = text;
    rows.replaceChildren();
    shown = 0;
    showMore();
  }

  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", showMore);
  filter();
}

const store = document.getElementById("answer-data");
const browser = document.getElementById("browser");
if (store && browser) {
  browser.addEventListener("toggle", () => startBrowser(store), { once: true });
}
