// Drawing on canvases: frames come as one picture with all of them, tokens as grids of numbers.

// As in score_video/drawing/overlay.py: lightness rises evenly, so that the picture also reads in grey
const RAMP = [[12, 8, 32], [74, 14, 104], [148, 32, 100], [216, 72, 66], [248, 148, 40], [252, 244, 164]];

const HALO = "rgb(150 90 255 / 0.4)"; // what a tower saw around what was chosen before it
const CHOSEN = 100; // of 255: how bright is what was chosen before it and is not kept

export function bytes(base64) {
  return Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
}

export function bits(base64, length) {
  const packed = bytes(base64);
  const out = new Uint8Array(length);
  for (let i = 0; i < length; i++) out[i] = (packed[i >> 3] >> (i & 7)) & 1;
  return out;
}

export function cssColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function rampAt(level) {
  const at = Math.min(Math.max(level, 0), 1) * (RAMP.length - 1);
  const low = Math.min(Math.floor(at), RAMP.length - 2);
  return RAMP[low].map((value, c) => value + (RAMP[low + 1][c] - value) * (at - low));
}

export function drawLegend(canvas) {
  const context = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x++) {
    context.fillStyle = `rgb(${rampAt(x / (canvas.width - 1)).map(Math.round).join(" ")})`;
    context.fillRect(x, 0, 1, canvas.height);
  }
}

// The surprise that gets the full colour: the 99th percentile of what there is; -1 stands for none
export function heatScale(surprise) {
  const finite = surprise.filter((value) => value >= 0).sort();
  if (!finite.length) return 1;
  const at = 0.99 * (finite.length - 1), low = Math.floor(at), high = Math.ceil(at);
  return Math.max(finite[low] + (finite[high] - finite[low]) * (at - low), 1e-6);
}

function surface(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

// One clip's frames and surprise, ready to be drawn with any selection
export class Film {
  constructor(facts, image) {
    this.facts = facts;
    this.image = image;
    [this.tokenFrames, this.rows, this.columns] = facts.grid;
    this.perFrame = this.rows * this.columns;
    this.surprise = new Float32Array(bytes(facts.surprise).buffer);
    // what was chosen before the tower, and what it ran on; null: everything
    this.chosen = facts.seen && bits(facts.seen.kept, this.surprise.length);
    this.ran = facts.seen && bits(facts.seen.encoded, this.surprise.length);
    this.scale = heatScale(this.surprise);
    this.frameWidth = image.width / facts.columns;
    this.frameHeight = image.height / Math.ceil(facts.frames / facts.columns);
    this.heats = this.heatPixels();
    this.layers = new Map();
  }

  // The frame of tokens that a frame belongs to
  tokenFrame(frame) {
    return Math.floor(frame / this.facts.together);
  }

  heatPixels() {
    const pixels = new Uint8ClampedArray(this.surprise.length * 4);
    this.surprise.forEach((value, i) => {
      if (value < 0) return pixels.set([8, 10, 14, 158], 4 * i); // no frame before: dark
      pixels.set(rampAt(value / this.scale), 4 * i);
      pixels[4 * i + 3] = 209; // 0.82
      return undefined;
    });
    return pixels;
  }

  drawFrame(context, frame, x, y, width, height) {
    const sx = (frame % this.facts.columns) * this.frameWidth;
    const sy = Math.floor(frame / this.facts.columns) * this.frameHeight;
    context.drawImage(this.image, sx, sy, this.frameWidth, this.frameHeight, x, y, width, height);
  }

  // Bright, dark and faint copies of some frames side by side, made once for each size
  layersOf(frames, width, height) {
    const key = `${frames.join()} ${width} ${height}`;
    if (!this.layers.has(key)) {
      if (this.layers.size > 400) this.layers.clear();
      const [bright, dark, faint] = [0, 1, 2].map(() => surface(width * frames.length, height));
      const context = bright.getContext("2d");
      frames.forEach((frame, i) => this.drawFrame(context, frame, i * width, 0, width, height));
      for (const [layer, grey, shade] of [[dark, 0.75, 0.74], [faint, 1, 0]]) {
        const on = layer.getContext("2d");
        on.drawImage(bright, 0, 0);
        on.globalCompositeOperation = "saturation";
        on.globalAlpha = grey;
        on.fillStyle = "#808080";
        on.fillRect(0, 0, layer.width, layer.height);
        on.globalCompositeOperation = "source-over";
        on.globalAlpha = shade;
        on.fillStyle = "#080a0e";
        on.fillRect(0, 0, layer.width, layer.height);
      }
      this.layers.set(key, { bright, dark, faint });
    }
    return this.layers.get(key);
  }

  // Frames side by side: what is kept bright, and what the tower saw besides; or the surprise as heat
  draw(canvas, frames, kept, width, height, heat) {
    if (canvas.width !== width * frames.length || canvas.height !== height) {
      canvas.width = width * frames.length;
      canvas.height = height;
    }
    const context = canvas.getContext("2d");
    const layers = this.layersOf(frames, width, height);
    const grid = surface(this.columns * frames.length, this.rows);
    const pixels = new ImageData(grid.width, grid.height);
    frames.forEach((frame, i) => {
      const first = this.tokenFrame(frame) * this.perFrame;
      for (let row = 0; row < this.rows; row++) {
        for (let column = 0; column < this.columns; column++) {
          const from = first + row * this.columns + column;
          const to = 4 * (row * grid.width + i * this.columns + column);
          if (heat) pixels.data.set(this.heats.subarray(4 * from, 4 * from + 4), to);
          else pixels.data[to + 3] = kept?.[from] ? 255 : this.chosen?.[from] ? CHOSEN : 0;
        }
      }
    });
    grid.getContext("2d").putImageData(pixels, 0, 0);
    context.globalCompositeOperation = "source-over";
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (heat) {
      context.drawImage(layers.faint, 0, 0);
      context.imageSmoothingEnabled = false;
      context.drawImage(grid, 0, 0, canvas.width, canvas.height);
    } else {
      context.imageSmoothingEnabled = false;
      context.drawImage(grid, 0, 0, canvas.width, canvas.height);
      context.globalCompositeOperation = "source-in";
      context.drawImage(layers.bright, 0, 0);
      context.globalCompositeOperation = "destination-over";
      context.drawImage(layers.dark, 0, 0);
    }
    context.globalCompositeOperation = "source-over";
    context.imageSmoothingEnabled = true;
    if (this.ran && !heat) this.tintHalo(context, frames, width / this.columns, height / this.rows);
  }

  tintHalo(context, frames, across, down) {
    context.fillStyle = HALO;
    frames.forEach((frame, i) => {
      const first = this.tokenFrame(frame) * this.perFrame;
      for (let place = 0; place < this.perFrame; place++) {
        if (!this.ran[first + place] || this.chosen[first + place]) continue;
        const x = (i * this.columns + (place % this.columns)) * across;
        context.fillRect(x, Math.floor(place / this.columns) * down, across, down);
      }
    });
  }

  // Lines where what is kept borders on what is not
  outline(canvas, frame, kept, colour, thickness) {
    const first = this.tokenFrame(frame) * this.perFrame;
    const cell = [canvas.width / this.columns, canvas.height / this.rows];
    const is = (row, column) =>
      row >= 0 && column >= 0 && row < this.rows && column < this.columns && kept[first + row * this.columns + column];
    const context = canvas.getContext("2d");
    context.strokeStyle = colour;
    context.lineWidth = thickness;
    context.beginPath();
    for (let row = 0; row < this.rows; row++) {
      for (let column = 0; column < this.columns; column++) {
        if (!is(row, column)) continue;
        const [x, y] = [column * cell[0], row * cell[1]];
        const sides = [
          [-1, 0, x, y, x + cell[0], y], [1, 0, x, y + cell[1], x + cell[0], y + cell[1]],
          [0, -1, x, y, x, y + cell[1]], [0, 1, x + cell[0], y, x + cell[0], y + cell[1]],
        ];
        for (const [dy, dx, x0, y0, x1, y1] of sides) {
          if (is(row + dy, column + dx)) continue;
          context.moveTo(x0, y0);
          context.lineTo(x1, y1);
        }
      }
    }
    context.stroke();
  }

  // A frame around one patch
  mark(canvas, place) {
    const cell = [canvas.width / this.columns, canvas.height / this.rows];
    const context = canvas.getContext("2d");
    for (const [colour, thickness] of [["#000", 5], ["#fff", 2.5]]) {
      context.strokeStyle = colour;
      context.lineWidth = thickness;
      context.strokeRect((place % this.columns) * cell[0], Math.floor(place / this.columns) * cell[1], ...cell);
    }
  }

  counts(kept) {
    const counts = new Array(this.tokenFrames).fill(0);
    for (let i = 0; i < kept.length; i++) counts[Math.floor(i / this.perFrame)] += kept[i];
    return counts;
  }
}

// How many are kept of each frame, a line for each rule, and where we are
export function drawCurve(canvas, film, series, frame) {
  const ratio = Math.min(window.devicePixelRatio || 1, 2);
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const [left, right, top, bottom] = [8, width - 8, 16, height - 4];
  const most = Math.max(1, ...series.flatMap((one) => one.counts));
  const x = (t) => left + ((right - left) * t) / Math.max(1, film.facts.frames - 1);
  context.strokeStyle = cssColour("--edge");
  context.lineWidth = 1;
  for (const y of [top, (top + bottom) / 2, bottom]) {
    context.beginPath();
    context.moveTo(left, y + 0.5);
    context.lineTo(right, y + 0.5);
    context.stroke();
  }
  context.fillStyle = cssColour("--faint");
  context.font = "12px system-ui, sans-serif";
  context.fillText(`${most} of ${film.perFrame} patches`, left, 11);
  for (const { counts, colour } of series) {
    context.strokeStyle = colour;
    context.lineWidth = 2;
    context.lineJoin = "round";
    context.beginPath();
    for (let t = 0; t < film.facts.frames; t++) {
      context.lineTo(x(t), bottom - (counts[film.tokenFrame(t)] / most) * (bottom - top));
    }
    context.stroke();
  }
  context.strokeStyle = cssColour("--text");
  context.lineWidth = 1.5;
  context.beginPath();
  context.moveTo(x(frame), top - 2);
  context.lineTo(x(frame), bottom);
  context.stroke();
}
