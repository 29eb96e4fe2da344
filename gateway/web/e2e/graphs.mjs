// The graphs in a real browser. Without LOGIN_URL it starts dev/mock.mjs with the built page (`npm run build` first), whose
// past is computed and reaches back three years. By environment:
//   LOGIN_URL    http://.../login#<one-time secret> of a gateway
//   HOST         a device with a past of 30 days (cam-07); OLD_HOST one of three years (cam-07)
//   SERVICE, METRIC  a metric of it (ping, rta)
//   LABEL        a label that several hosts have (kind=camera)
//   SHOTS        a folder for screenshots; in its folder "small" are those of docs/
//   DIST         the built page for the mock (dist)
//   CHROMIUM     the browser (/usr/bin/chromium)
// Prints a line per promise; exits with 1 when one is broken.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { FLAGS, PHONE, axe, complaints, finish, listen, must, noSidewaysScroll, picture, promise, smallPicture, until } from './kit.mjs';

const { LOGIN_URL, SHOTS, HOST = 'cam-07', OLD_HOST = 'cam-07', SERVICE = 'ping', METRIC = 'rta', LABEL = 'kind=camera', PORT = '8097' } = process.env;
const WIDE = { width: 1280, height: 900 };
const DAY = 86_400;

const web = fileURLToPath(new URL('..', import.meta.url));
const mock = LOGIN_URL ? undefined : spawn(process.execPath, ['dev/mock.mjs'], { cwd: web, env: { DIST: 'dist', ...process.env, FLEET: '25', PORT }, stdio: ['ignore', 'pipe', 'inherit'] });
if (mock) await new Promise((done) => mock.stdout.once('data', done));
const BASE = LOGIN_URL ? new URL(LOGIN_URL).origin : `http://127.0.0.1:${PORT}`;

const area = (page) => page.locator(`#graphs-${SERVICE} .graph`, { has: page.locator('h4', { hasText: METRIC }) }).first();
const graph = (page) => area(page).locator('[role=application]');

/** Opens a page, waits until the graph has values, and shows it. */
async function open(context, path) {
  const page = listen(await context.newPage());
  await page.goto(BASE + path);
  await drawn(page);
  return page;
}

/** A graph is asked for when it is near the window. */
async function drawn(page) {
  await area(page).scrollIntoViewIfNeeded();
  await area(page).locator('canvas').waitFor();
  await until('the graph has values', async (see) => / last; /.test(see(await graph(page).getAttribute('aria-label'))));
}

async function shot(page, name, at = '#graphs') {
  if (!SHOTS) return;
  await page.evaluate((at) => scrollTo(0, document.querySelector(at).getBoundingClientRect().top + scrollY - 16), at);
  await inSightIsDrawn(page);
  await page.waitForTimeout(900);
  await picture(page, SHOTS, name);
}

/** Waits for the graphs in the window: one that was far from it is asked for and drawn again. */
async function inSightIsDrawn(page) {
  await page.waitForFunction(() => ![...document.querySelectorAll('.graph')].some((graph) => {
    const { top, bottom } = graph.getBoundingClientRect();
    if (top >= innerHeight || bottom <= 0) return false;
    if (/\bloading\b/.test(graph.textContent)) return true;
    if (graph.textContent.includes('No values in this time')) return false;
    const canvas = graph.querySelector('canvas');
    if (!canvas?.width || !canvas.height) return true;
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    return !data.some((byte, i) => i % 4 === 3 && byte > 0);
  }));
}

/** Takes the picture of a graph for docs/, with its line. `color`: of that line. */
async function smallGraph(part, name, color) {
  await part.scrollIntoViewIfNeeded();
  await until(`the line of ${name} is drawn`, async (see) => see(await covered(part, color)) > 0.05);
  await smallPicture(part, SHOTS, name);
}

/** The seconds from and to of a zoom in the address. */
async function zoomIn(page) {
  let found;
  await until('the zoom stands in the address', async (see) => {
    const zoom = new URL(page.url()).searchParams.get('zoom');
    found = see(zoom)?.split('-').map(Number);
    return found?.length === 2;
  });
  return { from: found[0], to: found[1], span: found[1] - found[0] };
}

const isWhole = (page) => until('nothing is zoomed', async (see) => see(new URL(page.url()).searchParams.get('zoom')) === null);

/** Asserts that the line is on the canvas over so much of the width. */
async function lineIsDrawn(page, share) {
  const found = await covered(graph(page));
  must(found >= share, `the line covers ${Math.round(found * 100)} % of the width`);
}

/** The share of the width over which a line of this colour is on the canvas. Marks and axes have other colours. */
function covered(part, color = '--accent') {
  return part.evaluate((box, color) => {
    const canvas = box.querySelector('canvas');
    if (!canvas?.width || !canvas.height) return 0;
    const probe = box.appendChild(document.createElement('i'));
    probe.style.color = `var(${color})`;
    const one = document.createElement('canvas').getContext('2d');
    one.fillStyle = getComputedStyle(probe).color;
    probe.remove();
    one.fillRect(0, 0, 1, 1);
    const wanted = one.getImageData(0, 0, 1, 1).data;
    const { data, width } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    const columns = new Set();
    for (let i = 0; i < data.length; i += 4) {
      const far = Math.max(...[0, 1, 2].map((n) => Math.abs(data[i + n] - wanted[n])));
      if (data[i + 3] > 200 && far < 24) columns.add((i / 4) % width);
    }
    return columns.size / width;
  }, color);
}

/** Saves what a button makes; returns its name and its bytes. */
async function saved(page, button) {
  const [download] = await Promise.all([page.waitForEvent('download'), button.click()]);
  return { name: download.suggestedFilename(), data: readFileSync(await download.path()) };
}

/**
 * Asserts that values are there from the begin of the window to its end, but for a day and a half. The first bucket holds the
 * begin of the window, so it begins up to its own width earlier.
 */
async function reachesBack(page, days) {
  const { data } = await saved(page, area(page).getByRole('button', { name: /^CSV/ }));
  const lines = data.toString().trimEnd().split('\n').slice(1).map((line) => line.split(','));
  const width = (Number(lines[1][1]) - Number(lines[0][1])) / DAY;
  const known = lines.filter((fields) => fields[3] !== '');
  const [first, last] = [known.at(0), known.at(-1)].map((fields) => (Date.now() / 1000 - Number(fields[1])) / DAY);
  must(first > days - 1.5 && first < days + width + 0.1, `values of ${days} days, ${width} days a bucket, begin ${first.toFixed(2)} days ago`);
  must(last < width + 1.5, `the last values are of ${last.toFixed(2)} days ago`);
}

/** Each kind of mark has its lane above the graphs, in words too. */
async function marksThePast(page, lanes) {
  for (const lane of lanes) {
    const marks = page.getByRole('list', { name: new RegExp(`^${lane}: \\d+`) }).getByRole('listitem');
    await until(`${lane} is marked`, async (see) => see(await marks.count()) > 0);
    must(/\d/.test(await marks.first().textContent()), `a mark of ${lane} has no time in words`);
  }
}

async function movesByKeys(page) {
  await graph(page).focus();
  await page.keyboard.press('+');
  const first = await zoomIn(page);
  await page.keyboard.press('ArrowLeft');
  await until('it moved', async (see) => see((await zoomIn(page)).from) < first.from);
  const moved = await zoomIn(page);
  must(Math.abs(moved.span - first.span) <= 1, `it moved and changed its length from ${first.span} to ${moved.span}`);
  await page.keyboard.press('ArrowRight');
  await until('it moved back', async (see) => Math.abs(see((await zoomIn(page)).from) - first.from) <= 1);
  await page.keyboard.press('-');
  await until('it shows more', async (see) => see((await zoomIn(page)).span) > first.span);
  await page.keyboard.press('0');
  await isWhole(page);
}

async function zoomsByDragging(page) {
  const box = await graph(page).locator('.u-over').boundingBox();
  await page.mouse.move(box.x + box.width * 0.25, box.y + 40);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.5, box.y + 40, { steps: 5 });
  await page.mouse.up();
  const { span } = await zoomIn(page);
  must(Math.abs(span - 7.5 * DAY) < DAY, `a quarter of 30 days became ${span} s`);
  await page.reload();
  await drawn(page);
  must((await zoomIn(page)).span === span, 'the zoom does not outlive a reload');
  await page.keyboard.down('Shift');
  await page.mouse.move(box.x + box.width * 0.5, box.y + 40);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.75, box.y + 40, { steps: 5 });
  await page.mouse.up();
  await page.keyboard.up('Shift');
  await page.locator('button', { hasText: 'Reset' }).click();
  await isWhole(page);
}

/** A finger moves the window, and the page stays where it is. */
async function movesByTouch(page) {
  await graph(page).evaluate((box) => box.scrollIntoView({ block: 'center' }));
  const box = await graph(page).locator('.u-over').boundingBox();
  const touch = await page.context().newCDPSession(page);
  const at = (share) => [{ x: box.x + box.width * share, y: box.y + 50 }];
  await touch.send('Input.dispatchTouchEvent', { type: 'touchStart', touchPoints: at(0.3) });
  for (const share of [0.4, 0.5, 0.6, 0.7, 0.8]) await touch.send('Input.dispatchTouchEvent', { type: 'touchMove', touchPoints: at(share) });
  await touch.send('Input.dispatchTouchEvent', { type: 'touchEnd', touchPoints: [] });
  // The address follows the finger.
  await until('the window moved by a half', async (see) => Math.abs(Date.now() / 1000 - 3.5 * DAY - see((await zoomIn(page)).to)) < DAY);
  const { span } = await zoomIn(page);
  must(Math.abs(span - 7 * DAY) < 60, `it changed its length to ${span} s`);
  must((await graph(page).locator('.u-over').evaluate((over) => getComputedStyle(over).touchAction)) === 'pan-y', 'a finger that moves the window also scrolls');
}

/** Above a graph nothing comes or goes with the window: it stays under the finger. */
async function staysInPlace(page) {
  const top = () => graph(page).evaluate((box) => Math.round(box.getBoundingClientRect().top + scrollY));
  const before = await top();
  await graph(page).focus();
  for (const key of ['+', '+', '+', '+', 'ArrowLeft']) await page.keyboard.press(key);
  await zoomIn(page);
  await page.waitForLoadState('networkidle');
  must((await top()) === before, `the graph moved from ${before} to ${await top()}`);
  await page.keyboard.press('0');
  await isWhole(page);
}

/** What is not marked is said above the graphs, and in the table. */
async function saysWhatIsNotMarked(context) {
  const page = await open(context, '/hosts/cam-08?range=30d');
  const words = 'Events: only the newest 500 of this time are marked; zoom in to see the others';
  await page.getByText(`${words}.`).waitFor();
  await area(page).getByRole('button', { name: /^Table/ }).click();
  must((await area(page).locator('caption').textContent()).includes(words), 'the table does not say it');
  must((await area(page).getByRole('columnheader', { name: 'Marks' }).count()) === 1, 'the table has no marks');
  await axe(page);
  await page.close();
}

/** A time with more states than one answer may have is asked for in parts. */
async function showsVeryManyStates(context) {
  const page = await open(context, '/hosts/cam-09?range=3y');
  const bar = page.getByRole('img', { name: /^States of the host: / });
  await until('the states of three years are there', async (see) => /Up .*, Down/.test(see(await bar.getAttribute('aria-label'))));
  must((await page.getByText('States could not be loaded').count()) === 0, 'it says that states are missing');
  await page.close();
}

/** All graphs say their value at the moment under the pointer of one. */
async function hoversTogether(page) {
  await graph(page).evaluate((box) => box.scrollIntoView({ block: 'center' }));
  const box = await graph(page).locator('.u-over').boundingBox();
  await page.mouse.move(box.x + box.width * 0.62, box.y + 30);
  await page.mouse.move(box.x + box.width * 0.63, box.y + 34);
  await until('two graphs follow', async (see) => see(await page.locator('.graph .value:not(.soft)').count()) >= 2);
  await page.mouse.move(5, 5);
}

async function exports_(page) {
  const button = (name) => area(page).getByRole('button', { name: new RegExp(`^${name}`) });
  const csv = await saved(page, button('CSV'));
  const lines = csv.data.toString().trimEnd().split('\n');
  must(csv.name.endsWith('.csv') && csv.name.includes(METRIC), `the file is named ${csv.name}`);
  must(/^time,unix,min/.test(lines[0]) && lines.length > 100, `${lines.length} lines, the first: ${lines[0]}`);
  must(lines.slice(1).some((line) => /^\S+Z,\d+(,-?[\d.e-]+){3},\d+$/.test(line)), `a line is ${lines[1]}`);
  const png = await saved(page, button('PNG'));
  must(png.data.subarray(1, 4).toString() === 'PNG' && png.data.length > 3000, `${png.name} has ${png.data.length} bytes`);
}

async function hasATable(page) {
  await area(page).getByRole('button', { name: /^Table/ }).click();
  const rows = await area(page).locator('tbody tr').count();
  must(rows >= 20 && rows <= 48, `${rows} rows`);
  await axe(page);
  await area(page).getByRole('button', { name: /^Table/ }).click();
}

async function choosesRanges(page) {
  for (const [text, name] of [['1 h', '1h'], ['7 d', '7d'], ['1 y', '1y']]) {
    await page.getByRole('group', { name: 'Range' }).getByRole('button', { name: text, exact: true }).click();
    await until(`the range ${name} stands in the address`, async (see) => see(page.url()).includes(`range=${name}`));
  }
  await page.getByRole('button', { name: 'From ... to' }).click();
  await page.getByLabel('From', { exact: true }).fill('2026-01-01T00:00');
  await page.getByLabel('To', { exact: true }).fill('2026-02-01T00:00');
  await page.getByRole('button', { name: 'Show', exact: true }).click();
  await until('the free range stands in the address', async (see) => /from=\d+&to=\d+/.test(see(page.url())));
}

/** Two hosts or more in one graph, with their rows; by groups too. The address has it all. */
async function compares(page) {
  await page.goto(`${BASE}/compare?range=7d`);
  await page.getByLabel('Hosts', { exact: true }).fill(LABEL);
  await page.getByRole('button', { name: 'Select', exact: true }).click();
  const choice = page.getByRole('combobox', { name: 'Metric' });
  await choice.locator(`option[value="${SERVICE}/${METRIC}"]`).waitFor({ state: 'attached' });
  await choice.selectOption(`${SERVICE}/${METRIC}`);
  await until('hosts are compared', async (see) => see(await page.locator('section.plot tbody tr').count()) >= 2);
  await page.locator('section.plot canvas').waitFor();
  const csv = await saved(page, page.locator('section.plot').getByRole('button', { name: 'CSV' }));
  const [head, ...lines] = csv.data.toString().trimEnd().split('\n').map((line) => line.split(','));
  must(head.length >= 4 && lines.length > 50 && lines.some((line) => line.slice(2).filter(Boolean).length >= 2), `${csv.name} has ${lines.length} lines, the first: ${head}`);
  await shot(page, 'compare-light', 'h1');
  await axe(page);
  await page.reload();
  await until('the comparison outlives a reload', async (see) => see(await page.locator('section.plot tbody tr').count()) >= 2);
  await page.getByRole('combobox', { name: 'Lines' }).selectOption('all');
  await until('all hosts are one line', async (see) => see(await page.locator('section.plot tbody tr').count()) === 1);
  await page.getByRole('heading', { name: 'Fullest disks' }).waitFor();
}

/** The pictures of docs/ that need a past of three years: a graph, a comparison, and a phone. */
async function pictures(context, phone) {
  const years = listen(await context.newPage());
  await years.goto(`${BASE}/hosts/cam-15?range=3y`);
  const graph = years.locator('#graphs-temperature .graph').first();
  await graph.scrollIntoViewIfNeeded();
  await graph.getByText(/, average /).waitFor();
  await years.waitForTimeout(900);
  await smallGraph(graph, 'graph-3y');
  await years.setViewportSize({ width: 800, height: 900 });
  await years.goto(`${BASE}/compare?label=${encodeURIComponent(LABEL)}&service=disk&metric=used&group_by=uplink&range=7d`);
  const plot = years.locator('section.plot');
  await plot.locator('canvas').waitFor();
  await years.waitForTimeout(900);
  await smallGraph(plot.locator('.graph'), 'graph-compare', '--series-1');
  await years.close();
  await inSightIsDrawn(phone);
  await smallPicture(phone, SHOTS, 'graph-360');
}

/** Sparklines of the fleet, and the bar of the last day on each service. */
async function showsTheDay(page) {
  await page.goto(`${BASE}/`);
  await page.locator('[role=row] .trend svg').first().waitFor();
  must(/24 h: /.test(await page.locator('[role=row] .trend svg').first().getAttribute('aria-label')), 'a sparkline has no words');
  await shot(page, 'fleet-light', 'h1');
  await axe(page);
  if (!LOGIN_URL) must(/, 24 h: /.test(await page.locator('li .trend svg').first().getAttribute('aria-label')), 'a problem has no sparkline');
  await page.goto(`${BASE}/hosts/${HOST}`);
  const bar = page.locator(`#service-${SERVICE} svg[role=img]`);
  await bar.waitFor();
  must(/the last 24 hours: (OK|Warning|Critical)/.test(await bar.getAttribute('aria-label')), `the bar says ${await bar.getAttribute('aria-label')}`);
  await page.getByRole('heading', { name: 'Traffic by day' }).waitFor();
  if (LOGIN_URL) return;
  const forecast = page.locator('#service-disk .forecast');
  await forecast.getByText('the daily purge keeps it below 80 %').waitFor();
  must(/20 peaks before purges .*; earlier forecasts were off by 2 d$/.test((await forecast.textContent()).trim()), `the forecast says ${await forecast.textContent()}`);
  await page.getByText(/over the budget of 20 MB a day/).waitFor();
}

/** What the gateway says about itself stands above every page, and goes with its cause. The demo is simulated. */
async function saysWhatIsWrong(page) {
  const put = async (overview) => must((await page.request.put(`${BASE}/api/v1/overview`, { data: overview })).ok(), 'the stand-in takes no overview');
  await put({ disk_problem: 'the disk is nearly full: no history is written', simulated: true });
  await page.getByRole('alert').getByText('the disk is nearly full: no history is written').waitFor();
  await page.getByText('the devices and their past are simulated').waitFor();
  await axe(page);
  await put({});
  await page.getByText('the disk is nearly full').waitFor({ state: 'detached' });
}

const profile = mkdtempSync(join(tmpdir(), 'fleetgate-e2e-'));
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: [...FLAGS, `--crash-dumps-dir=${profile}`] });
try {
  const first = await browser.newContext({ viewport: WIDE });
  if (LOGIN_URL) {
    const page = await first.newPage();
    await page.goto(LOGIN_URL);
    await page.waitForURL(`${BASE}/`);
    await page.close();
  } else await first.addCookies([{ name: 'mock', value: '1', url: BASE }]);
  const storageState = await first.storageState();
  const context = (options) => browser.newContext({ viewport: WIDE, storageState, acceptDownloads: true, ...options });

  const light = await context({ colorScheme: 'light' });
  const month = await open(light, `/hosts/${HOST}?range=30d`);
  await promise('30 days are drawn', () => lineIsDrawn(month, 0.7));
  await promise('the values are those of 30 days', () => reachesBack(month, 30));
  await shot(month, 'graphs-30d-light');
  if (LOGIN_URL) await promise('the picture of a graph is small', () => smallGraph(area(month), 'graph'));
  await promise('axe finds nothing serious on the graphs', () => axe(month));
  await promise('the keyboard moves, zooms and resets', () => movesByKeys(month));
  await promise('a graph keeps its place while its window moves', () => staysInPlace(month));
  await promise('dragging zooms, and the zoom outlives a reload', () => zoomsByDragging(month));
  await promise('a pointer over one graph reads all of them', () => hoversTogether(month));
  await promise('a graph is saved as CSV and PNG', () => exports_(month));
  await promise('a table has the values for those who do not see the graph', () => hasATable(month));
  await promise('ranges and a free range stand in the address', () => choosesRanges(month));

  await promise('sparklines in the fleet, and a bar of the last day on a service', () => showsTheDay(month));
  await promise('one metric of many hosts is compared, and top lists stand below', () => compares(month));

  if (LOGIN_URL) await promise('the page says that the demo is simulated', () => month.getByText('the devices and their past are simulated').waitFor());
  else await promise('a full disk and a demo are said above the page', () => saysWhatIsWrong(month));

  const years = await open(light, `/hosts/${OLD_HOST}?range=3y`);
  await promise('3 years are drawn, by the day', async () => {
    // The demo has a past of 30 days.
    await lineIsDrawn(years, LOGIN_URL ? 0.015 : 0.7);
    if (!LOGIN_URL) await reachesBack(years, 3 * 365);
    must(/, 109\d d: /.test(await graph(years).getAttribute('aria-label')), await graph(years).getAttribute('aria-label'));
  });
  await shot(years, 'graphs-3y-light');
  if (!LOGIN_URL) {
    await promise('downtimes, rentals, incidents and events are marked', () => marksThePast(years, ['Downtime', 'Rental', 'Incident', 'Events']));
    await promise('it is said which events are not marked', () => saysWhatIsNotMarked(light));
    await promise('a host whose state changes all the time has its states of three years', () => showsVeryManyStates(light));
  }

  const dark = await open(await context({ colorScheme: 'dark' }), `/hosts/${HOST}?range=30d`);
  await promise('axe finds nothing serious on dark graphs', () => axe(dark));
  await shot(dark, 'graphs-30d-dark');

  const phone = await open(await context({ viewport: PHONE, hasTouch: true }), `/hosts/${HOST}?range=7d`);
  await promise('360 pixels are enough', () => noSidewaysScroll(phone));
  await promise('axe finds nothing serious at 360 pixels', () => axe(phone));
  await shot(phone, 'graphs-360');
  if (!LOGIN_URL) await promise('the pictures of three years, a comparison and a phone are small', () => pictures(light, phone));
  await promise('a finger moves the window', () => movesByTouch(phone));
  await phone.goto(`${BASE}/compare?label=${encodeURIComponent(LABEL)}&service=${SERVICE}&metric=${METRIC}`);
  await phone.locator('section.plot canvas').waitFor();
  await promise('360 pixels are enough for a comparison', () => noSidewaysScroll(phone));
  await promise('axe finds nothing serious on a comparison at 360 pixels', () => axe(phone));

  await promise('nothing complained: no script error, nothing that the policy held back', async () => {
    must(complaints.length === 0, complaints.slice(0, 5).join('\n'));
  });
} finally {
  await browser.close();
  rmSync(profile, { recursive: true, force: true });
  mock?.kill();
}
finish();
