// Lets a page answer: charts, table and legend show the same point; the table sorts; commands are copied.
// Without it the page is complete.
"use strict";
{
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (name, text, more = {}) => Object.assign(document.createElement(name), { textContent: text }, more);
  const points = JSON.parse(document.getElementById("data").textContent)?.points;

  const copy = async (button, code) => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "copied";
    } catch {  // not from every file://: then it is marked, and Ctrl+C is one key
      getSelection().selectAllChildren(code);
      button.textContent = "Ctrl+C";
    }
    setTimeout(() => { button.textContent = "copy"; }, 2000);
  };
  for (const box of all(".command")) {
    const button = make("button", "copy", { type: "button", className: "copy" });
    button.addEventListener("click", () => copy(button, box.querySelector("code")));
    box.classList.add("copies");
    box.append(button);
  }

  const sort = (table, head) => {
    const place = [...head.parentNode.children].indexOf(head);
    const falls = head.getAttribute("aria-sort") === "ascending";
    const key = (row) => {
      const cell = row.children[place];
      return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent.trim();
    };
    const compare = (a, b) => {
      if (a === "" || b === "") return (a === "") - (b === "");  // unknown comes last, either way
      const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
      return falls ? -order : order;
    };
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
    all("th", table).forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", falls ? "descending" : "ascending");
  };
  for (const table of all("table.sortable")) {
    for (const head of all("th", table)) {
      const button = make("button", head.textContent, { type: "button" });
      head.replaceChildren(button);
      button.addEventListener("click", () => sort(table, head));
    }
  }

  if (points) {
    const marked = "[data-point]";
    const of = (node) => Number(node.dataset.point);
    const chosen = new Set();
    const about = document.querySelector(".about");
    const hint = "Hover over a point, or reach it with Tab and the arrow keys; click or Enter chooses it, Escape clears.";

    const activate = (number) => {
      all(".is-active").forEach((node) => node.classList.remove("is-active"));
      if (number !== null) all(`[data-point="${number}"]`).forEach((node) => node.classList.add("is-active"));
      if (about) about.textContent = number === null ? hint : points[number].about;
    };

    const tools = make("div", "", { className: "tools" });
    const search = make("input", "", { type: "search", placeholder: "filter points, as lr=1e-3" });
    search.setAttribute("aria-label", "filter points");
    const only = make("button", "chosen only", { type: "button" });
    const clear = make("button", "clear", { type: "button" });
    const count = make("span", "", { role: "status" });
    tools.append(search, only, clear, count);
    document.querySelector(".points .scroll")?.before(tools);

    const kept = new Set();  // `key=value` of pressed legend buttons: any value of a key, every key
    const legendLets = (point) => {
      const keys = new Set([...kept].map((term) => term.split("=")[0]));
      return [...keys].every((key) => point.keys.some((term) => term.split("=")[0] === key && kept.has(term)));
    };
    const matches = (point, word) => `${point.label} ${point.state}`.toLowerCase().includes(word);
    const show = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const pressed = only.getAttribute("aria-pressed") === "true" && chosen.size > 0;
      const seen = points.map((point, i) => words.every((word) => matches(point, word)) && legendLets(point) && (!pressed || chosen.has(i)));
      for (const node of all(marked)) {
        const number = of(node);
        node.classList.toggle("is-chosen", chosen.has(number));
        if (node.matches("tr, li")) node.hidden = !seen[number];
        else node.classList.toggle("is-dim", !seen[number]);
        if (node.matches(".mark")) node.setAttribute("aria-pressed", chosen.has(number));
      }
      for (const button of all(".legend button")) button.setAttribute("aria-pressed", kept.has(button.dataset.filter));
      only.setAttribute("aria-pressed", pressed);
      only.disabled = chosen.size === 0;
      const shown = seen.filter(Boolean).length;
      count.textContent = `${shown} of ${points.length} points${chosen.size ? `, ${chosen.size} chosen` : ""}`;
    };
    const choose = (number) => {
      if (!chosen.delete(number)) chosen.add(number);
      show();
    };
    const reset = () => {
      search.value = "";
      only.setAttribute("aria-pressed", false);
      chosen.clear();
      kept.clear();
      show();
    };
    search.addEventListener("input", show);
    clear.addEventListener("click", reset);
    only.addEventListener("click", () => {
      only.setAttribute("aria-pressed", only.getAttribute("aria-pressed") !== "true");
      show();
    });

    for (const item of all(".legend li")) {
      const button = make("button", "", { type: "button" });
      button.append(...item.childNodes);
      button.dataset.filter = item.dataset.filter;
      item.append(button);
      button.addEventListener("click", () => {
        if (!kept.delete(button.dataset.filter)) kept.add(button.dataset.filter);
        show();
      });
    }

    // One stop for Tab in each chart; arrows go from point to point, from left to right.
    for (const chart of all(".chart.interactive")) {
      const across = (mark) => mark.transform.baseVal.getItem(0).matrix.e;
      const marks = all(".mark", chart).sort((a, b) => across(a) - across(b));
      marks.forEach((mark, i) => {
        const title = mark.querySelector("title");
        mark.setAttribute("aria-label", title.textContent);
        title.remove();  // or the browser shows it beside our own words
        mark.setAttribute("role", "button");
        mark.setAttribute("tabindex", i ? -1 : 0);
      });
      chart.addEventListener("keydown", (event) => {
        const at = marks.indexOf(event.target);
        const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
        if (at < 0) return;
        if (event.key === "Enter" || event.key === " ") choose(of(event.target));
        else if (step) marks[(at + step + marks.length) % marks.length].focus();
        else return;
        event.preventDefault();
      });
      chart.addEventListener("focusin", (event) => {
        const mark = event.target.closest(".mark");
        if (!mark) return;
        marks.forEach((other) => other.setAttribute("tabindex", other === mark ? 0 : -1));
      });
    }
    for (const kind of ["mouseover", "focusin"]) {
      document.addEventListener(kind, (event) => {
        const node = event.target.closest?.(marked);
        activate(node ? of(node) : null);
      });
    }
    document.addEventListener("click", (event) => {
      const node = event.target.closest?.(".mark, tr[data-point], .course, .multiples li");
      if (node && !String(getSelection())) choose(of(node));
    });
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") reset(); });
    if (about) about.hidden = false;
    activate(null);
    show();
  }
}
