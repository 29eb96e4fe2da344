// What the browser tests share: promises that are printed, conditions that are awaited, and looks at a page.
import { mkdirSync, readFileSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
export const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];
export const PHONE = { width: 360, height: 780 };

let failed = 0;
/** What the pages complained about, all of them together. */
export const complaints = [];

export function must(condition, what) {
  if (!condition) throw new Error(what);
}

export async function promise(text, keep) {
  try {
    await keep();
    console.log(`ok    ${text}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL  ${text}\n      ${String(error.message).split('\n').slice(0, 6).join('\n      ')}`);
  }
}

/** Prints the sum, and ends the program: with 1 if a promise is broken. */
export function finish() {
  console.log(failed === 0 ? 'all promises kept' : `${failed} broken`);
  process.exit(failed === 0 ? 0 : 1);
}

export async function until(what, ask, ms = 15_000) {
  const end = Date.now() + ms;
  let seen;
  while (Date.now() < end) {
    if (await ask((value) => (seen = value))) return;
    await new Promise((done) => setTimeout(done, 150));
  }
  throw new Error(`${what}: not within ${ms / 1000} s; last seen: ${seen}`);
}

export function listen(page) {
  page.on('pageerror', (error) => complaints.push(error.message));
  page.on('console', (message) => {
    const expected = /Failed to load resource/.test(message.text());
    if (message.type() === 'error' && !expected) complaints.push(message.text());
  });
  return page;
}

/** `within`: a selector of the part that is judged. */
export async function axe(page, within = 'html') {
  await page.evaluate(AXE);
  // A colour on its way to another one has no contrast of its own.
  await page.evaluate(() => Promise.allSettled(document.getAnimations().filter((one) => one instanceof CSSTransition).map((one) => one.finished)));
  const found = await page.evaluate((within) => window.axe.run(document.querySelector(within), { resultTypes: ['violations'] }), within);
  const grave = found.violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
  must(grave.length === 0, grave.map((one) => `${one.id}: ${one.nodes.slice(0, 3).map((node) => `${node.html.slice(0, 140)} ${node.any?.[0]?.message ?? ''}`).join(' | ')}`).join('\n'));
}

export async function noSidewaysScroll(page) {
  const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  must(over <= 0, `${page.url()} is ${over} pixels too wide`);
}

/** Takes a picture if there is a folder for it. */
export async function picture(page, folder, name) {
  if (!folder) return;
  mkdirSync(folder, { recursive: true });
  await page.screenshot({ path: join(folder, `${name}.png`) });
}

/** Bytes of a picture for the documentation, which the repository keeps in each of its versions. */
const SMALL = 60 * 1024;

/** Takes a picture of a part for the documentation, below `small` in the folder. */
export async function smallPicture(part, folder, name) {
  if (!folder) return;
  const path = join(folder, 'small', `${name}.png`);
  await part.screenshot({ path });
  const { size } = statSync(path);
  must(size <= SMALL, `${path} has ${size} bytes`);
}
