"use strict";
(() => {
  const LETTERS = {
    i: "identical", e: "equivalent", d: "diverged", n: "nondeterministic", f: "failed",
    u: "unrebuildable", r: "refused", t: "tampered", "-": "not run",
  };
  const KIND = { i: "good", e: "good", "-": "idle", ".": "" };
  const MOVED = {
    regressed: "a new regression", failing: "still failing", flaky: "flaky", fixed: "fixed",
    new: "never seen before", steady: "as good as before", "not-run": "was not run",
  };
  const SVG = "http://www.w3.org/2000/svg";
  const SHOWN_ROWS = 100, MOST_LINES = 2000, CONTEXT = 3, WIDEST = 1040;
  const page = JSON.parse(document.getElementById("data").textContent);
  const byId = new Map(page.runs.map((run, index) => [run.run_id, index]));
  const kindOf = (letter) => KIND[letter] ?? "bad";
  const letterOf = Object.fromEntries(Object.entries(LETTERS).map(([letter, word]) => [word, letter]));
  const many = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

  // Text is always set as text: no markup is ever made of it.
  const grow = (element, attributes, children) => {
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== ""));
    return element;
  };
  const h = (name, attributes, ...children) => grow(document.createElement(name), attributes, children);
  const s = (name, attributes, ...children) => grow(document.createElementNS(SVG, name), attributes, children);

  // --- plots -------------------------------------------------------------------------------------------------

  const told = (letters) => {
    const counts = {};
    for (const letter of letters) if (letter !== ".") counts[letter] = (counts[letter] ?? 0) + 1;
    const parts = Object.entries(counts).sort((a, b) => b[1] - a[1]).map(([letter, n]) => `${n} ${LETTERS[letter]}`);
    return `${many(page.nights.length, "night")}: ${parts.join(", ") || "never run"}`;
  };

  const width = (nights, widest) => Math.min(widest, nights * 12);

  // Bars of equal verdicts run together: a good night is low, a bad one high, one without a verdict between.
  const strip = (letters, widest = 192) => {
    const paths = { good: "", idle: "", bad: "" };
    const tops = { good: [9, 3], idle: [5, 7], bad: [0, 12] };
    for (let at = 0; at < letters.length;) {
      const kind = kindOf(letters[at]);
      let end = at + 1;
      while (end < letters.length && kindOf(letters[end]) === kind) end += 1;
      if (kind) paths[kind] += `M${at} ${tops[kind][0]}h${end - at}v${tops[kind][1]}h${at - end}z`;
      at = end;
    }
    return s("svg", {
      class: "strip", width: width(letters.length, widest), viewBox: `0 0 ${letters.length} 12`, preserveAspectRatio: "none", role: "img", "aria-label": told(letters),
    }, s("title", {}, told(letters)), Object.entries(paths).filter(([, d]) => d).map(([kind, d]) => s("path", { class: kind, d })));
  };

  const durations = (seconds) => {
    const most = Math.max(...seconds);
    const points = seconds.map((value, at) => [at, value]).filter(([, value]) => value > 0);
    if (points.length < 2) return undefined;
    const line = points.map(([at, value]) => `${at},${(20 - (18 * value) / most).toFixed(1)}`).join(" ");
    const words = `From ${Math.min(...points.map(([, v]) => v)).toFixed(1)} to ${most.toFixed(1)} s`;
    return h("div", { class: "plot" }, h("p", {}, `How long it took: ${words.toLowerCase()}`),
      s("svg", { width: width(seconds.length, WIDEST), viewBox: `0 0 ${seconds.length - 1} 21`, preserveAspectRatio: "none", role: "img", "aria-label": words },
        s("polyline", { points: line })));
  };

  // --- what differs ------------------------------------------------------------------------------------------

  // Lines that both have, by their longest common part; the beginning and end that are equal are passed over first.
  const lineDiff = (before, after) => {
    const a = before.split("\n"), b = after.split("\n");
    let head = 0, tail = 0;
    while (head < a.length && head < b.length && a[head] === b[head]) head += 1;
    while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail += 1;
    const x = a.slice(head, a.length - tail), y = b.slice(head, b.length - tail);
    if (x.length * y.length > MOST_LINES * MOST_LINES / 4) return undefined;
    const table = Array.from({ length: x.length + 1 }, () => new Uint16Array(y.length + 1));
    for (let i = x.length - 1; i >= 0; i -= 1) {
      for (let j = y.length - 1; j >= 0; j -= 1) {
        table[i][j] = x[i] === y[j] ? table[i + 1][j + 1] + 1 : Math.max(table[i + 1][j], table[i][j + 1]);
      }
    }
    const lines = a.slice(Math.max(0, head - CONTEXT), head).map((line) => [" ", line]);
    for (let i = 0, j = 0; i < x.length || j < y.length;) {
      if (i < x.length && j < y.length && x[i] === y[j]) { lines.push([" ", x[i]]); i += 1; j += 1; }
      else if (i < x.length && (j === y.length || table[i + 1][j] >= table[i][j + 1])) { lines.push(["-", x[i]]); i += 1; }
      else { lines.push(["+", y[j]]); j += 1; }
    }
    return [...lines, ...a.slice(a.length - tail, a.length - tail + CONTEXT).map((line) => [" ", line])];
  };

  const marked = ([sign, line]) =>
    sign === "+" ? [h("ins", { class: "added" }, `+ ${line}`), "\n"]
      : sign === "-" ? [h("del", { class: "removed" }, `- ${line}`), "\n"] : `  ${line}\n`;

  const cellsOf = (line, separator) => {
    const cells = [];
    let cell = "", quoted = false;
    for (let at = 0; at < line.length; at += 1) {
      if (line[at] === '"') {
        if (quoted && line[at + 1] === '"') { cell += '"'; at += 1; } else quoted = !quoted;
      } else if (line[at] === separator && !quoted) { cells.push(cell); cell = ""; } else cell += line[at];
    }
    return [...cells, cell];
  };

  // Rows by order, as long as both tables have the same head and as many rows.
  const tableDiff = (name, before, after) => {
    const separator = /\.tsv$/.test(name) ? "\t" : /\.csv$/.test(name) ? "," : undefined;
    const a = before.trimEnd().split("\n"), b = after.trimEnd().split("\n");
    if (!separator || a[0] !== b[0] || a.length !== b.length || a.length < 2) return undefined;
    const rows = a.map((line, at) => at).filter((at) => a[at] !== b[at]);
    const cell = (x, y) => h("td", {}, x === y ? x : [h("del", { class: "removed" }, x), " ", h("ins", { class: "added" }, y ?? "")]);
    const row = (at) => {
      const y = cellsOf(b[at], separator);
      return h("tr", {}, h("th", { scope: "row" }, String(at)), cellsOf(a[at], separator).map((x, column) => cell(x, y[column])));
    };
    const head = h("tr", {}, ["row", ...cellsOf(a[0], separator)].map((word) => h("th", { scope: "col" }, word)));
    return [
      h("p", { class: "soft" }, `${many(rows.length, "row")} of ${(a.length - 1).toLocaleString("en")} differ` +
        (rows.length > SHOWN_ROWS ? `; the first ${SHOWN_ROWS}` : "")),
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Rows of ${name} that differ` },
        h("table", { class: "cells" }, h("caption", {}, `Rows of ${name} that differ`), h("thead", {}, head),
          h("tbody", {}, rows.slice(0, SHOWN_ROWS).map(row)))),
    ];
  };

  const ORDER = ["original", "difference", "replay"];
  const scrolled = (name, ...children) => h("pre", { tabindex: "0", role: "region", "aria-label": name }, children);

  const side = (artifact) => {
    const file = page.files[artifact.file], caption = h("figcaption", {}, artifact.side);
    if (file.src) {
      return h("figure", {}, caption, h("img", { src: file.src, loading: "lazy", alt: `${artifact.output}, ${artifact.side}` }));
    }
    return h("figure", {}, caption, file.missing ? h("p", { class: "soft" }, file.missing)
      : scrolled(`${artifact.output}, ${artifact.side}`, file.text), whole(file));
  };
  const whole = (file) => file.whole ? h("p", {}, h("a", { href: file.whole }, "the whole text")) : undefined;

  const difference = (name, artifacts) => {
    const text = (which) => page.files[artifacts.find((one) => one.side === which && one.kind === "text")?.file];
    const before = text("original"), after = text("replay");
    if (before?.text !== undefined && after?.text !== undefined && !before.cut && !after.cut) {
      const rows = tableDiff(name, before.text, after.text);
      const lines = rows ? undefined : lineDiff(before.text, after.text);
      if (rows || lines) return rows ?? scrolled(`What differs in ${name}`, lines.map(marked));
    }
    const sorted = [...artifacts].sort((a, b) => ORDER.indexOf(a.side) - ORDER.indexOf(b.side));
    return h("div", { class: "sides" }, sorted.map(side));
  };

  // --- one run -----------------------------------------------------------------------------------------------

  const badge = (verdict) => h("span", { class: `badge ${kindOf(letterOf[verdict.replace("-", " ")])}` }, verdict.replace("-", " "));
  const section = (title, ...children) => h("section", {}, h("h2", {}, title), children);
  const items = (lines) => h("ul", { class: "plain" }, lines.map((line) => h("li", {}, line)));
  const grid = (caption, heads, rows) => h("div", { class: "scroll" }, h("table", {}, h("caption", {}, caption),
    h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))), h("tbody", {}, rows)));

  const changes = (title, list) => section(title, grid(title, ["Layer", "What", "Recorded", "Ran"], list.map((one) => h("tr", {},
    h("td", { class: "layer" }, one.layer), h("th", { scope: "row" }, one.name, one.inside ? h("small", {}, ` (${one.inside})`) : ""),
    h("td", { class: "wide" }, one.a || "absent"), h("td", { class: "wide" }, one.b || "absent")))));

  const command = (run) => {
    const code = h("code", {}, run.command), said = h("span", { role: "status" });
    const button = h("button", { type: "button" }, "Copy");
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(run.command);
        said.textContent = "copied";
      } catch {
        getSelection().selectAllChildren(code);
        said.textContent = "selected";
      }
    });
    return section("Again, by hand", h("div", { class: "command" }, code, button), h("p", { class: "soft" }, said));
  };

  const outputs = (run) => {
    const judged = run.outputs ?? [], artifacts = (run.artifacts ?? []).filter((one) => one.kind !== "log");
    if (!judged.length) return undefined;
    const rows = judged.map((one) => h("tr", {},
      h("th", { scope: "row", class: "run" }, one.path, one.detail ? h("p", { class: "why" }, one.detail) : undefined),
      h("td", { class: "verdict" }, badge(one.verdict), h("span", { class: "before" }, one.comparator)),
      h("td", { class: "past" }, strip(run.pasts[one.path] ?? ""))));
    const shown = judged.map((one) => [one.path, artifacts.filter((artifact) => artifact.output === one.path)])
      .filter(([, list]) => list.length);
    return section("Outputs", grid("Outputs", ["Output", "Verdict", "History"], rows),
      shown.map(([name, list]) => h("section", {}, h("h3", {}, name), difference(name, list))));
  };

  const logs = (run) => (run.artifacts ?? []).filter((one) => one.kind === "log").map((one) => {
    const file = page.files[one.file], folded = h("details", {}, h("summary", {}, `${one.output || "log"}, ${one.side}`));
    folded.addEventListener("toggle", () => {
      folded.append(file.missing ? h("p", { class: "soft" }, file.missing) : scrolled("log", file.text), whole(file) ?? "");
    }, { once: true });
    return folded;
  });

  const facts = (run) => {
    const rows = {
      "state": run.state_digest, "replay": run.replay, "started": run.started,
      "took": run.duration_s ? `${run.duration_s.toFixed(1)} s` : "", "worker": run.worker,
      "attempts": run.attempts > 1 ? String(run.attempts) : "", "flaky": run.flaky && rate(run.flaky),
    };
    const body = Object.entries(rows).filter(([, value]) => value)
      .map(([name, value]) => h("tr", {}, h("th", { scope: "row", class: "layer" }, name), h("td", { class: "wide mono" }, value)));
    return section("Facts", grid("Facts", [], body));
  };
  const rate = (found) => `${found.disagreed} of ${many(found.of, "replay")} disagreed; ` +
    `the rate is between ${Math.round(found.low * 100)} % and ${Math.round(found.high * 100)} % (95 %)`;

  const link = (index, words) => page.runs[index] ? h("a", { href: address(page.runs[index].run_id) }, words) : h("span");
  const address = (id) => `#run/${encodeURIComponent(id)}`;

  const opened = (index) => {
    const run = page.runs[index], printed = logs(run);
    const moved = MOVED[run.moved] + (run.before && run.before !== run.verdict ? `, was ${run.before.replace("-", " ")}` : "");
    return h("article", { "aria-labelledby": "name" },
      h("nav", { "aria-label": "Runs" }, h("a", { href: "#tonight" }, "← tonight"),
        h("span", {}, link(index - 1, "previous"), " ", link(index + 1, "next"))),
      h("h1", { id: "name", tabindex: "-1" }, run.run_id),
      h("p", { class: "state" }, badge(run.verdict), `${moved}, since ${run.since}`,
        [run.job, ...(run.labels ?? [])].map((label) => h("span", { class: "label" }, label))),
      run.error ? section("What went wrong", items([run.error.what, run.error.why, run.error.next && `next: ${run.error.next}`].filter(Boolean))) : undefined,
      run.cause?.length ? changes(run.proven ? "Cause, proven by replays both ways" : "Cause, not proven", run.cause) : undefined,
      command(run),
      run.kind?.length || run.evidence?.length
        ? section("Diagnosis", h("p", {}, (run.kind ?? []).join(", ")), items(run.evidence ?? [])) : undefined,
      run.changes?.length ? changes("What differs in the state", run.changes) : undefined,
      outputs(run),
      section("Nights", h("div", { class: "plot" }, strip(run.past, WIDEST), h("p", { class: "ends" },
        h("span", {}, page.nights[0]), h("span", {}, page.nights.at(-1))), h("p", {}, told(run.past))), durations(run.seconds)),
      printed.length ? section("Logs", printed) : undefined,
      facts(run));
  };

  // --- the list and the way about ----------------------------------------------------------------------------

  const main = document.getElementById("main"), list = document.getElementById("tonight");
  const find = document.getElementById("find"), field = document.getElementById("filter"), found = document.getElementById("found");
  const rows = [...list.querySelectorAll("section:not(.pins) tbody tr")];
  const indexOf = (row) => byId.get(row.querySelector("a").textContent);
  let last;

  const drawn = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      drawn.unobserve(target);
      target.lastElementChild.append(strip(page.runs[indexOf(target)].past));
    }
  }, { rootMargin: "300px" });
  for (const row of rows) drawn.observe(row);

  const show = () => {
    const at = location.hash.startsWith("#run/") ? byId.get(decodeURIComponent(location.hash.slice(5))) : undefined;
    document.querySelector("article")?.remove();
    list.hidden = document.querySelector("body > header").hidden = at !== undefined;
    if (at !== undefined) {
      last = at;
      main.append(opened(at));
      scrollTo(0, 0);
      document.getElementById("name").focus();
      return;
    }
    const back = last === undefined ? undefined : rows.find((row) => indexOf(row) === last)?.querySelector("a");
    last = undefined;
    if (back?.checkVisibility()) back.focus();
    else document.getElementById(location.hash.slice(1))?.scrollIntoView();
  };
  addEventListener("hashchange", show);

  const words = (run) => [run.run_id, run.job, run.verdict, run.moved, ...(run.labels ?? [])].join(" ").toLowerCase();
  let texts;
  const narrow = () => {
    texts ??= rows.map((row) => words(page.runs[indexOf(row)]));
    const wanted = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    rows.forEach((row, at) => {
      row.hidden = !wanted.every((word) => texts[at].includes(word));
      left += row.hidden ? 0 : 1;
    });
    for (const group of list.querySelectorAll("section:not(.pins)")) {
      group.hidden = !group.querySelector("tbody tr:not([hidden])");
      if (wanted.length && group.firstElementChild.localName === "details") group.firstElementChild.open = true;
    }
    found.textContent = wanted.length ? `${many(left, "run")} of ${rows.length.toLocaleString("en")}` : "";
  };
  field.addEventListener("input", narrow);

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/" && event.target !== field && !list.hidden) {
      event.preventDefault();
      field.focus();
    } else if (event.key === "Escape") {
      if (list.hidden) location.hash = "#tonight";
      else if (field.value) { field.value = ""; narrow(); } else field.blur();
    } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && !list.hidden) {
      const links = rows.map((row) => row.querySelector("a")).filter((one) => one.checkVisibility());
      const at = links.indexOf(document.activeElement), step = event.key === "ArrowDown" ? 1 : -1;
      if (at < 0 && document.activeElement !== field) return;
      event.preventDefault();
      (at + step < 0 ? field : links[at < 0 ? 0 : at + step])?.focus();
    }
  });

  find.hidden = false;
  for (const keys of document.querySelectorAll(".keys")) keys.hidden = false;
  show();
})();
