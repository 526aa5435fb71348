"use strict";
(() => {
  const given = JSON.parse(document.getElementById("rows").textContent);
  const { rows, labels, study, key } = given;
  const at = (id) => document.getElementById(id);
  // Answers in the order they were given: [row, label or null], null for a row that was skipped.
  let answers = [];
  try {
    const kept = JSON.parse(localStorage.getItem(key) || "[]");
    const sound = ([row, label]) => row in rows && (label === null || label in labels);
    if (Array.isArray(kept) && kept.every((a) => Array.isArray(a) && sound(a))) answers = kept;
  } catch { /* a browser that keeps nothing, or something else was kept */ }

  const keepAnswers = () => {
    try { localStorage.setItem(key, JSON.stringify(answers)); } catch { /* it keeps nothing */ }
  };
  const current = () => {
    const answered = new Set(answers.map(([row]) => row));
    return rows.findIndex((_, i) => !answered.has(i));
  };
  const share = (p) => `${Math.round(100 * p)}%`;
  const fill = (id, text, small) => {
    at(id).textContent = text;
    if (small) {
      const aside = document.createElement("small");
      aside.textContent = small;
      at(id).append(aside);
    }
  };

  labels.forEach((label, i) => {
    const option = new Option(i < 9 ? `${i + 1}  ${label}` : label, i);
    at("new").append(option);
  });

  const changed = () => answers.filter(([row, label]) => label !== null && label !== rows[row].label);

  const show = () => {
    const i = current();
    const ended = i < 0;
    at("row").hidden = false;
    at("place").textContent = ended ? `All ${rows.length} read` : `Row ${answers.length + 1} of ${rows.length}`;
    at("done").max = rows.length;
    at("done").value = answers.length;
    for (const id of ["keep", "change", "skip", "new"]) at(id).disabled = ended;
    at("undo").disabled = !answers.length;
    if (ended) {
      fill("text", "Save your answers below, or take the last one back.");
      for (const id of ["where", "old", "likely"]) fill(id, "");
    } else {
      const row = rows[i];
      fill("text", row.text);
      fill("where", `${row.part} row ${row.id}`);
      fill("old", labels[row.label], `${share(row.of_label)} by the methods`);
      fill("likely", labels[row.likely], share(row.of_likely));
      at("new").value = row.likely;
    }
    const n = changed().length;
    const skipped = answers.filter(([, label]) => label === null).length;
    at("result").textContent =
      `${n} to change, ${answers.length - n - skipped} right as they are, ${skipped} skipped.`;
    at("save").disabled = !n;
    at("again").disabled = !answers.length;
  };
  const answer = (label) => {
    const i = current();
    if (i < 0) return;
    answers.push([i, label]);
    keepAnswers();
    show();
  };

  const actions = {
    keep: () => { const i = current(); if (i >= 0) answer(rows[i].label); },
    change: () => answer(Number(at("new").value)),
    skip: () => answer(null),
    undo: () => { answers.pop(); keepAnswers(); show(); },
    again: () => {
      if (confirm("Forget all answers?")) { answers = []; keepAnswers(); show(); }
    },
    save: () => {
      const cell = (text) => `"${String(text).replaceAll('"', '""')}"`;
      const lines = changed().map(([i, label]) =>
        [rows[i].id, rows[i].sha256, labels[rows[i].label], labels[label], study].map(cell).join(","));
      const head = given.columns.join(",");
      const file = new Blob([[head, ...lines, ""].join("\r\n")], { type: "text/csv" });
      const link = document.createElement("a");
      link.href = URL.createObjectURL(file);
      link.download = "corrections.csv";
      link.click();
      URL.revokeObjectURL(link.href);
    },
  };
  for (const [id, act] of Object.entries(actions)) at(id).addEventListener("click", act);
  const keys = { k: "keep", c: "change", s: "skip", u: "undo" };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
    const digit = Number(event.key);
    if (digit >= 1 && digit <= Math.min(9, labels.length) && current() >= 0) {
      at("new").value = digit - 1;
    } else if (event.key.toLowerCase() in keys) {
      const id = keys[event.key.toLowerCase()];
      if (!at(id).disabled) actions[id]();
    }
  });
  show();
})();
