(() => {
  const root = document.currentScript.closest(".srkit-film");
  const film = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
  const find = (name) => root.querySelector(".srkit-film-" + name);
  const [output, other, wipe, time, facts, play] = ["output", "other", "wipe", "time", "facts", "play"].map(find);
  const against = find("against"), svg = root.querySelector("svg"), cursor = root.querySelector(".cursor");
  let picture = 0, timer = null;
  film.pictures.forEach((name, index) => {
    const button = document.createElement("button");
    button.textContent = name;
    button.onclick = () => { picture = index; show(); };
    find("which").append(button);
  });
  const short = (x) => (x === 0 ? "off" : Number(x.toPrecision(3)).toString());
  function show() {
    const frame = film.frames[time.value];
    output.src = frame.images[picture];
    other.src = (against.value === "bicubic" ? film.bicubic : film.truth)[picture];
    other.style.clipPath = `inset(0 ${100 - wipe.value}% 0 0)`;
    [...find("which").children].forEach((button, index) => button.setAttribute("aria-pressed", index === picture));
    const [left, right] = film.axis, last = Number(svg.dataset.last);
    cursor.setAttribute("transform", `translate(${left + (right - left) * frame.step / last})`);
    const rows = Object.entries(frame.weights).map(([name, weight]) => {
      const share = frame.loss[name] ?? 0, colour = film.colors[name];
      return `<tr><td style="color:${colour}"><b></b></td><td>${short(weight)}</td>` +
        `<td><i style="width:${Math.round(100 * share)}px;background:${colour}"></i> ${Math.round(100 * share)} %</td></tr>`;
    });
    const over = frame.over === null ? "" : ` (${frame.over >= 0 ? "+" : ""}${frame.over.toFixed(2)} against bicubic)`;
    const psnr = frame.psnr === null ? "" : `${frame.psnr.toFixed(2)} dB${over}<br>`;
    facts.innerHTML = `<p><b>step ${frame.step}</b><br>${psnr}learning rate ${short(frame.lr)}</p>` +
      `<table><tr><th>term</th><th>weight</th><th>share of the loss</th></tr>${rows.join("")}</table>`;
    Object.keys(frame.weights).forEach((name, index) => { facts.querySelectorAll("td b")[index].textContent = name; });
  }
  time.max = film.frames.length - 1;
  time.value = time.max;
  wipe.oninput = time.oninput = against.onchange = show;
  play.onclick = () => {
    if (timer) { clearInterval(timer); timer = null; play.textContent = "Play"; return; }
    if (time.value === time.max) time.value = 0;
    play.textContent = "Pause";
    timer = setInterval(() => {
      if (Number(time.value) >= Number(time.max)) { play.onclick(); return; }
      time.value = Number(time.value) + 1;
      show();
    }, 120);
  };
  show();
})();
