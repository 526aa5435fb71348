(function () {
  "use strict";

  const $ = (selector, root) => Array.from((root || document).querySelectorAll(selector));
  const values = (id) => {
    const found = document.getElementById(id);
    return found ? JSON.parse(found.textContent) : null;
  };
  $(".tools, .save").forEach((e) => (e.hidden = false));

  // --- on a telephone a row is a card: each cell says what it is ---
  $("main table").forEach(function (t) {
    if (!t.tHead) return;
    const heads = Array.from(t.tHead.rows[0].cells).map((h) => h.textContent.trim());
    $("tbody td", t).forEach((cell) => (cell.dataset.heading = heads[cell.cellIndex] || ""));
    t.classList.add("cards");
  });

  // --- tables: a heading sorts by its column; cells without a value stay last ---
  function key(row, column, asText) {
    const cell = row.children[column];
    if (asText) return (cell.dataset.value || cell.textContent).trim().toLowerCase();
    return cell.dataset.sort === undefined ? null : Number(cell.dataset.sort);
  }

  function compare(a, b, sign) {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "string" ? a.localeCompare(b) : a - b);
  }

  $("table.sortable thead th").forEach(function (head) {
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

  // --- a table that is searched: rows that hold all words ---
  $("[data-search]").forEach(function (box) {
    const rows = Array.from(document.getElementById(box.dataset.search).tBodies[0].rows);
    const count = box.closest(".tools").querySelector(".count");
    box.addEventListener("input", function () {
      const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
      rows.forEach(function (row) {
        const names = row.cells[0].textContent + " " + row.cells[1].textContent;
        row.hidden = !words.every((w) => names.toLowerCase().includes(w));
      });
      const left = rows.filter((row) => !row.hidden).length;
      count.textContent = words.length ? left + " of " + rows.length + " pairs" : "";
    });
  });

  // --- the table of results: filter, columns, CSV ---
  const table = document.getElementById("scores");

  function saveAs(name, url) {
    const link = document.createElement("a");
    link.href = url;
    link.download = name;
    document.body.appendChild(link);
    link.click();
    link.remove();
  }

  function csvCell(value) {
    let text = String(value === undefined || value === null ? "" : value);
    // A spreadsheet would run a name that starts like a formula.
    if (/^[=+\-@\t\r]/.test(text) && isNaN(Number(text))) text = "'" + text;
    return /[",\n\r]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text;
  }

  function csv() {
    const heads = Array.from(table.tHead.rows[0].cells);
    const shown = heads.map((h, i) => i).filter((i) => i && !heads[i].hidden);
    const names = (i) => ["", "_low", "_high"].map((end) => heads[i].dataset.name + end);
    const lines = [["method", "about"].concat(...shown.map(names))];
    Array.from(table.tBodies[0].rows)
      .filter((row) => !row.hidden)
      .forEach(function (row) {
        const about = row.cells[0].querySelector("small");
        const cells = shown.map(function (i) {
          const d = row.cells[i].dataset;
          return [d.sort, d.low, d.high];
        });
        lines.push([row.dataset.method, about ? about.textContent : ""].concat(...cells));
      });
    return lines.map((line) => line.map(csvCell).join(",")).join("\r\n") + "\r\n";
  }

  if (table) {
    const rows = Array.from(table.tBodies[0].rows);
    const count = document.querySelector('[data-for="scores"] .count');
    document.querySelector("[data-filter=scores]").addEventListener("input", function (event) {
      const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
      rows.forEach(function (row) {
        const text = (row.cells[0].textContent + " " + row.dataset.method).toLowerCase();
        row.hidden = !words.every((w) => text.includes(w));
      });
      const left = rows.filter((row) => !row.hidden).length;
      count.textContent = words.length ? left + " of " + rows.length + " methods" : "";
    });
    $("[data-column]").forEach(function (box) {
      box.addEventListener("change", function () {
        const name = box.dataset.column;
        const at = Array.from(table.tHead.rows[0].cells).findIndex((h) => h.dataset.name === name);
        $("tr", table).forEach((row) => (row.cells[at].hidden = !box.checked));
      });
    });
    document.querySelector("[data-csv=scores]").addEventListener("click", function () {
      const url = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
      saveAs("tunelab-results.csv", url);
      setTimeout(() => URL.revokeObjectURL(url), 1000);
    });
  }

  // A menu closes when the reader turns to something else.
  document.addEventListener("click", function (event) {
    $("details.menu[open]").forEach((m) => m.contains(event.target) || (m.open = false));
  });
  document.addEventListener("keydown", function (event) {
    if (event.key !== "Escape") return;
    $("details.menu[open]").forEach(function (m) {
      m.open = false;
      m.querySelector("summary").focus();
    });
    follow("");
  });

  // --- following a method: the bar, the table and every chart say the same ---
  const views = new Map();
  const chips = $(".follow button");
  const methods = chips.map((c) => c.dataset.method);
  let followed = "";

  function follow(method) {
    followed = method;
    chips.forEach((c) => c.setAttribute("aria-pressed", String(c.dataset.method === method)));
    $("[data-method]:not(button)").forEach(function (e) {
      e.classList.toggle("faded", Boolean(method) && e.dataset.method !== method);
    });
    views.forEach((view) => view.signal("follow", method).runAsync());
  }

  const toggle = (method) => follow(method === followed ? "" : method);
  chips.forEach((c) => c.addEventListener("click", () => toggle(c.dataset.method)));
  $("#scores tbody th").forEach(function (head) {
    head.addEventListener("click", () => toggle(head.parentNode.dataset.method));
  });

  // --- charts: laid out anew for the width they have; colours of letters come from the style ---
  const NARROW = 520;
  const LETTER = 7; // pixels of a letter of 12, about

  function valuesOf(spec, field) {
    const rows = spec.data.name ? spec.datasets[spec.data.name] : spec.data.values;
    return Array.from(new Set(rows.map((row) => row[field])));
  }

  const longest = (names) => Math.max(0, ...names.map((n) => String(n).length));

  function eachChannel(part, change) {
    Object.entries(part.encoding || {}).forEach(([name, channel]) => change(channel, name, part));
    (part.layer || (part.spec ? [part.spec] : [])).forEach((p) => eachChannel(p, change));
  }

  // Words in lines of so many letters; a single line stays a string.
  function inLines(text, letters) {
    const lines = [""];
    text.split(" ").forEach(function (word) {
      const last = lines[lines.length - 1];
      if (last && last.length + 1 + word.length > letters) lines.push(word);
      else lines[lines.length - 1] = last ? last + " " + word : word;
    });
    return lines.length > 1 ? lines : text;
  }

  // No legend wider than the page, no title of an axis longer than the axis.
  function fitWords(spec, width) {
    const inside = spec.spec || spec;
    const across = typeof inside.width === "number" ? inside.width : width - 90;
    const down = typeof inside.height === "number" ? inside.height : Infinity;
    let before = 50; // a legend begins where the plot does, after the numbers or names of its axis
    eachChannel(spec, function (channel, name) {
      if (name === "y" && channel.type === "nominal" && channel.axis) {
        before = Math.max(before, Math.min(channel.axis.labelLimit || Infinity, width * 0.42) + 20);
      }
    });
    eachChannel(spec, function (channel, name) {
      if (channel.legend && channel.scale && channel.scale.domain) {
        const one = LETTER * longest(channel.scale.domain) + 34;
        channel.legend.columns = Math.max(1, Math.min(5, Math.floor((width - before) / one)));
        channel.legend.labelLimit = width - before - 30;
      }
      if (typeof channel.title === "string" && (name === "x" || name === "y")) {
        channel.title = inLines(channel.title, (name === "x" ? across : down) / LETTER);
      }
    });
  }

  const FIT = {
    width: function (spec, width) {
      spec.width = "container";
      spec.autosize = { type: "fit-x", contains: "padding" };
      if (width >= NARROW) return;
      eachChannel(spec, function (channel, name) {
        if (name === "y" && channel.axis && channel.axis.labelLimit) {
          channel.axis.labelLimit = Math.min(channel.axis.labelLimit, Math.floor(width * 0.42));
        }
      });
    },
    // Points with their names beside them; where there is no room for that, a legend.
    labelled: function (spec, width) {
      FIT.width(spec, width);
      if (width >= NARROW) return;
      spec.layer = spec.layer.filter((l) => (l.mark.type || l.mark) !== "text");
      eachChannel(spec, function (channel) {
        if (channel.field === "name" && channel.legend === null) {
          channel.legend = { title: null, orient: "top", symbolOpacity: 1 };
        }
      });
    },
    // Squares of a fixed step, a panel a method.
    squares: function (spec, width) {
      const across = valuesOf(spec, "predicted").length;
      const names = 40 + Math.min(110, LETTER * longest(valuesOf(spec, "true")));
      const count = valuesOf(spec, "method").length;
      const gap = spec.spacing || 20;
      const beside = width < NARROW && count > 2 && (width - names) / 2 - gap > 80 ? 2 : 1;
      const room = Math.floor(((width - names) / beside - gap) / across);
      const step = Math.max(16, Math.min(spec.spec.width.step, room));
      spec.spec.width = spec.spec.height = { step: step };
      const one = step * across + gap;
      const most = Math.max(1, Math.floor((width - names) / one));
      if (step < LETTER * longest(valuesOf(spec, "predicted"))) {
        eachChannel(spec, (channel, name) => name === "x" && (channel.axis.labelAngle = -45));
      }
      spec.facet.header.labelLimit = Math.max(80, step * across + (beside > 1 ? gap - 6 : 0));
      spec.columns = Math.ceil(count / Math.ceil(count / most));
    },
    // Panels with one axis of names, as many beside each other as are still legible.
    panels: function (spec, width) {
      const gap = 26;
      const names = Math.min(LETTER * longest(valuesOf(spec, "name")) + 10, Math.floor(width * 0.38));
      const room = width - names - 20;
      const columns = Math.max(1, Math.min(3, Math.floor((room + gap) / (190 + gap))));
      spec.columns = columns;
      spec.spec.width = Math.max(100, Math.floor((room - gap * (columns - 1)) / columns) - 12);
      spec.spec.layer.forEach((l) => (l.encoding.y.axis.labelLimit = names));
      spec.facet.header.labelLimit = spec.spec.width + 10;
    },
    // Panels below each other.
    stack: function (spec, width) {
      const names = Math.min(120, LETTER * longest(valuesOf(spec, "value")) + 16);
      spec.spec.width = Math.max(120, width - names - 40);
      spec.facet.header.labelLimit = width - 20;
    },
    // One square of steps.
    grid: function (spec, width) {
      const across = spec.usermeta.across;
      const names = Math.min(150, Math.floor(width * 0.4));
      const room = Math.floor((width - names - 24) / across); // the last label of the columns leans out
      const step = Math.max(14, Math.min(spec.width.step, room));
      spec.width = { step: step };
      if (step < 28) spec.layer = spec.layer.slice(0, 1);
      eachChannel(spec, function (channel, name) {
        if (name === "y" && channel.axis) channel.axis.labelLimit = names - 10;
      });
    },
  };

  const charts = $(".chart");
  const chosen = {};

  function specOf(element, shown) {
    const variant = values("spec-" + element.dataset.name)[chosen[element.dataset.name] || 0];
    const spec = variant.spec;
    const fit = (spec.usermeta && spec.usermeta.fit) || "width";
    if (shown) {
      FIT[fit](spec, element.clientWidth);
      fitWords(spec, element.clientWidth);
    }
    return { spec: spec, variant: variant, fit: fit };
  }

  function draw(element) {
    const made = specOf(element, true);
    element.dataset.fit = made.fit;
    const figure = element.closest("figure");
    figure.querySelector("h3").textContent = made.variant.heading;
    figure.querySelector(".subtitle").textContent = made.variant.subtitle;
    const old = views.get(element);
    return window
      .vegaEmbed(element, made.spec, { renderer: "svg", actions: false, logLevel: 1 })
      .then(function (result) {
        if (old) old.finalize();
        views.set(element, result.view);
        result.view.signal("follow", followed).runAsync();
        result.view.addEventListener("click", function (event, item) {
          const datum = item && item.datum;
          const named = datum && (datum.method || (datum.datum && datum.datum.method));
          if (named && methods.includes(named)) toggle(named);
          else if (!named && followed) follow("");
        });
      })
      .catch(function (error) {
        element.textContent = "This chart could not be drawn: " + error.message;
      });
  }

  // One chart after the other, so that the page can be read and scrolled meanwhile. When the first
  // and the last were there, in milliseconds after the page was asked for, is kept on the page.
  function drawAll(left) {
    const page = document.documentElement.dataset;
    if (!left.length) {
      page.drawn = Math.round(performance.now());
      return;
    }
    draw(left[0]).then(function () {
      page.firstDrawn = page.firstDrawn || Math.round(performance.now());
      setTimeout(() => drawAll(left.slice(1)), 0);
    });
  }

  if (window.vegaEmbed) {
    drawAll(charts);
    $("select[data-choice]").forEach(function (select) {
      select.addEventListener("change", function () {
        chosen[select.dataset.choice] = Number(select.value);
        draw(document.getElementById("chart-" + select.dataset.choice));
      });
    });
    $("button[data-save]").forEach(function (button) {
      button.addEventListener("click", function () {
        const element = document.getElementById("chart-" + button.dataset.of);
        const made = specOf(element, false);
        // A picture stands alone: it keeps its title and its legend.
        made.spec.title = {
          text: made.variant.heading, subtitle: made.variant.subtitle, anchor: "start", offset: 14,
        };
        made.spec.background = button.dataset.save === "png" ? "white" : "transparent";
        const aside = document.createElement("div");
        window.vegaEmbed(aside, made.spec, { renderer: "none", actions: false })
          .then((result) => result.view.toImageURL(button.dataset.save, 2))
          .then((url) => saveAs("tunelab-" + button.dataset.of + "." + button.dataset.save, url));
      });
    });
    let waiting = 0;
    let width = window.innerWidth;
    window.addEventListener("resize", function () {
      clearTimeout(waiting);
      waiting = setTimeout(function () {
        if (window.innerWidth === width) return;
        width = window.innerWidth;
        charts.forEach(draw);
      }, 200);
    });
  } else {
    document.documentElement.dataset.drawn = "true";
  }

  // --- the mistakes ---
  const data = values("mistakes-data");
  if (data) {
    const list = document.getElementById("browse");
    const show = document.getElementById("browse-show");
    const label = document.getElementById("browse-label");
    const search = document.getElementById("browse-search");
    const more = document.getElementById("browse-more");
    const PAGE = 10;
    let visible = PAGE;

    const make = function (tag, text, name) {
      const element = document.createElement(tag);
      if (text !== undefined) element.textContent = text;
      if (name) element.className = name;
      return element;
    };
    const option = function (parent, value, text) {
      const made = make("option", text);
      made.value = value;
      parent.appendChild(made);
    };
    option(show, "any", "the most confident mistakes");
    if (data.methods.length > 1) {
      option(show, "differ", "rows where methods differ most");
      option(show, "all", "rows that every method gets wrong");
    }
    const group = make("optgroup");
    group.label = "the most confident mistakes of";
    data.names.forEach((m, i) => option(group, "of:" + i, m));
    show.appendChild(group);
    option(label, "", "any");
    data.classes.forEach((c, i) => option(label, String(i), c));

    const isWrong = (row, i) => row.said[i][0] !== row.label;
    const wrongs = (row) => row.said.filter((s) => s[0] !== row.label).length;
    const split = (row) => Math.abs(wrongs(row) - data.methods.length / 2);

    const pick = function () {
      let rows = data.rows;
      const what = show.value;
      if (what === "differ") {
        rows = rows.filter((r) => new Set(r.said.map((s) => s[0])).size > 1);
        rows = rows.slice().sort((a, b) => split(a) - split(b));
      } else if (what === "all") {
        rows = rows.filter((r) => wrongs(r) === data.methods.length);
      } else if (what.startsWith("of:")) {
        const i = Number(what.slice(3));
        rows = rows.filter((r) => isWrong(r, i)).sort((a, b) => b.said[i][2] - a.said[i][2]);
      }
      if (label.value !== "") rows = rows.filter((r) => r.label === Number(label.value));
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      if (words.length) {
        rows = rows.filter(function (r) {
          const text = (r.text + " " + r.id).toLowerCase();
          return words.every((w) => text.includes(w));
        });
      }
      return rows;
    };

    const strength = function (said, i) {
      if (data.kinds[i] === "margin") return "margin " + said[2].toFixed(2);
      return Math.round(100 * said[2]) + "%";
    };

    const item = function (row) {
      const made = make("li");
      const text = make("p", undefined, "review");
      text.dir = "auto";
      // Places count characters; a JavaScript string counts some of them twice.
      const letters = row.words.length ? Array.from(row.text) : [row.text];
      let at = 0;
      row.words.forEach(function (w) {
        text.append(letters.slice(at, w[0]).join(""));
        const mark = make("mark", letters.slice(w[0], w[1]).join(""), w[2] > 0 ? "towards" : "away");
        mark.title = (w[2] > 0 ? "+" : "") + w[2].toFixed(2) + " log odds of what it said";
        text.append(mark);
        at = w[1];
      });
      text.append(letters.slice(at).join(""));
      made.appendChild(text);
      const truth = make("p", undefined, "truth");
      truth.appendChild(make("span", row.id));
      truth.append(" true: ");
      truth.appendChild(make("strong", data.classes[row.label]));
      made.appendChild(truth);
      const said = make("ul", undefined, "said");
      row.said.forEach(function (s, i) {
        const one = make("li", undefined, s[0] === row.label ? "right" : "wrong");
        one.dataset.method = data.methods[i];
        one.appendChild(make("span", data.names[i]));
        one.append(" " + data.classes[s[0]] + " ");
        one.appendChild(make("small", strength(s, i)));
        const seeds = s[3];
        one.title =
          (s[0] === row.label ? "right" : "wrong") + ", " + s[1] + " of " + seeds +
          (seeds === 1 ? " seed says" : " seeds say") + " the same";
        if (followed && followed !== data.methods[i]) one.classList.add("faded");
        said.appendChild(one);
      });
      made.appendChild(said);
      return made;
    };

    const fill = function () {
      const rows = pick();
      list.replaceChildren(...rows.slice(0, visible).map(item));
      more.hidden = rows.length <= visible;
      document.getElementById("browse-count").textContent =
        rows.length + (rows.length === 1 ? " row" : " rows");
    };
    const anew = function () {
      visible = PAGE;
      fill();
    };
    [show, label].forEach((e) => e.addEventListener("change", anew));
    search.addEventListener("input", anew);
    more.addEventListener("click", function () {
      const at = visible;
      visible += PAGE;
      fill();
      const next = list.children[at];
      if (next) {
        next.tabIndex = -1;
        next.focus();
      }
    });
    fill();
  }

  // On paper nothing can be opened: what was said in few words is said whole.
  window.addEventListener("beforeprint", function () {
    $(".verdict details").forEach((d) => (d.open = true));
  });

  // --- where the reader is ---
  if (window.IntersectionObserver) {
    const links = new Map($("nav a").map((a) => [a.getAttribute("href").slice(1), a]));
    const seen = new Set();
    const watch = new IntersectionObserver(
      function (entries) {
        entries.forEach((e) => (e.isIntersecting ? seen.add(e.target.id) : seen.delete(e.target.id)));
        const here = Array.from(links.keys()).find((id) => seen.has(id));
        links.forEach(function (a, id) {
          if (id === here) a.setAttribute("aria-current", "true");
          else a.removeAttribute("aria-current");
        });
      },
      { rootMargin: "-15% 0px -60% 0px" }
    );
    links.forEach((a, id) => watch.observe(document.getElementById(id)));
  }
})();
