// What the page does beyond showing: the order of the views, which run of a method is seen, the photo over the renderings,
// views at pixel scale, charts, 3D views. The page is complete without it, but for the charts (their numbers are in a table).
"use strict";

const page = JSON.parse(document.getElementById("page-data").textContent);
const viewsByAnchor = new Map(page.views.map((view) => [view.anchor, view]));
const allRuns = page.contestants.flatMap((one) => one.runs.map((run) => ({ ...run, label: one.label, several: one.runs.length > 1 })));
const runsById = new Map(allRuns.map((run) => [run.id, run]));

const say = (name, values = {}) => page.texts[name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
const scoreText = (metric, value) => `${value.toFixed(metric.digits)}${metric.unit ? ` ${metric.unit}` : ""}`;
const nameOf = (run) => (run.several ? `${run.label} (${run.id})` : run.label);

// The mean over a contestant's scored runs of one view's score; undefined where it has none.
function scoreOf(view, one, metric) {
  const values = one.runs.filter((run) => run.scored).map((run) => (view.scores[run.id] || {})[metric.name]).filter((value) => value !== undefined);
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : undefined;
}

// The picture of a view that shows the photo, a run's rendering, or ("<run> error") its error map.
function pictureOf(view, shows) {
  return [...document.getElementById(view.anchor).querySelectorAll(".picture")].find((link) => link.dataset.shows === shows);
}

// The order of the views, and which run of each method is seen

function setUpSorting() {
  const form = document.getElementById("sorting");
  const list = document.getElementById("view-list");
  const order = document.getElementById("order");
  const scored = page.contestants.filter((one) => one.runs.some((run) => run.scored));
  const judged = scored.filter((one) => !one.floor);
  const contestants = judged.length ? judged : scored;
  if (!contestants.length) return;
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());

  const byName = (a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
  const badness = (view, metric, chosen) => {
    const values = chosen.map((one) => scoreOf(view, one, metric)).filter((value) => value !== undefined);
    if (!values.length) return Infinity; // never scored: first, where it is seen
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    return metric.higherIsBetter ? -mean : mean;
  };
  const disagreement = (view, metric) => {
    const values = contestants.map((one) => scoreOf(view, one, metric)).filter((value) => value !== undefined);
    return values.length > 1 ? Math.max(...values) - Math.min(...values) : -Infinity;
  };

  const sort = () => {
    const [kind, name] = form.elements.metric.value.startsWith("disagreement ")
      ? ["disagreement", form.elements.metric.value.slice("disagreement ".length)]
      : ["worst", form.elements.metric.value];
    const metric = page.metrics.find((one) => one.name === name);
    const one = kind === "worst" && page.contestants.find((each) => each.label === form.elements.run.value);
    form.elements.run.disabled = !metric || kind === "disagreement";
    const key = new Map(page.views.map((view) => [view, !metric ? 0 : kind === "worst" ? badness(view, metric, one ? [one] : contestants) : disagreement(view, metric)]));
    page.views = [...page.views].sort((a, b) => (key.get(a) === key.get(b) ? byName(a, b) : key.get(b) - key.get(a)));
    page.views.forEach((view, index) => {
      const item = document.getElementById(view.anchor);
      item.querySelector(".rank").textContent = String(index + 1);
      list.append(item);
    });
    const of = one ? one.label : say(contestants.length < page.contestants.length ? "all_but_floor" : "all_methods");
    order.textContent = !metric ? say("by_name") : kind === "worst" ? say("worst_first", { metric: metric.title, of }) : say("disagreement", { metric: metric.title });
  };

  const choose = () => {
    const wanted = form.elements.seed ? form.elements.seed.value : "all";
    const metric = page.metrics[0];
    for (const view of page.views) {
      const takes = new Map([...document.getElementById(view.anchor).querySelectorAll(".take")].map((take) => [take.dataset.run, take]));
      for (const one of page.contestants) {
        const worst = one.runs.filter((run) => run.scored && (view.scores[run.id] || {})[metric.name] !== undefined).sort((a, b) => {
          const difference = view.scores[a.id][metric.name] - view.scores[b.id][metric.name];
          return metric.higherIsBetter ? difference : -difference;
        })[0];
        for (const run of one.runs) {
          const seen = wanted === "all" || (wanted === "worst" ? !worst || run === worst : String(run.seed) === wanted);
          takes.get(run.id).hidden = !seen;
        }
      }
    }
  };

  form.addEventListener("change", (event) => (event.target.name === "seed" ? choose() : sort()));
  choose();

  // J and K go from view to view while one of them has the focus: other readers may need these keys for other things.
  list.addEventListener("keydown", (event) => {
    const by = { j: 1, k: -1 }[event.key.toLowerCase()];
    if (!by || event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT)$/.test(event.target.tagName)) return;
    const items = [...list.children];
    const next = items[items.indexOf(event.target.closest(".view")) + by];
    if (!next) return;
    event.preventDefault();
    next.querySelector(".open").focus({ preventScroll: true });
    next.scrollIntoView({ block: "start" });
  });
}

// The photo over the renderings

function setUpSliders() {
  for (const item of document.querySelectorAll(".view")) {
    const label = item.querySelector(".slide");
    const pictures = [...item.querySelectorAll(".picture")].filter((link) => runsById.has(link.dataset.shows));
    if (!pictures.length) continue;
    label.hidden = false;
    label.querySelector("input").addEventListener("input", (event) => {
      const cut = Number(event.target.value);
      for (const link of pictures) {
        if (!link.querySelector(".cover")) {
          const cover = document.createElement("img");
          cover.className = "cover";
          cover.alt = "";
          cover.src = pictureOf(viewsByAnchor.get(item.id), "photo").querySelector("img").getAttribute("src");
          link.append(cover);
        }
        link.style.setProperty("--cut", `${cut}%`);
        link.classList.toggle("covered", cut > 0 && cut < 100);
      }
    });
  }
}

// A view at pixel scale: two pictures with a slider between them, or all methods side by side, all at one zoom and place

const LARGEST_ZOOM = 32;

function setUpLarge() {
  const dialog = document.getElementById("large");
  if (typeof dialog.showModal !== "function") return; // the links open the pictures themselves
  const form = dialog.querySelector("form");
  const { mode, left, right, factor } = form.elements;
  const stage = dialog.querySelector(".stage");
  const slider = dialog.querySelector('input[type="range"]');
  let view = null;
  let panes = []; // {window, images}
  let zoom = null; // CSS pixels to a pixel of the picture; null fits the picture into its pane
  let centre = [0, 0]; // of what is seen, in pixels of the picture
  let opener = null;

  const photoSize = () => {
    const image = pictureOf(view, "photo").querySelector("img");
    return [Number(image.getAttribute("width")), Number(image.getAttribute("height"))];
  };

  const choices = () => {
    const found = [["photo", page.texts.photo]];
    for (const run of allRuns) {
      if (!pictureOf(view, run.id)) continue;
      found.push([run.id, nameOf(run)], [`${run.id} error`, say("error_map", { name: nameOf(run) })]);
    }
    return found;
  };

  const fill = (select, wanted) => {
    const found = choices();
    select.replaceChildren(...found.map(([value, text]) => new Option(text, value)));
    select.value = found.some(([value]) => value === wanted) ? wanted : "photo";
  };

  const caption = (shown) => {
    const run = runsById.get(shown.replace(/ error$/, ""));
    if (!run) return page.texts.photo;
    const scores = view.scores[run.id] || {};
    const texts = page.metrics.filter((metric) => metric.name in scores).map((metric) => `${metric.title} ${scoreText(metric, scores[metric.name])}`);
    return [nameOf(run), ...texts].join(" · ");
  };

  const makeImage = (shown) => {
    const source = pictureOf(view, shown).querySelector("img");
    const image = new Image();
    image.alt = source.alt;
    image.src = source.getAttribute("src");
    image.draggable = false;
    return image;
  };

  const makePane = (layers, text) => {
    const pane = document.createElement("figure");
    const window_ = document.createElement("div");
    window_.className = "window";
    const images = layers.map((shown, index) => {
      const layer = document.createElement("div");
      layer.className = index ? "layer over" : "layer under";
      const image = makeImage(shown);
      layer.append(image);
      window_.append(layer);
      return image;
    });
    pane.append(window_);
    if (text) {
      const words = document.createElement("figcaption");
      words.textContent = text;
      pane.append(words);
    }
    stage.append(pane);
    return { window: window_, images };
  };

  const build = () => {
    const two = mode.value === "two";
    stage.replaceChildren();
    for (const part of dialog.querySelectorAll(".for-two")) part.hidden = !two;
    if (two) {
      panes = [makePane([right.value, left.value], "")];
      dialog.querySelector(".left-score").textContent = caption(left.value);
      dialog.querySelector(".right-score").textContent = caption(right.value);
    } else {
      const seen = [...document.getElementById(view.anchor).querySelectorAll(".take:not([hidden])")].map((take) => take.dataset.run);
      const shown = seen.filter((run) => pictureOf(view, run)).map((run) => (mode.value === "errors" ? `${run} error` : run));
      panes = ["photo", ...shown].map((each) => makePane([each], caption(each)));
    }
    document.getElementById("large-name").textContent = view.name;
    stage.classList.toggle("slides", two);
    place();
  };

  // So many columns that pictures are seen as large as can be.
  const place = () => {
    const [width, height] = photoSize();
    const room = [stage.clientWidth, stage.clientHeight];
    let best = [0, 1];
    for (let columns = 1; columns <= panes.length; columns += 1) {
      const rows = Math.ceil(panes.length / columns);
      const scale = Math.min(room[0] / columns / width, (room[1] / rows - 44) / height);
      if (scale > best[0]) best = [scale, columns];
    }
    stage.style.setProperty("--across", String(best[1]));
    stage.style.setProperty("--down", String(Math.ceil(panes.length / best[1])));
    draw();
  };

  const fitting = () => {
    const [width, height] = photoSize();
    const [{ window: first }] = panes;
    return Math.min(first.clientWidth / width, first.clientHeight / height);
  };

  const draw = () => {
    const [width, height] = photoSize();
    const scale = zoom ?? fitting();
    if (zoom === null) centre = [width / 2, height / 2];
    centre = [Math.min(Math.max(centre[0], 0), width), Math.min(Math.max(centre[1], 0), height)];
    for (const { window: pane, images } of panes) {
      for (const image of images) {
        image.style.width = `${width}px`;
        image.style.height = `${height}px`;
        image.style.imageRendering = scale * window.devicePixelRatio >= 1.5 ? "pixelated" : "auto";
        image.style.transform = `translate(${pane.clientWidth / 2 - centre[0] * scale}px, ${pane.clientHeight / 2 - centre[1] * scale}px) scale(${scale})`;
      }
    }
    if (mode.value === "two") { // the slider goes over what is seen of the pictures, not over the room beside them
      const [{ window: pane }] = panes;
      const start = Math.max(0, pane.clientWidth / 2 - centre[0] * scale);
      const end = Math.min(pane.clientWidth, pane.clientWidth / 2 + (width - centre[0]) * scale);
      stage.style.setProperty("--cut", `${start + (Number(slider.value) / 100) * (end - start)}px`);
    }
    factor.value = `${Math.round(scale * window.devicePixelRatio * 100)} %`;
  };

  // Zoom by a factor, keeping the place of the picture under `at` (CSS pixels from a pane's middle) where it is.
  const zoomBy = (by, at = [0, 0]) => {
    const before = zoom ?? fitting();
    const after = Math.min(Math.max(before * by, fitting() / 2), LARGEST_ZOOM);
    centre = centre.map((value, axis) => value + at[axis] / before - at[axis] / after);
    zoom = after;
    draw();
  };
  const pan = (across, down) => {
    zoom ??= fitting();
    centre = [centre[0] + across / zoom, centre[1] + down / zoom];
    draw();
  };
  const fit = () => { zoom = null; draw(); };

  const show = (chosen, leftShows, rightShows) => {
    view = chosen;
    fill(left, leftShows);
    fill(right, rightShows);
    build();
  };
  const step = (by) => {
    const at = page.views.indexOf(view);
    show(page.views[(at + by + page.views.length) % page.views.length], left.value, right.value);
  };

  const open = (chosen, shows) => {
    const first = allRuns.find((run) => pictureOf(chosen, run.id));
    const seen = document.getElementById(chosen.anchor).querySelector(".take:not([hidden]):not(.missing)");
    const other = seen ? seen.dataset.run : first ? first.id : "photo";
    zoom = null;
    opener = document.activeElement;
    if (!dialog.open) dialog.showModal();
    show(chosen, "photo", !shows || shows === "photo" || !pictureOf(chosen, shows) ? other : shows);
    (mode.value === "two" ? slider : stage).focus();
  };

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-view]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    open(viewsByAnchor.get(link.dataset.view), link.dataset.shows);
  });
  dialog.addEventListener("close", () => {
    const item = document.getElementById(view.anchor);
    if (!opener || !opener.closest(".view") || item.contains(opener)) { if (opener) opener.focus({ preventScroll: true }); return; }
    item.querySelector(".open").focus({ preventScroll: true });
    item.scrollIntoView({ block: "nearest" });
  });

  slider.addEventListener("input", draw);
  for (const select of [mode, left, right]) select.addEventListener("change", build);
  form.elements.previous.addEventListener("click", () => step(-1));
  form.elements.next.addEventListener("click", () => step(1));
  form.elements.in.addEventListener("click", () => zoomBy(1.5));
  form.elements.out.addEventListener("click", () => zoomBy(1 / 1.5));
  form.elements.fit.addEventListener("click", fit);
  window.addEventListener("resize", () => dialog.open && place());

  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
    const onStage = event.target === stage;
    const far = stage.clientWidth / 10;
    const acts = {
      "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), 0: fit, n: () => step(1), p: () => step(-1),
      ...(onStage && { ArrowLeft: () => pan(-far, 0), ArrowRight: () => pan(far, 0), ArrowUp: () => pan(0, -far), ArrowDown: () => pan(0, far) }),
    };
    const act = acts[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  // Wheel, drag and pinch, in any pane, move all of them.
  const placeIn = (event) => {
    const pane = event.target.closest(".window");
    if (!pane) return [0, 0];
    const box = pane.getBoundingClientRect();
    return [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
  };
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY / 300), placeIn(event));
  }, { passive: false });
  const fingers = new Map();
  stage.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const now = [event.clientX, event.clientY];
    const others = [...fingers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    if (others.length) {
      const apart = (at) => Math.hypot(at[0] - others[0][0], at[1] - others[0][1]);
      zoomBy(apart(now) / Math.max(apart(before), 1));
    } else {
      pan(before[0] - now[0], before[1] - now[1]);
    }
    fingers.set(event.pointerId, now);
  });
  for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, (event) => fingers.delete(event.pointerId));
}

// The charts: Plotly is large, so it is loaded when they come near

function setUpCharts() {
  const places = [...document.querySelectorAll(".chart")];
  if (!places.length) return;
  const watcher = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    watcher.disconnect();
    const script = document.createElement("script");
    script.src = "assets/plotly.min.js";
    script.addEventListener("load", () => drawCharts(places));
    document.head.append(script);
  }, { rootMargin: "800px" });
  watcher.observe(places[0]);
}

function drawCharts(places) {
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
        text: trace.text.map(escapeForPlotly),
        showlegend: trace.shown,
        legendgroup: escapeForPlotly(trace.name),
        line: { color: colour(`--run-${trace.slot}`), width: 2, dash: trace.dash },
        marker: { color: colour(`--run-${trace.slot}`), size: 7, symbol: trace.symbol },
        hovertemplate: `%{y:.${metric.digits}f} ${metric.unit}<br>%{x:.1f} s, %{text}`,
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
        xaxis: { ...axis, title: { text: page.texts.seconds, font: { color: colour("--quiet"), size: 12 } }, rangemode: "tozero" },
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

// 3D views that can be turned: opened when they are asked for, in a frame that can reach nothing of the page

function setUpScenes() {
  for (const place of document.querySelectorAll(".scene")) {
    place.hidden = false;
    place.querySelector("button").addEventListener("click", (event) => {
      const frame = document.createElement("iframe");
      frame.src = place.dataset.scene;
      frame.title = event.target.textContent;
      frame.setAttribute("sandbox", "allow-scripts");
      place.replaceChildren(frame);
      frame.focus();
    });
  }
}

setUpSorting();
setUpSliders();
setUpLarge();
setUpCharts();
setUpScenes();
