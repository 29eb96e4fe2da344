/**
 * QR codes (ISO/IEC 18004) of a text: byte mode, error correction level L, the smallest version that fits. So a private key
 * becomes an image without leaving the browser. Pure.
 */

/** Of level L, by version; 0 stands for no version. */
const CHECK_PER_BLOCK = [0, 7, 10, 15, 20, 26, 18, 20, 24, 30, 18, 20, 24, 26, 30, 22, 24, 28, 30, 28, 28, 28, 28, 30, 30, 26, 28, ...Array<number>(14).fill(30)];
const BLOCKS = [0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 4, 6, 6, 6, 6, 7, 8, 8, 9, 9, 10, 12, 12, 12, 13, 14, 15, 16, 17, 18, 19, 19, 20, 21, 22, 24, 25];
const MOST_VERSION = 40;
const BYTE_MODE = 0b0100;
/** Alternate until the data area is full. */
const PADS = [0xec, 0x11];
const LEVEL_L = 0b01;
/** Light modules around the code, as the standard asks for. */
const QUIET = 4;

type Modules = boolean[][];

const sizeOf = (version: number): number => version * 4 + 17;

/** Where alignment patterns stand, in both directions. */
function alignmentsOf(version: number): number[] {
  if (version === 1) return [];
  const count = Math.floor(version / 7) + 2;
  const step = version === 32 ? 26 : Math.ceil((version * 4 + 4) / (count * 2 - 2)) * 2;
  const last = sizeOf(version) - 7;
  return [6, ...Array.from({ length: count - 1 }, (_, i) => last - i * step).reverse()];
}

/** All codewords of a version, of data and of correction. */
function codewordsOf(version: number): number {
  const count = version === 1 ? 0 : Math.floor(version / 7) + 2;
  const aligned = version === 1 ? 0 : (25 * count - 10) * count - 55;
  const bits = (16 * version + 128) * version + 64 - aligned - (version >= 7 ? 36 : 0);
  return Math.floor(bits / 8);
}

const dataOf = (version: number): number => codewordsOf(version) - CHECK_PER_BLOCK[version]! * BLOCKS[version]!;

/** Bits of the length that precedes the data. */
const lengthBits = (version: number): number => (version < 10 ? 8 : 16);

function versionFor(bytes: number): number | undefined {
  const versions = Array.from({ length: MOST_VERSION }, (_, i) => i + 1);
  return versions.find((version) => 4 + lengthBits(version) + bytes * 8 <= dataOf(version) * 8);
}

/** The data area: mode, length, data, end and padding. */
function dataIn(bytes: Uint8Array, version: number): number[] {
  const bits: number[] = [];
  const put = (value: number, count: number): void => {
    for (let i = count - 1; i >= 0; i -= 1) bits.push((value >>> i) & 1);
  };
  put(BYTE_MODE, 4);
  put(bytes.length, lengthBits(version));
  bytes.forEach((byte) => put(byte, 8));
  put(0, Math.min(4, dataOf(version) * 8 - bits.length));
  put(0, (8 - (bits.length % 8)) % 8);
  for (let i = 0; bits.length < dataOf(version) * 8; i += 1) put(PADS[i % 2]!, 8);
  return Array.from({ length: bits.length / 8 }, (_, i) => bits.slice(i * 8, i * 8 + 8).reduce((byte, bit) => byte * 2 + bit, 0));
}

/** In GF(2^8) with the polynomial 0x11d. */
function product(a: number, b: number): number {
  let result = 0;
  for (let i = 7; i >= 0; i -= 1) {
    result = (result << 1) ^ ((result >>> 7) * 0x11d);
    if ((b >>> i) & 1) result ^= a;
  }
  return result;
}

/** The generator of so many codewords of correction, without its leading 1. */
function generatorOf(count: number): number[] {
  const result = [...Array<number>(count - 1).fill(0), 1];
  let root = 1;
  for (let i = 0; i < count; i += 1) {
    for (let j = 0; j < count; j += 1) result[j] = product(result[j]!, root) ^ (result[j + 1] ?? 0);
    root = product(root, 2);
  }
  return result;
}

function checkOf(data: readonly number[], generator: readonly number[]): number[] {
  const rest = Array<number>(generator.length).fill(0);
  for (const byte of data) {
    const factor = byte ^ rest.shift()!;
    rest.push(0);
    generator.forEach((one, i) => (rest[i]! ^= product(one, factor)));
  }
  return rest;
}

/** The codewords in the order in which they are drawn: a codeword of each block in turn. The first blocks may be shorter by one. */
function interleaved(data: readonly number[], version: number): number[] {
  const [blocks, check, all] = [BLOCKS[version]!, CHECK_PER_BLOCK[version]!, codewordsOf(version)];
  const short = blocks - (all % blocks);
  const length = Math.floor(all / blocks) - check;
  const generator = generatorOf(check);
  const begin = (block: number): number => block * length + Math.max(0, block - short);
  const parts = Array.from({ length: blocks }, (_, i) => data.slice(begin(i), begin(i + 1)));
  const checks = parts.map((part) => checkOf(part, generator));
  const inTurn = (lists: readonly number[][], most: number): number[] => Array.from({ length: most }, (_, i) => lists.flatMap((list) => list[i] ?? [])).flat();
  return [...inTurn(parts, length + 1), ...inTurn(checks, check)];
}

/** A code while it is drawn. `fixed`: modules that hold no data. */
class Drawing {
  readonly size: number;
  readonly modules: Modules;
  readonly fixed: Modules;

  constructor(private readonly version: number) {
    this.size = sizeOf(version);
    const empty = (): Modules => Array.from({ length: this.size }, () => Array<boolean>(this.size).fill(false));
    [this.modules, this.fixed] = [empty(), empty()];
    this.patterns();
  }

  private fix(x: number, y: number, dark: boolean): void {
    if (x < 0 || y < 0 || x >= this.size || y >= this.size) return;
    this.modules[y]![x] = dark;
    this.fixed[y]![x] = true;
  }

  private patterns(): void {
    for (let i = 0; i < this.size; i += 1) {
      this.fix(6, i, i % 2 === 0);
      this.fix(i, 6, i % 2 === 0);
    }
    const far = this.size - 4;
    for (const [x, y] of [[3, 3], [far, 3], [3, far]] as const) this.rings(x, y, 4, [2, 4]);
    const at = alignmentsOf(this.version);
    const corner = (x: number, y: number): boolean => (x === 6 && y === 6) || (x === 6 && y === at.at(-1)) || (x === at.at(-1) && y === 6);
    for (const x of at) for (const y of at) if (!corner(x, y)) this.rings(x, y, 2, [1]);
    this.format(0);
    if (this.version >= 7) this.versionBits();
  }

  /** Squares around a module; `light`: the distances of those that are. */
  private rings(x: number, y: number, radius: number, light: readonly number[]): void {
    for (let dy = -radius; dy <= radius; dy += 1) {
      for (let dx = -radius; dx <= radius; dx += 1) this.fix(x + dx, y + dy, !light.includes(Math.max(Math.abs(dx), Math.abs(dy))));
    }
  }

  /** The level and the mask, twice, with a BCH code. */
  format(mask: number): void {
    const data = (LEVEL_L << 3) | mask;
    let rest = data;
    for (let i = 0; i < 10; i += 1) rest = (rest << 1) ^ ((rest >>> 9) * 0x537);
    const bits = ((data << 10) | rest) ^ 0x5412;
    const bit = (i: number): boolean => ((bits >>> i) & 1) === 1;
    for (let i = 0; i <= 5; i += 1) this.fix(8, i, bit(i));
    this.fix(8, 7, bit(6));
    this.fix(8, 8, bit(7));
    this.fix(7, 8, bit(8));
    for (let i = 9; i < 15; i += 1) this.fix(14 - i, 8, bit(i));
    for (let i = 0; i < 8; i += 1) this.fix(this.size - 1 - i, 8, bit(i));
    for (let i = 8; i < 15; i += 1) this.fix(8, this.size - 15 + i, bit(i));
    this.fix(8, this.size - 8, true);
  }

  private versionBits(): void {
    let rest = this.version;
    for (let i = 0; i < 12; i += 1) rest = (rest << 1) ^ ((rest >>> 11) * 0x1f25);
    const bits = (this.version << 12) | rest;
    for (let i = 0; i < 18; i += 1) {
      const [a, b, dark] = [this.size - 11 + (i % 3), Math.floor(i / 3), ((bits >>> i) & 1) === 1];
      this.fix(a, b, dark);
      this.fix(b, a, dark);
    }
  }

  /** In columns of two from the right, up and down in turn. */
  data(codewords: readonly number[]): void {
    let i = 0;
    for (let right = this.size - 1; right >= 1; right -= 2) {
      if (right === 6) right = 5;
      const up = ((right + 1) & 2) === 0;
      for (let step = 0; step < this.size; step += 1) {
        const y = up ? this.size - 1 - step : step;
        for (const x of [right, right - 1]) {
          if (this.fixed[y]![x] || i >= codewords.length * 8) continue;
          this.modules[y]![x] = ((codewords[i >>> 3]! >>> (7 - (i & 7))) & 1) === 1;
          i += 1;
        }
      }
    }
  }

  /** Twice the same mask is none. */
  mask(invert: (x: number, y: number) => boolean): void {
    for (let y = 0; y < this.size; y += 1) {
      for (let x = 0; x < this.size; x += 1) if (!this.fixed[y]![x] && invert(x, y)) this.modules[y]![x] = !this.modules[y]![x];
    }
  }
}

const MASKS: readonly ((x: number, y: number) => boolean)[] = [
  (x, y) => (x + y) % 2 === 0,
  (_, y) => y % 2 === 0,
  (x) => x % 3 === 0,
  (x, y) => (x + y) % 3 === 0,
  (x, y) => (Math.floor(x / 3) + Math.floor(y / 2)) % 2 === 0,
  (x, y) => ((x * y) % 2) + ((x * y) % 3) === 0,
  (x, y) => (((x * y) % 2) + ((x * y) % 3)) % 2 === 0,
  (x, y) => (((x + y) % 2) + ((x * y) % 3)) % 2 === 0,
];

/** What readers find hard: long runs, what looks like a finder pattern, squares, and too much of one colour. */
function penalty(modules: Modules): number {
  const columns = modules.map((_, x) => modules.map((row) => row[x]!));
  const lines = [...modules, ...columns].map((line) => line.map((dark) => (dark ? '1' : '0')).join(''));
  const runs = lines.flatMap((line) => line.match(/0{5,}|1{5,}/g) ?? []).reduce((sum, run) => sum + run.length - 2, 0);
  const finders = lines.reduce((sum, line) => sum + [...line.matchAll(/(?=00001011101|10111010000)/g)].length * 40, 0);
  let squares = 0;
  for (let y = 1; y < modules.length; y += 1) {
    for (let x = 1; x < modules.length; x += 1) if (new Set([modules[y]![x], modules[y - 1]![x], modules[y]![x - 1], modules[y - 1]![x - 1]]).size === 1) squares += 3;
  }
  const dark = modules.flat().filter(Boolean).length / modules.length ** 2;
  return runs + finders + squares + Math.floor(Math.abs(dark * 20 - 10)) * 10;
}

/** The modules of a code, by rows; `true` is dark. `undefined` for a text that no code holds. */
export function modulesOf(text: string): Modules | undefined {
  const bytes = new TextEncoder().encode(text);
  const version = versionFor(bytes.length);
  if (version === undefined) return undefined;
  const drawing = new Drawing(version);
  drawing.data(interleaved(dataIn(bytes, version), version));
  const penalties = MASKS.map((mask, n) => {
    drawing.mask(mask);
    drawing.format(n);
    const found = penalty(drawing.modules);
    drawing.mask(mask);
    return found;
  });
  const best = penalties.indexOf(Math.min(...penalties));
  drawing.mask(MASKS[best]!);
  drawing.format(best);
  return drawing.modules;
}

/** An image of the code. */
export function qrSvg(text: string): string | undefined {
  const modules = modulesOf(text);
  if (!modules) return undefined;
  const size = modules.length + 2 * QUIET;
  const path = modules.flatMap((row, y) => row.flatMap((dark, x) => (dark ? [`M${x + QUIET} ${y + QUIET}h1v1h-1z`] : []))).join('');
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${size} ${size}" shape-rendering="crispEdges"><rect width="${size}" height="${size}" fill="#fff"/><path d="${path}"/></svg>`;
}
