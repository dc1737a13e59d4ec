"use strict";
(() => {
  const root = document.documentElement;
  const WIDTH = 1000;
  const HEIGHT = 400;
  root.classList.add("scripted");

  // Settings of the reader, kept where the browser allows it.
  const keep = (name, value) => { try { localStorage.setItem("inkstone-" + name, value); } catch { /* private window */ } };
  const kept = (name) => { try { return localStorage.getItem("inkstone-" + name); } catch { return null; } };

  const showLanguage = (language) => {
    root.dataset.lang = language;
    root.lang = language === "zh" ? "zh-CN" : "en";
  };
  const browser = (navigator.languages && navigator.languages[0]) || navigator.language || "en";
  showLanguage(kept("language") || (browser.toLowerCase().startsWith("zh") ? "zh" : "en"));
  document.getElementById("language").addEventListener("click", () => {
    showLanguage(root.dataset.lang === "zh" ? "en" : "zh");
    keep("language", root.dataset.lang);
  });

  if (["light", "dark"].includes(kept("theme"))) root.dataset.theme = kept("theme");
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    keep("theme", root.dataset.theme);
  });

  // Curves.
  const numbers = (text) => (text ? text.split(" ").map(Number) : []);
  const digits = (value) => {
    const size = Math.abs(value);
    if (size >= 1e4) return Math.round(value).toLocaleString("en-US");
    return size !== 0 && size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
  };
  const percent = (value) => Number((100 * value).toPrecision(3)) + "%";

  const makeChart = (figure) => {
    const plot = figure.querySelector(".plot");
    const [x0, x1, y0, y1] = ["x0", "x1", "y0", "y1"].map((name) => Number(plot.dataset[name]));
    const form = plot.dataset.form === "percent" ? percent : digits;
    const low = Math.log10(Math.max(1, x0));
    const high = Math.log10(Math.max(2, x1));
    let logarithmic = false;
    const place = (x) => (logarithmic ? (Math.log10(Math.max(1, x)) - low) / (high - low) : (x - x0) / (x1 - x0));
    const height = (y) => 1 - (y - y0) / (y1 - y0);
    const legend = [...figure.querySelectorAll(".legend li")];
    const lines = [...figure.querySelectorAll(".series")].map((group, index) => {
      const dot = document.createElement("i");
      dot.className = "dot " + group.getAttribute("class");
      plot.append(dot);
      const { x, y, low: lows, high: highs } = group.dataset;
      return { group, dot, x: numbers(x), y: numbers(y), low: numbers(lows), high: numbers(highs), value: legend[index].querySelector(".value") };
    });
    const steps = [...new Set(lines.flatMap((line) => line.x))].sort((a, b) => a - b);
    const resting = { step: figure.querySelector(".at").textContent, values: lines.map((line) => line.value.textContent) };
    let at = steps.length - 1;

    const path = (xs, ys) => {
      const points = xs.map((x, i) => (WIDTH * place(x)).toFixed(0) + " " + (HEIGHT * height(ys[i])).toFixed(0));
      return points.concat(points.length === 1 ? points : []).join("L");
    };
    const draw = () => {
      for (const line of lines) {
        line.group.querySelector(".line").setAttribute("d", "M" + path(line.x, line.y));
        const band = line.group.querySelector(".band");
        if (band) band.setAttribute("d", "M" + path(line.x, line.high) + "L" + path([...line.x].reverse(), [...line.low].reverse()) + "Z");
      }
    };
    const closest = (xs, x) => xs.reduce((best, value, i) => (Math.abs(value - x) < Math.abs(xs[best] - x) ? i : best), 0);
    const read = (index) => {
      at = Math.min(steps.length - 1, Math.max(0, index));
      const step = steps[at];
      plot.classList.add("reading");
      plot.querySelector(".cursor").style.left = 100 * place(step) + "%";
      figure.querySelector(".at").textContent = Math.round(step).toLocaleString("en-US");
      for (const line of lines) {
        const i = closest(line.x, step);
        const outside = step < line.x[0] || step > line.x[line.x.length - 1];
        line.dot.classList.toggle("outside", outside);
        if (outside) { line.value.textContent = "–"; continue; }
        line.value.textContent = form(line.y[i]);
        line.dot.style.left = 100 * place(line.x[i]) + "%";
        line.dot.style.top = 100 * height(line.y[i]) + "%";
      }
    };
    const rest = () => {
      plot.classList.remove("reading");
      figure.querySelector(".at").textContent = resting.step;
      lines.forEach((line, i) => { line.value.textContent = resting.values[i]; });
    };
    plot.addEventListener("pointermove", (event) => {
      const box = plot.getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      const x = logarithmic ? 10 ** (low + share * (high - low)) : x0 + share * (x1 - x0);
      read(closest(steps, x));
    });
    plot.addEventListener("pointerleave", rest);
    plot.addEventListener("blur", rest);
    plot.addEventListener("focus", () => { if (plot.matches(":focus-visible")) read(steps.length - 1); });
    plot.addEventListener("keydown", (event) => {
      const stride = Math.max(1, Math.round(steps.length / 60));
      const moved = { ArrowLeft: at - stride, ArrowRight: at + stride, Home: 0, End: steps.length - 1 }[event.key];
      if (moved === undefined) return;
      event.preventDefault();
      figure.querySelector(".legend").setAttribute("aria-live", "polite");
      read(moved);
    });
    return (log) => { logarithmic = log; rest(); draw(); };
  };
  const charts = [...document.querySelectorAll(".chart")].map(makeChart);
  const logButton = document.getElementById("log-x");
  if (logButton) {
    logButton.addEventListener("click", () => {
      const log = root.classList.toggle("log-x");
      logButton.setAttribute("aria-pressed", String(log));
      charts.forEach((redraw) => redraw(log));
    });
  }

  // Samples.
  for (const slider of document.querySelectorAll(".slider")) {
    const input = slider.querySelector("input");
    const rows = [...document.getElementById(input.getAttribute("aria-controls")).children];
    const show = () => {
      rows.forEach((row, i) => row.classList.toggle("shown", i === Number(input.value)));
      const step = rows[Number(input.value)].dataset.step;
      slider.querySelector("output").textContent = step;
      input.setAttribute("aria-valuetext", step);
    };
    input.addEventListener("input", show);
    show();
  }
})();
