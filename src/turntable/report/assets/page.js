// What the page does beyond showing: the order of the views, the photo over the renderings, a view at pixel
// scale, and the charts. The page is complete without it, but for the charts (their numbers are in a table).
"use strict";

const page = JSON.parse(document.getElementById("page-data").textContent);
const viewsByAnchor = new Map(page.views.map((view) => [view.anchor, view]));

const scoreText = (metric, value) => `${value.toFixed(metric.digits)}${metric.unit ? ` ${metric.unit}` : ""}`;

// The order of the views

function setUpSorting() {
  const form = document.getElementById("sorting");
  const list = document.getElementById("view-list");
  const order = document.getElementById("order");
  const judged = page.runs.filter((run) => run.scored && !run.floor);
  const runs = judged.length ? judged : page.runs.filter((run) => run.scored);
  if (!runs.length || page.views.length < 2) return;
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());

  const badness = (view, metric, chosen) => {
    const values = chosen.map((run) => (view.scores[run.id] || {})[metric.name]).filter((value) => value !== undefined);
    if (!values.length) return Infinity; // never scored: first, where it is seen
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    return metric.higherIsBetter ? -mean : mean;
  };
  const byName = (a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);

  form.addEventListener("change", () => {
    const metric = page.metrics.find((one) => one.name === form.elements.metric.value);
    const one = page.runs.find((run) => run.id === form.elements.run.value);
    form.elements.run.disabled = !metric;
    const sorted = [...page.views].sort((a, b) => {
      if (!metric) return byName(a, b);
      const [worseA, worseB] = [a, b].map((view) => badness(view, metric, one ? [one] : runs));
      return worseA === worseB ? byName(a, b) : worseB - worseA;
    });
    sorted.forEach((view, index) => {
      const item = document.getElementById(view.anchor);
      item.querySelector(".rank").textContent = String(index + 1);
      list.append(item);
    });
    page.views = sorted;
    const of = one ? one.label : runs.length < page.runs.length ? "mean over the methods but the floor" : "mean over the methods";
    order.textContent = metric ? `Worst first, by ${metric.title}, ${of}.` : "In the order of their names.";
  });
}

// The photo over the renderings

function setUpSliders() {
  for (const item of document.querySelectorAll(".view")) {
    const label = item.querySelector(".slide");
    const pictures = [...item.querySelectorAll(".picture")].filter((link) => page.runs.some((run) => run.id === link.dataset.shows));
    if (!pictures.length) continue;
    label.hidden = false;
    label.querySelector("input").addEventListener("input", (event) => {
      const cut = Number(event.target.value);
      for (const link of pictures) {
        if (!link.querySelector(".cover")) {
          const cover = document.createElement("img");
          cover.className = "cover";
          cover.alt = "";
          cover.src = viewsByAnchor.get(item.id).photo.file;
          link.append(cover);
        }
        link.style.setProperty("--cut", `${cut}%`);
        link.classList.toggle("covered", cut > 0 && cut < 100);
      }
    });
  }
}

// A view at pixel scale

function setUpLarge() {
  const dialog = document.getElementById("large");
  if (typeof dialog.showModal !== "function") return; // the links open the pictures themselves
  const { left, right, zoom, previous, next } = dialog.querySelector("form").elements;
  const layers = dialog.querySelector(".layers");
  const [under, over] = ["under", "over"].map((name) => dialog.querySelector(`.${name}`));
  const slider = dialog.querySelector('input[type="range"]');
  let view = null;

  const labelOf = new Map(page.runs.map((run) => [run.id, run.label]));
  const choices = () => {
    const found = [["photo", "photo", view.photo]];
    for (const run of page.runs) {
      const pictures = view.runs[run.id];
      if (!pictures) continue;
      found.push([run.id, labelOf.get(run.id), pictures.rendering]);
      found.push([`${run.id} error`, `${labelOf.get(run.id)}, error map`, pictures.error]);
    }
    return found;
  };

  const fill = (select, wanted) => {
    const found = choices();
    select.replaceChildren(...found.map(([value, text]) => new Option(text, value)));
    select.value = found.some(([value]) => value === wanted) ? wanted : "photo";
  };

  const scoresOf = (shown) => {
    const id = shown.replace(/ error$/, "");
    const scores = view.scores[id] || {};
    const texts = page.metrics.filter((metric) => metric.name in scores).map((metric) => `${metric.title} ${scoreText(metric, scores[metric.name])}`);
    return [labelOf.get(id) || "photo", ...texts].join(" · ");
  };

  const draw = () => {
    const found = new Map(choices().map(([value, text, picture]) => [value, { text, picture }]));
    for (const [image, select] of [[over, left], [under, right]]) {
      const { text, picture } = found.get(select.value);
      image.src = picture.file;
      image.alt = `${view.name}: ${text}`;
      image.style.width = `${(picture.width * Number(zoom.value)) / window.devicePixelRatio}px`;
    }
    dialog.querySelector(".left-score").textContent = scoresOf(left.value);
    dialog.querySelector(".right-score").textContent = scoresOf(right.value);
    document.getElementById("large-name").textContent = view.name;
  };

  const show = (chosen, leftShows, rightShows) => {
    view = chosen;
    fill(left, leftShows);
    fill(right, rightShows);
    draw();
  };

  const step = (by) => {
    const at = page.views.indexOf(view);
    show(page.views[(at + by + page.views.length) % page.views.length], left.value, right.value);
  };

  document.getElementById("view-list").addEventListener("click", (event) => {
    const link = event.target.closest(".picture");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const chosen = viewsByAnchor.get(link.dataset.view);
    const first = page.runs.find((run) => chosen.runs[run.id]);
    const shows = link.dataset.shows === "photo" && first ? first.id : link.dataset.shows;
    const room = Math.min((window.innerWidth - 32) / chosen.photo.width, (window.innerHeight - 140) / chosen.photo.height) * window.devicePixelRatio;
    zoom.value = String([8, 4, 3, 2, 1].find((factor) => factor <= room) || 1);
    show(chosen, "photo", shows);
    dialog.showModal();
    slider.focus();
  });
  slider.addEventListener("input", () => layers.style.setProperty("--cut", `${slider.value}%`));
  for (const select of [left, right, zoom]) select.addEventListener("change", draw);
  previous.addEventListener("click", () => step(-1));
  next.addEventListener("click", () => step(1));
}

// The charts

function setUpCharts() {
  const places = [...document.querySelectorAll(".chart")];
  if (!places.length || typeof Plotly === "undefined") return;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  const draw = () => {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    for (const place of places) {
      const chart = page.charts[Number(place.dataset.chart)];
      const metric = page.metrics.find((one) => one.name === chart.metric);
      const traces = chart.traces.map((trace) => ({
        type: "scatter",
        mode: trace.mode,
        x: trace.x,
        y: trace.y,
        name: escapeForPlotly(trace.name),
        text: trace.text,
        line: { color: colour(`--run-${trace.slot}`), width: 2, dash: trace.dash },
        marker: { color: colour(`--run-${trace.slot}`), size: 7, symbol: trace.symbol },
        hovertemplate: `%{y:.${metric.digits}f} ${metric.unit}<br>%{x:.1f} device s, %{text}`,
      }));
      const axis = {
        gridcolor: colour("--rule"), linecolor: colour("--rule-strong"), zeroline: false, automargin: true,
        tickfont: { color: colour("--quiet") }, fixedrange: false,
      };
      Plotly.react(place, traces, {
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("--ink") },
        margin: { l: 44, r: 12, t: 12, b: 40 },
        xaxis: { ...axis, title: { text: "device seconds", font: { color: colour("--quiet"), size: 12 } }, rangemode: "tozero" },
        yaxis: axis,
        showlegend: true,
        legend: { orientation: "h", y: -0.28, x: 0 },
        hoverlabel: { bgcolor: colour("--raised"), bordercolor: colour("--rule-strong"), font: { color: colour("--ink") } },
      }, { displaylogo: false, responsive: true, displayModeBar: false });
    }
  };
  draw();
  dark.addEventListener("change", draw);
}

// Plotly reads a few tags in its texts; a method's name is text and nothing else.
function escapeForPlotly(text) {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

setUpSorting();
setUpSliders();
setUpLarge();
setUpCharts();
