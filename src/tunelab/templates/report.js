(function () {
  "use strict";

  // --- tables: a heading sorts by its column; cells without a value stay last ---
  function key(row, column, asText) {
    const cell = row.children[column];
    if (asText) return cell.textContent.trim().toLowerCase();
    return cell.dataset.sort === undefined ? null : Number(cell.dataset.sort);
  }

  function compare(a, b, sign) {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "string" ? a.localeCompare(b) : a - b);
  }

  document.querySelectorAll("table.sortable thead th").forEach(function (head) {
    head.querySelector("button").addEventListener("click", function () {
      const body = head.closest("table").tBodies[0];
      const asText = head.hasAttribute("data-text");
      const now = head.getAttribute("aria-sort");
      // Numbers start with the largest, names with A.
      const first = asText ? "ascending" : "descending";
      const other = asText ? "descending" : "ascending";
      const next = now === first ? other : first;
      head.parentNode.querySelectorAll("th").forEach((h) => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", next);
      const sign = next === "ascending" ? 1 : -1;
      Array.from(body.rows)
        .map((row) => [key(row, head.cellIndex, asText), row])
        .sort((a, b) => compare(a[0], b[0], sign))
        .forEach((pair) => body.appendChild(pair[1]));
    });
  });

  // --- charts: as wide as the page lets them be; colours of letters come from the style ---
  function fit(spec, width) {
    if (spec.facet) {
      const cells = spec.data.name ? spec.datasets[spec.data.name] : spec.data.values;
      const count = (field) => new Set(cells.map((c) => c[field])).size;
      const room = Math.floor((width - 150) / count("predicted"));
      const step = Math.max(16, Math.min(spec.spec.width.step, room));
      spec.spec.width = spec.spec.height = { step: step };
      const one = step * count("predicted") + (spec.spacing || 20);
      const most = Math.max(1, Math.floor((width - 130) / one));
      const methods = count("method");
      spec.columns = Math.ceil(methods / Math.ceil(methods / most));
    } else {
      spec.width = "container";
      spec.autosize = { type: "fit-x", contains: "padding" };
    }
    return spec;
  }

  const charts = document.querySelectorAll(".chart[data-spec]");
  function draw(element) {
    const spec = JSON.parse(document.getElementById(element.dataset.spec).textContent);
    const shown = fit(spec, element.clientWidth);
    element.dataset.columns = shown.columns || "";
    window
      .vegaEmbed(element, shown, {
        renderer: "svg",
        actions: { export: true, source: false, compiled: false, editor: false },
        downloadFileName: "tunelab-" + element.dataset.name,
      })
      .catch(function (error) {
        element.textContent = "This chart could not be drawn: " + error.message;
      });
  }

  if (!window.vegaEmbed) return;
  charts.forEach(draw);

  let waiting = 0;
  window.addEventListener("resize", function () {
    clearTimeout(waiting);
    waiting = setTimeout(function () {
      document.querySelectorAll(".chart[data-columns]:not([data-columns=''])").forEach(draw);
    }, 200);
  });
})();
