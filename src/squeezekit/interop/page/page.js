"use strict";
const $ = id => document.getElementById(id);
const number = x => x.toLocaleString("en");
const DAMAGED = "This page is damaged: fetch it again.";

// Seven bits a character. The three characters that HTML would change or end at stand, each
// together with the next seven bits, for one of 384 characters from U+0100 on.
function bytesOf(id) {
  const text = $(id).textContent, out = new Uint8Array(parseInt($(id).dataset.bytes));
  let bits = 0, held = 0, at = 0;
  const put = seven => {
    bits = bits << 7 | seven;
    held += 7;
    if (held > 7) out[at++] = bits >> (held -= 8);
  };
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c > 127) put([0, 13, 60][c - 256 >> 7]);
    put(c & 127);
  }
  return out;
}

// Undoes native/pack.c, step by step the same.
function unpack(data) {
  const contexts = 9, inputs = 10, slots = 1 << 22, stretched = new Float64Array(4096).fill(8);
  const p = new Float32Array(slots + 64).fill(.5), n = new Uint8Array(slots + 64);
  const size = data[0] | data[1] << 8 | data[2] << 16, out = new Uint8Array(size);
  const weights = new Float64Array(1280 * inputs).fill(.2), x = new Float64Array(inputs);
  const hashes = new Uint32Array(contexts), at = new Uint32Array(inputs), seen = new Map();
  const hash = (a, b) => hashes[a] = Math.imul(b, 0x2f0b4c47);
  const squash = x => {
    x = 1 - Math.max(-12, Math.min(12, x)) / 1024;
    for (let i = 0; i < 10; i++) x *= x;
    return 1 / (1 + x);
  };
  for (let i = -2047, k = 0; i < 2048; i++)
    while (k <= squash(i / 256) * 4095) stretched[k++] = i / 256;
  let low = 0, high = -1 >>> 0, code = 0, next = 3, match = 0, length = 0;
  const shift = () => code = (code << 8 | data[next++]) >>> 0;
  while (next < 7) shift();
  for (let done = 0; done < size;) {
    const before = i => out[done - i] || 0, sets = [0, 768 + before(1), 1024 + before(2)], sums = [];
    let node = 1;
    while (node < 256) {
      const expected = match && out[match] | 256, left = Math.clz32(node) - 23;
      const on = expected >> left == node;
      for (let i = 0; i < contexts; i++)
        at[i] = hashes[i] + i * 0x3d4d51cb + Math.imul(node, 0x9e3779b1) >>> 10;
      at[contexts] = slots + (on ? Math.min(length, 15) * 2 + (expected >> left - 1 & 1) : 32);
      sets[0] = node + (on ? 256 * (1 + (length > 15)) : 0);
      let sum = 0;
      for (let i = 0; i < inputs; i++) x[i] = stretched[p[at[i]] * 4095 | 0];
      for (let k = 0; k < 3; k++) {
        let own = 0;
        for (let i = 0; i < inputs; i++) own += x[i] * weights[sets[k] * inputs + i];
        sum += sums[k] = own;
      }
      const guess = squash(sum / 3);
      const middle = low + Math.floor((high - low) * (guess * .9998 + .0001));
      const bit = +(code <= middle);
      if (bit) high = middle;
      else low = middle + 1;
      for (let k = 0; k < 3; k++) {
        const miss = (bit - squash(sums[k])) * .02;
        for (let i = 0; i < inputs; i++) weights[sets[k] * inputs + i] += miss * x[i];
      }
      for (const k of at) {
        p[k] += (bit - p[k]) / (n[k] + 1.5);
        n[k] += n[k] < 16;
      }
      node = node * 2 + bit;
      while (!((low ^ high) >>> 24)) {
        low = low << 8 >>> 0;
        high = (high << 8 | 255) >>> 0;
        shift();
      }
    }
    out[done++] = node;
    for (let i = 1; i < 6; i++) hash(i, hashes[i - 1] + before(i) + i);
    hash(6, before(2) + 9);
    hash(7, hashes[6] + before(3) + 1);
    hash(8, Math.imul(before(1) + 19, 0x2f0b4c47) + before(3) + 1);
    length = match && out[match] == (node & 255) ? length + 1 : 0;
    match += match > 0;
    const key = hashes[5];
    if (!length && seen.has(key)) match = seen.get(key);
    seen.set(key, done);
  }
  return out;
}

let wasm, metadata;
const view = (place, size) => new Uint8Array(wasm.memory.buffer, place, size);

// Starts the runtime and opens the network.
async function open() {
  const module = unpack(bytesOf("runtime"));
  if (!self.WebAssembly?.validate(module))
    throw "This browser is too old: it has no WebAssembly with SIMD.";
  const { instance } = await WebAssembly.instantiate(module);
  wasm = instance.exports;
  const file = bytesOf("model"), place = wasm.page_file(file.length);
  if (!place) throw "This device has too little memory.";
  view(place, file.length).set(file);
  const error = wasm.page_open(place, file.length, 0);
  if (error) throw error == 1 ? "This device has too little memory." : DAMAGED;
  const json = view(wasm.page_metadata(), wasm.page_metadata_bytes());
  metadata = JSON.parse(new TextDecoder().decode(json));
}

// The outputs of the network for an image: anything that a canvas draws.
function run(source) {
  const width = source.naturalWidth || source.width, height = source.naturalHeight || source.height;
  const strip = wasm.page_image(width, height);
  if (!strip) throw "This image is too large, or too long and thin.";
  const rows = Math.max((1 << 20) / (4 * width) | 0, 1), canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = Math.min(rows, height);
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.fillStyle = "#fff";
  for (let y = 0; y < height; y += rows) {
    const count = Math.min(rows, height - y);
    pen.fillRect(0, 0, width, rows);
    pen.drawImage(source, 0, -y);
    view(strip, 4 * width * count).set(pen.getImageData(0, 0, width, count).data);
    wasm.page_rows(y, count);
  }
  wasm.page_finish();
  return new Float32Array(wasm.memory.buffer, wasm.page_run(), wasm.page_classes()).slice();
}

function probabilities(outputs) {
  if (metadata.output == "probabilities") return outputs;
  const most = Math.max(...outputs), powers = outputs.map(x => Math.exp(x - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map(x => x / sum);
}

function element(tag, text, parent) {
  const made = parent.appendChild(document.createElement(tag));
  made.textContent = text;
  return made;
}

// The name of a class, and its other names.
function label(i) {
  return (metadata.labels[i] || metadata.label_ids[i] || "class " + i).split(", ");
}

function show(outputs, milliseconds) {
  const share = probabilities(outputs), best = [...share.keys()];
  best.sort((a, b) => outputs[b] - outputs[a]);
  const names = best.slice(0, 2).map(i => label(i)[0]), [first, second = 0] = best.map(i => share[i]);
  // Less than half, or less than twice the next: nobody would call that likely.
  $("status").textContent = names.length > 1 && (first < 0.5 || first < 2 * second) ?
    `Not sure: ${names.join(" or ")}` : `Most likely: ${names[0]}`;
  $("classes").textContent = "";
  for (const i of best.slice(0, 5)) {
    const [name, ...others] = label(i), row = element("li", "", $("classes"));
    const percent = (100 * share[i]).toFixed(1) + " %", text = element("b", name, row);
    if (others.length) element("small", others.join(", "), text);
    element("i", percent, row);
    const bar = element("s", "", element("u", "", row));
    setTimeout(() => bar.style.width = percent.replace(" ", ""), 20);
  }
  $("cost").textContent = `${number(Math.round(milliseconds))} ms on this device; ` + about();
}

const about = () => `network ${number(+$("model").dataset.bytes)} bytes, ` +
  `program ${number(+document.documentElement.dataset.bytes)} bytes` +
  (wasm.page_precision() == 2 ? ", in int8." : ".");

const ready = new Promise(done => setTimeout(done, 50)).then(open).then(() => {
  const classes = wasm.page_classes();
  $("about").textContent =
    "Everything is in this page: your photos stay on this device.";
  const names = [...Array(classes).keys()].map(i => label(i)[0]);
  $("known").hidden = false;
  $("known").open = classes < 11;
  element("summary", `Knows ${number(classes)} classes`, $("known"));
  element("p", names.join(", "), $("known"));
  for (const step of metadata.provenance) element("small", step, $("known"));
  $("status").textContent = "Ready for a photo.";
  $("cost").textContent = about()[0].toUpperCase() + about().slice(1);
}).catch(fail);

function fail(error) {
  $("classes").textContent = "";
  $("status").textContent = typeof error == "string" ? error : DAMAGED;
  throw error;
}

// Shows an image file, and what the network says about it; resolves to the outputs.
async function classify(file) {
  const photo = $("photo"), answer = $("answer");
  answer.setAttribute("aria-busy", true);
  try {
    await ready;
    $("status").textContent = "Looking …";
    URL.revokeObjectURL(photo.src);
    photo.src = URL.createObjectURL(file);
    const source = await createImageBitmap(file, {
      imageOrientation: "from-image", colorSpaceConversion: "none"
    }).catch(() => photo.decode().then(() => photo)).catch(() => {
      throw "This browser cannot read the file as an image.";
    });
    photo.hidden = false;
    $("hint").hidden = true;
    await new Promise(done => setTimeout(done, 20));
    const start = performance.now(), outputs = run(source);
    show(outputs, performance.now() - start);
    return outputs;
  } catch (error) {
    photo.hidden = true;
    $("hint").hidden = false;
    fail(error);
  } finally {
    answer.setAttribute("aria-busy", false);
  }
}

// The last of several that come at once waits for those before it.
let turn = ready.finally(() => $("answer").setAttribute("aria-busy", false));
function take(file) {
  if (file) turn = turn.catch(() => {}).then(() => classify(file));
  return turn;
}
const quietly = promise => promise.catch(() => {});
for (const id of ["file", "camera"]) $(id).onchange = event => {
  quietly(take(event.target.files[0]));
  event.target.value = "";
};
const over = on => event => {
  event.preventDefault();
  $("drop").classList.toggle("over", on);
};
ondragover = over(true);
ondragleave = over(false);
ondrop = event => {
  over(false)(event);
  quietly(take(event.dataTransfer.files[0]));
};
document.onpaste = event => quietly(take(event.clipboardData.files[0]));
quietly(turn);
