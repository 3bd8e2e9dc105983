// Answers and maps as elements of the page.

const AGES = 100; // right end of the age's scale; older answers stay at it
const FOR = [230, 97, 0];
const AGAINST = [47, 127, 214];

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function track(start, end, point) {
  const bar = element("div", "track", element("div", "band"));
  bar.setAttribute("aria-hidden", "true"); // the numbers beside it say the same
  bar.firstChild.style.left = `${100 * start}%`;
  bar.firstChild.style.width = `${100 * (end - start)}%`;
  if (point !== undefined) {
    bar.append(element("div", "point"));
    bar.lastChild.style.left = `${100 * point}%`;
  }
  return bar;
}

/** The photo with its faces boxed and numbered. */
export function drawPhoto(canvas, { picture, width, faces }) {
  Object.assign(canvas, { width: picture.width, height: picture.height });
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  const scale = picture.width / width;
  const line = Math.max(2, picture.width / 250);
  context.font = `600 ${7 * line}px system-ui, sans-serif`;
  faces.forEach(({ box }, index) => {
    const [left, top, wide, high] = box.map((value) => value * scale);
    for (const [colour, thickness] of [["#ffffff", 2.2 * line], ["#0b5cad", line]]) {
      Object.assign(context, { strokeStyle: colour, lineWidth: thickness });
      context.strokeRect(left, top, wide, high);
    }
    const label = String(index + 1);
    const across = context.measureText(label).width + 6 * line;
    const [x, y] = [Math.max(0, left), Math.max(9 * line, top)];
    context.fillStyle = "#0b5cad";
    context.fillRect(x, y - 9 * line, across, 9 * line);
    context.fillStyle = "#ffffff";
    context.fillText(label, x + 3 * line, y - 2.2 * line);
  });
}

/** A list entry about one face. */
export function showFace(face, index, photo, { text, number, config, tasks, explain }) {
  const title = photo.whole ? text("picture") : text("face", { number: index + 1 });
  const entry = element("li", "", element("h2", "", title));
  entry.append(showAge(face, text, number), showClasses("gender", face, photo, index, { text, number, config }));
  if (face.race_probabilities) entry.append(showClasses("race", face, photo, index, { text, number, config }));
  const warnings = (face.warnings ?? []).map((word) => text(word));
  if (face.turned) warnings.push(text("turned", { degrees: face.turned }));
  entry.append(...warnings.map((warning) => element("p", "warning", warning)));
  entry.append(showMap(index, photo, { text, number, tasks, explain }));
  return entry;
}

function heading(name, value, detail) {
  const line = element("div", "line", element("span", "", `${name}: `, element("strong", "", value)));
  if (detail) line.append(element("span", "small", detail));
  return line;
}

function showAge({ age, age_interval: [low, high] }, text, number) {
  const whole = (value) => number(Math.round(value));
  const on = (value) => Math.min(Math.max(value / AGES, 0), 1);
  const shown = age === null ? text("cannotTell") : whole(age);
  const detail = text("interval", { low: whole(low), high: whole(high) });
  const scale = element("div", "scale", ...[0, 25, 50, 75, 100].map((value) => element("span", "", number(value))));
  scale.setAttribute("aria-hidden", "true");
  const bar = track(on(low), on(high), age === null ? undefined : on(age));
  return element("div", "answer", heading(text("age"), shown, detail), bar, scale);
}

function showClasses(task, face, photo, index, { text, number, config }) {
  const percent = (share) => number(share, { style: "percent" });
  const answer = heading(text(task === "race" ? "raceTitle" : task), text(face[task] ?? "cannotTell"));
  const rows = element("div", "classes");
  const names = config.about.labels[task];
  const first = photo.answers[index].answer; // what it would say, certain enough or not
  const shares = names.map((name) => {
    if (task === "race") return face.race_probabilities[name];
    const share = Math.round(100 * first.gender_probability) / 100; // both together make 100 %
    return name === first.gender ? share : 1 - share;
  });
  names.forEach((name, at) => {
    const share = element("span", "share", percent(shares[at]));
    rows.append(element("span", "", text(name)), track(0, shares[at]), share);
  });
  return element("div", "answer", answer, rows);
}

function showMap(index, photo, { text, number, tasks, explain }) {
  const map = photo.maps[index];
  const isBusy = Boolean(map && !map.values);
  const name = (task) => text(task === "race" ? "raceTitle" : task);
  const buttons = tasks.map((task) => {
    const button = element("button", "", name(task));
    Object.assign(button, { type: "button", id: `map-${index}-${task}` });
    button.onclick = () => isBusy || explain(index, task);
    button.setAttribute("aria-pressed", String(map?.task === task));
    button.setAttribute("aria-disabled", String(isBusy)); // `disabled` would take the keyboard's focus from it
    return button;
  });
  const box = element("div", "map", element("p", "", text("mapTitle")), element("div", "buttons", ...buttons));
  if (isBusy) {
    box.append(Object.assign(element("p", "small"), { id: `progress-${index}` }));
    showProgress(box.lastChild, map, { text, number });
  } else if (map) {
    box.append(element("div", "shown", mapCanvas(photo.crops[index], map, text, name), mapWords(map, text, number)));
  }
  return box;
}

export function showProgress(place, { share }, { text, number }) {
  place.textContent = text("mapWorking", { share: number(share, { style: "percent" }) });
}

function mapCanvas(crop, map, text, name) {
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", text("mapLabel", { task: name(map.task) }));
  drawMap(canvas, crop, map);
  return canvas;
}

function mapWords(map, text, number) {
  const ofAge = map.task === "age" ? "Age" : "";
  const largest = Math.max(...map.values.map(Math.abs));
  const digits = { maximumFractionDigits: 1, minimumFractionDigits: 1 };
  const change = ofAge
    ? text("years", { value: number(largest, digits) })
    : text("percentChange", { value: number(Math.exp(largest), digits) });
  const agreement = number(map.agreement, { maximumFractionDigits: 2, minimumFractionDigits: 2 });
  const verdict = map.agreement >= 0.8 ? "trustGood" : map.agreement >= 0.5 ? "trustSome" : "trustNone";
  return element(
    "div",
    "small",
    element("p", "", element("span", "key for"), text(`mapFor${ofAge}`)),
    element("p", "", element("span", "key against"), text(`mapAgainst${ofAge}`)),
    element("p", "", text("mapRange", { change })),
    element("p", "", element("strong", "", text(verdict, { agreement }))),
    element("p", "", text("mapLimits")),
  );
}

/** A crop in grey with its map over it: orange speaks for the answer, blue against it. */
function drawMap(canvas, { width, height, data }, { size, values }) {
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const largest = Math.max(...values.map(Math.abs), 1e-9);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = y * width + x;
      const value = interpolate(values, size, (size * (y + 0.5)) / height, (size * (x + 0.5)) / width) / largest;
      const grey = 0.3 * data[3 * at] + 0.59 * data[3 * at + 1] + 0.11 * data[3 * at + 2];
      const share = 0.75 * Math.abs(value);
      const colour = value > 0 ? FOR : AGAINST;
      for (let channel = 0; channel < 3; channel++) {
        image.data[4 * at + channel] = (1 - share) * grey + share * colour[channel];
      }
      image.data[4 * at + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
}

function interpolate(values, size, y, x) {
  const limit = (value) => Math.min(Math.max(value, 0), size - 1);
  const [row, column] = [Math.floor(y - 0.5), Math.floor(x - 0.5)];
  const [down, across] = [y - 0.5 - row, x - 0.5 - column];
  const at = (v, u) => values[limit(v) * size + limit(u)];
  const upper = (1 - across) * at(row, column) + across * at(row, column + 1);
  const lower = (1 - across) * at(row + 1, column) + across * at(row + 1, column + 1);
  return (1 - down) * upper + down * lower;
}
