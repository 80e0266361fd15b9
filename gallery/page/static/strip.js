// All samples in a strip: a column a sample, or several in one; how high it is says how much was missed, or is there.

export class Strip {
  constructor(canvas, choose) {
    Object.assign(this, { canvas, choose, values: [], edges: [], at: 0 });
    const seek = (event) => {
      const { left, width } = canvas.getBoundingClientRect();
      const place = Math.floor((event.clientX - left) / width * this.values.length);
      if (this.values.length) choose(Math.max(0, Math.min(this.values.length - 1, place)));
    };
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); seek(event); });
    canvas.addEventListener("pointermove", (event) => { if (event.buttons) seek(event); });
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  // values: [low part, high part] a sample, or [n]. scenes: one number a sample; it changes where a scene begins.
  fill(values, scenes) {
    Object.assign(this, { values, scenes });
    this.canvas.setAttribute("aria-valuemax", values.length);
    this.draw();
  }

  select(at, words) {
    this.at = at;
    this.canvas.setAttribute("aria-valuenow", at + 1);
    this.canvas.setAttribute("aria-valuetext", words);
    this.draw();
  }

  draw() {
    const { canvas, values, scenes } = this, ratio = devicePixelRatio || 1;
    const width = canvas.clientWidth * ratio, height = canvas.clientHeight * ratio, count = values.length;
    if (!width || !count) return;
    if (canvas.width !== Math.round(width) || canvas.height !== Math.round(height)) [canvas.width, canvas.height] = [width, height];
    const pen = canvas.getContext("2d"), style = getComputedStyle(canvas);
    const colour = (name) => style.getPropertyValue(name);
    pen.clearRect(0, 0, width, height);
    const columns = Math.min(count, Math.floor(width)), step = width / columns;
    const most = Math.max(1, values.reduce((high, parts) => Math.max(high, parts.reduce((sum, n) => sum + n, 0)), 0));
    const gap = step > 5 * ratio ? ratio : 0;
    for (let column = 0; column < columns; column++) {
      const first = Math.floor(column * count / columns), end = Math.max(first + 1, Math.floor((column + 1) * count / columns));
      let highest = values[first], sum = -1;
      for (let place = first; place < end; place++) {
        const all = values[place].reduce((total, n) => total + n, 0);
        if (all > sum) [highest, sum] = [values[place], all];
      }
      if (scenes[first] % 2) { pen.fillStyle = colour("--band"); pen.fillRect(column * step, 0, step + 0.5, height); }
      let bottom = height;
      highest.forEach((n, part) => {
        const high = n / most * (height - 2 * ratio);
        pen.fillStyle = colour(highest.length > 1 ? (part ? "--false" : "--missed") : "--plain");
        pen.fillRect(column * step, bottom - high, Math.max(step - gap, 1), high);
        bottom -= high;
      });
    }
    const x = (this.at + 0.5) * width / count, thick = Math.max(2 * ratio, Math.min(step, 6 * ratio));
    pen.fillStyle = colour("--focus");
    pen.globalAlpha = 0.35;
    pen.fillRect(x - Math.max(step, thick) / 2, 0, Math.max(step, thick), height);
    pen.globalAlpha = 1;
    pen.fillRect(x - ratio, 0, 2 * ratio, height);
  }
}
