// The dashboard in a real browser, against a gateway with the demo's fleet. By environment:
//   LOGIN_URL    http://.../login#<one-time secret>                          (needed)
//   OFF_COMMAND  a shell command that switches the device OFF_HOST off; ON_COMMAND switches it on
//   OFF_HOST     its name (cam-07)
//   STATUS_COMMAND  `fleetgate status --quiet`, whose counts are to be those of the page
//   LINK_COMMAND    prints another login link of the same user
//   VIEWER_COMMAND  prints a login link of a user with the role viewer
//   EXPECT       the strip, as `24/0/0/0 49/2/5/0/0`; what is handled stands beside it
//   SHOTS        a folder for screenshots
//   CHROMIUM     the browser (/usr/bin/chromium)
// Prints a line per promise; exits with 1 when one is broken.
import { execSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { usesOwnPage } from './customer.mjs';
import { FLAGS, PHONE, axe, complaints, finish, listen, must, noSidewaysScroll, picture, promise, until } from './kit.mjs';

const { LOGIN_URL, STATUS_COMMAND, OFF_COMMAND, ON_COMMAND, LINK_COMMAND, VIEWER_COMMAND, SHOTS, OFF_HOST = 'cam-07', EXPECT = '24/0/0/0 49/2/5/0/0' } = process.env;
if (!LOGIN_URL) throw new Error('LOGIN_URL is not set: give the link that the gateway printed');
const BASE = new URL(LOGIN_URL).origin;
/** The demo may take so long until every check has run. */
const SETTLED_MS = 120_000;
/** A device that goes off is noticed within its attempts. */
const NOTICED_MS = 60_000;
const WIDE = { width: 1280, height: 860 };

const strip = (page) =>
  page.evaluate(() => {
    const count = (name) => document.querySelector(`[data-count="${name}"] .count`)?.textContent?.replace(/\D/g, '') ?? '?';
    const of = (group, kinds) => kinds.map((kind) => count(`${group}-${kind}`)).join('/');
    return `${of('hosts', ['up', 'down', 'unreachable', 'pending'])} ${of('services', ['ok', 'warning', 'critical', 'unknown', 'pending'])}`;
  });

const stripIs = (page, wanted, ms) => until(`the strip shows ${wanted}`, async (see) => see(await strip(page)) === wanted, ms);
const rows = (page) => page.locator('[role=row] a[data-index]');
const focused = (page) => page.evaluate(() => document.activeElement?.textContent?.trim());

async function open(context, path) {
  const page = listen(await context.newPage());
  await page.goto(BASE + path);
  await page.locator('h1').first().waitFor();
  return page;
}

const shot = (page, name) => picture(page, SHOTS, name);

async function walkByKeyboard(page) {
  await page.goto(`${BASE}/`);
  await rows(page).first().waitFor();
  const problems = await page.locator('li a[data-row]').count();
  await page.keyboard.press('j');
  const first = await focused(page);
  await page.keyboard.press('j');
  must(first !== (await focused(page)), `j stays on ${first}`);
  await page.keyboard.press('k');
  must(first === (await focused(page)), 'k does not lead back');
  for (let i = 0; i < problems; i += 1) await page.keyboard.press('j');
  const row = await focused(page);
  must(row === (await rows(page).first().textContent())?.trim(), `after the problems come the hosts, not ${row}`);
  const ring = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  must(ring !== 'none', 'the focus cannot be seen');
  await page.keyboard.press('Enter');
  await page.waitForURL(`**/hosts/${row}`);
  await page.keyboard.press('g');
  await page.waitForURL(`${BASE}/`);
}

async function search(page) {
  await page.goto(`${BASE}/`);
  await rows(page).first().waitFor();
  await page.keyboard.press('/');
  await page.keyboard.type(OFF_HOST);
  await until('one row is left', async (see) => see(await rows(page).count()) === 1);
  must(page.url().endsWith(`?q=${OFF_HOST}`), `the search does not stand in the address: ${page.url()}`);
  await page.keyboard.press('Escape');
  await page.reload();
  await until('the search outlives a reload', async (see) => see(await rows(page).count()) === 1);
}

async function filterByStrip(page) {
  const [up] = EXPECT.split(/[/ ]/);
  await page.goto(`${BASE}/`);
  await rows(page).first().waitFor();
  await page.locator('[data-count=hosts-up]').click();
  await until('only hosts that are up are left', async (see) => see(await rows(page).count()) === Number(up));
  must(new URL(page.url()).search === '?state=up', `the filter does not stand in the address: ${page.url()}`);
  await page.locator('[data-count=hosts-up]').click();
}

async function openHost(page) {
  await page.goto(`${BASE}/?q=${OFF_HOST}`);
  await rows(page).first().click();
  await page.getByRole('heading', { level: 1, name: OFF_HOST }).waitFor();
  for (const part of ['Services', 'Tunnel', 'Events']) await page.getByRole('heading', { name: part, exact: true }).waitFor();
  await page.locator('li[id^=service-]').first().waitFor();
  await page.getByText('Last handshake', { exact: true }).waitFor();
}

async function theme(page) {
  const paper = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  const button = page.getByRole('button', { name: /^Theme:/ });
  const before = await paper();
  await until('the page turns dark', async (see) => {
    if (see(await button.getAttribute('title')) === 'Theme: dark') return true;
    await button.click();
    return false;
  });
  const dark = await paper();
  must(dark !== before, `dark looks like light: ${dark}`);
  await page.reload();
  await button.waitFor();
  must((await paper()) === dark, 'the choice does not outlive a reload');
}

async function help(page) {
  await page.goto(`${BASE}/`);
  await rows(page).first().waitFor();
  await page.keyboard.press('?');
  await page.getByRole('dialog').waitFor();
  await page.keyboard.press('Escape');
  await page.getByRole('dialog').waitFor({ state: 'hidden' });
}

/** From the first problem that belongs to something; gives the path. */
async function openIncident(page) {
  await page.goto(`${BASE}/`);
  await page.locator('section[aria-labelledby=problems] a.incident').first().click();
  await page.waitForURL(/incidents.i_/);
  for (const part of ['Acknowledgement', 'Members', 'Notified', 'Timeline']) await page.getByRole('heading', { name: part, exact: true }).waitFor();
  await page.locator('section[aria-labelledby=members] li a').first().waitFor();
  await page.locator('section[aria-labelledby=timeline]').getByText('Opened', { exact: true }).waitFor();
  return new URL(page.url()).pathname;
}

/** An incident is acknowledged, with author and end, and the acknowledgement is withdrawn. */
async function acknowledgeIncident(page) {
  const comment = page.getByRole('textbox', { name: 'Comment' });
  await comment.fill('a ladder is on its way');
  await page.getByRole('button', { name: 'Acknowledge', exact: true }).click();
  await page.locator('section[aria-labelledby=known]').getByText(/Acknowledged by admin[^]*until it recovers[^]*a ladder is on its way/).waitFor();
  await page.getByRole('button', { name: 'Withdraw', exact: true }).click();
  await page.getByRole('button', { name: 'Acknowledge', exact: true }).waitFor();
}

const conf = (page) => page.getByRole('dialog').locator('pre');

/** Every way of leaving asks before a private key that is shown once is lost. */
async function keepsWhatIsShownOnce(page, name) {
  await page.goto(`${BASE}/?q=${OFF_HOST}`);
  await rows(page).first().click();
  await page.getByRole('link', { name: 'Fleet' }).first().click();
  await page.getByRole('button', { name: 'Add a device' }).click();
  await page.getByLabel('Name', { exact: true }).fill(name);
  await page.getByRole('button', { name: 'Add', exact: true }).click();
  await page.getByText('it cannot be shown again').first().waitFor();
  await shot(page, 'once-light');
  const text = await conf(page).textContent();
  must(text.includes('PrivateKey'), 'the configuration has no key');
  const still = async (way) => must((await conf(page).textContent({ timeout: 3000 })) === text, `${way} closed it`);
  for (const nth of ['first', 'second', 'third', 'fourth', 'fifth']) {
    await page.keyboard.press('Escape');
    await still(`the ${nth} Escape`);
  }
  await page.getByText('Have you saved it?').waitFor();
  await shot(page, 'once-asks-light');
  await page.getByRole('button', { name: 'Keep it open' }).click();
  await page.getByRole('button', { name: 'Close', exact: true }).first().click();
  await still('the cross');
  await page.mouse.click(4, 4);
  await still('a click beside');
  await page.goBack();
  await page.waitForURL(`**/hosts/${OFF_HOST}`);
  await still('going back');
  const asked = new Promise((done) => page.once('dialog', (dialog) => void dialog.dismiss().then(() => done(dialog.type()))));
  await page.evaluate(() => setTimeout(() => location.reload(), 0));
  must((await asked) === 'beforeunload', 'a reload does not ask');
  await still('a reload');
  await axe(page);
  await page.getByRole('button', { name: 'Saved, close' }).click();
  await page.getByRole('dialog').waitFor({ state: 'hidden' });
  must(!(await page.content()).includes('PrivateKey'), 'the key is still in the page');
  return text;
}

/** New keys are made only after a question, and shown once like the first ones. */
async function reissues(page, name, before) {
  await page.goto(`${BASE}/hosts/${name}`);
  const begin = page.getByRole('button', { name: 'Reissue configuration' });
  const question = page.getByText('stops working at once');
  await begin.click();
  await question.waitFor();
  await shot(page, 'reissue-light');
  await page.getByRole('button', { name: 'Cancel' }).click();
  await page.getByRole('dialog').waitFor({ state: 'hidden' });
  await begin.click();
  await question.waitFor();
  await page.getByRole('button', { name: 'Replace keys' }).click();
  await page.getByText('it cannot be shown again').first().waitFor();
  const after = await conf(page).textContent();
  const key = (text) => text.match(/PrivateKey = (.*)/)?.[1];
  must(key(after) && key(after) !== key(before), 'the key is the former one');
  await page.keyboard.press('Escape');
  await page.getByRole('button', { name: 'Saved, close' }).click();
  await page.getByRole('dialog').waitFor({ state: 'hidden' });
}

const dialog = (page) => page.getByRole('dialog');
const press = (where, name) => where.getByRole('button', { name, exact: true }).click();
const closed = (page) => dialog(page).waitFor({ state: 'hidden' });
const combo = (page, name) => dialog(page).getByRole('combobox', { name, exact: true });

/** The field that was refused is marked, and has the focus. */
async function isMarked(page, label) {
  const focus = () => page.evaluate(() => `${document.activeElement.labels?.[0]?.textContent.trim()} ${document.activeElement.getAttribute('aria-invalid')}`);
  await until(`${label} is marked`, async (see) => see(await focus()) === `${label} true`);
}

/** A device is renamed, relabelled and gets an MTU; a refused name keeps the input; the removal asks once. */
async function editsAndRemoves(page, name) {
  await page.goto(`${BASE}/hosts/${name}`);
  await press(page, 'Edit');
  await dialog(page).getByLabel('Name').fill(OFF_HOST);
  await dialog(page).getByLabel('Labels').fill('site=north side\nkind=spare');
  await press(dialog(page), 'Save');
  await dialog(page).getByText(/taken/).waitFor();
  must((await dialog(page).getByLabel('Labels').inputValue()) === 'site=north side\nkind=spare', 'a refused name loses the labels');
  await dialog(page).getByLabel('Name').fill(`${name}-b`);
  await press(dialog(page), 'Save');
  await page.waitForURL(`**/hosts/${name}-b`);
  await page.getByRole('heading', { level: 1, name: `${name}-b` }).waitFor();
  await page.getByText('site=north side', { exact: true }).waitFor();
  const tunnel = page.locator('section[aria-labelledby=tunnel]');
  await tunnel.getByText('1280 bytes (default)').waitFor();
  await press(page, 'Edit');
  await dialog(page).getByLabel('MTU').fill('1400');
  await shot(page, 'edit-light');
  await press(dialog(page), 'Save');
  await tunnel.getByText('1400 bytes').waitFor();
  await press(page, 'Edit');
  await dialog(page).getByRole('button', { name: /^Remove this device/ }).click();
  await dialog(page).getByText('Its tunnel ends now').waitFor();
  await axe(page);
  await shot(page, 'remove-light');
  await press(dialog(page), 'Remove device');
  await page.waitForURL(`${BASE}/`);
  await page.getByText(`Removed ${name}-b`).waitFor();
}

/** A downtime is added, changed and ended, each time with author and end. */
async function undoesADowntime(page) {
  await page.goto(`${BASE}/hosts/${OFF_HOST}`);
  await press(page, 'Downtime');
  await until('the form begins in its first field', async (see) => see(await page.evaluate(() => document.activeElement?.tagName)) === 'INPUT');
  await dialog(page).getByLabel('Comment').fill('new disk');
  await axe(page);
  await shot(page, 'downtime-form-light');
  await press(dialog(page), 'Add');
  const card = page.locator('section[aria-labelledby=downtimes]');
  await card.getByText(/ends in 1 h/).waitFor();
  await card.getByText(/By admin: new disk/).waitFor();
  await press(card, `Change: ${OFF_HOST}`);
  await press(dialog(page), '8 h');
  await press(dialog(page), 'Save');
  await card.getByText(/ends in (7|8) h/).waitFor();
  must((await card.locator('li').count()) === 1, 'the former downtime is still there');
  await page.goto(`${BASE}/downtimes`);
  const active = page.locator('section[aria-labelledby=active]');
  await active.getByRole('link', { name: OFF_HOST }).waitFor();
  await axe(page);
  await shot(page, 'downtimes-light');
  await press(active, `End: ${OFF_HOST}`);
  await press(dialog(page), 'End downtime');
  await active.getByText('No active downtimes.').waitFor();
}

/** The first host that is down is acknowledged with an end, and the acknowledgement is withdrawn. */
async function undoesAnAcknowledgement(page) {
  await page.goto(`${BASE}/`);
  await page.locator('section[aria-labelledby=problems] li', { hasText: 'Down' }).first().locator('a[data-row]').click();
  await press(page, 'Acknowledge');
  await dialog(page).getByLabel('Comment').fill('on the bench');
  await dialog(page).getByLabel('Ends').selectOption({ label: 'when it recovers' });
  await dialog(page).getByLabel('Expires').selectOption({ label: 'in 4 h' });
  await press(dialog(page), 'Acknowledge');
  await page.getByText(/Acknowledged by admin[^]*until it recovers, expires in (3|4) h[^]*on the bench/).waitFor();
  await page.getByRole('button', { name: /^Withdraw acknowledgement/ }).first().click();
  await page.getByRole('button', { name: 'Acknowledge', exact: true }).waitFor();
}

/** A token is created with its command, which is shown once, and revoked. */
async function createsAToken(page) {
  await page.goto(`${BASE}/enrolments`);
  await press(page, 'Create a token');
  await dialog(page).getByLabel('Name').fill('e2e field');
  await dialog(page).getByLabel('Labels of the devices').fill('kind=camera');
  await axe(page);
  await press(dialog(page), 'Create');
  await dialog(page).getByText('it cannot be shown again').first().waitFor();
  const command = await conf(page).textContent();
  must(/enrol\.sh .*--token fge_/.test(command), `no command: ${command}`);
  await shot(page, 'token-once-light');
  await axe(page);
  await page.keyboard.press('Escape');
  await press(page, 'Saved, close');
  await closed(page);
  must(!(await page.content()).includes('fge_'), 'the token is still in the page');
  await shot(page, 'approvals-light');
  await press(page, 'Revoke e2e field');
  await press(dialog(page), 'Revoke');
  await page.getByText('No active tokens.').waitFor();
}

/** Without an endpoint the first device asks for it; a refused one keeps the input. The gateway is stood in for. */
async function asksForTheEndpoint(context) {
  const page = listen(await context.newPage());
  let asked = '';
  await page.route('**/api/v1/gateway', async (route) => {
    const answer = await route.fetch();
    await route.fulfill({ response: answer, json: { ...(await answer.json()), endpoint: null, endpoint_configured: false } });
  });
  await page.route('**/api/v1/gateway/endpoint', (route) => {
    asked = route.request().postDataJSON().endpoint;
    return route.fulfill({ status: 422, contentType: 'application/problem+json', body: JSON.stringify({ status: 422, code: 'invalid', detail: 'endpoint: not an endpoint', errors: [{ field: 'endpoint', detail: 'not an endpoint' }] }) });
  });
  await page.goto(`${BASE}/`);
  await press(page, 'Add a device');
  await dialog(page).getByLabel('Endpoint of the gateway').fill('vpn.example.com:51820');
  await dialog(page).getByLabel('Name', { exact: true }).fill('first');
  await axe(page);
  await shot(page, 'endpoint-light');
  await press(dialog(page), 'Add');
  await dialog(page).getByText('Endpoint of the gateway: not an endpoint').waitFor();
  await isMarked(page, 'Endpoint of the gateway');
  must(asked === 'vpn.example.com:51820', `asked for ${asked}`);
  must((await dialog(page).getByLabel('Name', { exact: true }).inputValue()) === 'first', 'a refused endpoint loses the name');
  await page.close();
}

const userOf = (page) => dialog(page).getByRole('combobox', { name: 'User', exact: true });

/** A grant is refused with its reason, added, seen on its host, changed and withdrawn. */
async function grantsAccess(page) {
  await page.goto(`${BASE}/access`);
  const active = page.locator('section[aria-labelledby=active]');
  await active.getByText('every device').first().waitFor();
  await axe(page);
  await shot(page, 'access-light');
  await press(page, 'Add a grant');
  await userOf(page).selectOption('admin');
  await dialog(page).getByLabel('Host', { exact: true }).fill(OFF_HOST);
  await dialog(page).getByText(`1 host now: ${OFF_HOST}`).waitFor();
  await dialog(page).getByLabel('TCP ports').fill('22, 70000');
  await dialog(page).getByLabel('Reason').fill('new firmware');
  await press(dialog(page), '8 h');
  await axe(page);
  await press(dialog(page), 'Add');
  await dialog(page).getByText(/^TCP ports: "70000": a port from 1 to 65535/).waitFor();
  await isMarked(page, 'TCP ports');
  must((await dialog(page).getByLabel('Reason').inputValue()) === 'new firmware', 'a refused port loses the reason');
  await shot(page, 'grant-form-light');
  await dialog(page).getByLabel('TCP ports').fill('22, 8000-8100');
  await press(dialog(page), 'Add');
  await closed(page);
  const name = `User admin to ${OFF_HOST}`;
  const row = active.locator('li', { hasText: 'new firmware' });
  await row.getByText('TCP 22, 8000-8100').waitFor();
  await row.getByText(/Ends in (7|8) h/).waitFor();
  await page.goto(`${BASE}/hosts/${OFF_HOST}`);
  const card = page.locator('section[aria-labelledby=access]');
  await card.locator('li', { hasText: 'User admin' }).getByText(/ping, TCP 22, 8000-8100/).waitFor();
  await shot(page, 'host-access-light');
  await card.getByRole('link', { name: 'All grants' }).click();
  await press(active, `Change end: ${name}`);
  await dialog(page).getByLabel(/^End/).fill('');
  await press(dialog(page), 'Save');
  await row.getByText('Until it is withdrawn').waitFor();
  await press(active, `Withdraw: ${name}`);
  await dialog(page).getByText('end at once').waitFor();
  await press(dialog(page), 'Withdraw');
  await row.waitFor({ state: 'detached' });
  await press(page, 'Show past grants');
  await page.locator('section[aria-labelledby=past] li', { hasText: 'new firmware' }).getByText(/Withdrawn .* by admin/).waitFor();
}

/** A selection that selects nothing is said before and after it is added. */
async function saysThatASelectionIsEmpty(page) {
  await page.goto(`${BASE}/access`);
  await press(page, 'Add a grant');
  await dialog(page).getByLabel('Who').selectOption({ label: 'Everyone with a role' });
  await dialog(page).getByLabel('May reach').selectOption({ label: 'Hosts by label' });
  await dialog(page).getByLabel('Labels').fill('kind=submarine');
  await dialog(page).getByText('Selects no host with a tunnel now.').waitFor();
  await press(dialog(page), 'Add');
  await page.getByText('It permits nothing yet').waitFor();
  await page.getByText('Selects no host now, so it permits nothing.').waitFor();
  await press(page, 'Withdraw: Role operator to hosts with kind=submarine');
  await press(dialog(page), 'Withdraw');
  await page.getByText('Selects no host now, so it permits nothing.').waitFor({ state: 'detached' });
}

/** An operator is added with keys that are shown once, gets new ones, and is removed. */
async function managesOperators(page) {
  await page.goto(`${BASE}/access`);
  const section = page.locator('section[aria-labelledby=operators]');
  await section.getByText('No operators.').waitFor();
  const begin = async () => {
    await press(page, 'Add an operator');
    await dialog(page).getByLabel('Name', { exact: true }).fill('e2e-laptop');
    await userOf(page).selectOption('admin');
  };
  await begin();
  await dialog(page).getByLabel('Public key (optional)').fill('not a key');
  await press(dialog(page), 'Add');
  await dialog(page).getByText(/^Public key: /).waitFor();
  await dialog(page).getByLabel('Public key (optional)').fill('');
  await press(dialog(page), 'Add');
  await dialog(page).getByText('Waiting for the first handshake').waitFor();
  const first = await conf(page).textContent();
  must(first.includes('PrivateKey') && !/^DNS/m.test(first), 'no configuration');
  await axe(page);
  await shot(page, 'operator-once-light');
  await page.keyboard.press('Escape');
  await press(page, 'Saved, close');
  await closed(page);
  must(!(await page.content()).includes('PrivateKey'), 'the key is still in the page');
  await section.getByText('e2e-laptop').waitFor();
  await begin();
  await press(dialog(page), 'Add');
  await dialog(page).getByText(/choose another name/).waitFor();
  await press(dialog(page), 'Cancel');
  await shot(page, 'operators-light');
  await section.getByText('MTU 1280 bytes (default)').waitFor();
  await press(section, 'Edit e2e-laptop');
  await dialog(page).getByLabel('MTU').fill('1400');
  await axe(page);
  await press(dialog(page), 'Save');
  await section.getByText('MTU 1400 bytes').waitFor();
  await press(section, 'Reissue the configuration of e2e-laptop');
  await dialog(page).getByText('stops working at once').waitFor();
  await press(dialog(page), 'Replace keys');
  await dialog(page).getByText('it cannot be shown again').first().waitFor();
  must((await conf(page).textContent()) !== first, 'the configuration is the former one');
  await page.keyboard.press('Escape');
  await press(page, 'Saved, close');
  await closed(page);
  await press(section, 'Remove e2e-laptop');
  await press(dialog(page), 'Remove operator');
  await section.getByText('No operators.').waitFor();
}

/** Noon some days from now, as a field for date and time has it. */
function noonIn(days) {
  const at = new Date(Date.now() + days * 86_400_000);
  return `${at.getFullYear()}-${String(at.getMonth() + 1).padStart(2, '0')}-${String(at.getDate()).padStart(2, '0')}T12:00`;
}

/** A device becomes rentable, is booked, extended as far as what follows allows, and cancelled. */
async function rentsADevice(page) {
  const device = 'cam-18';
  await page.goto(`${BASE}/hosts/${device}`);
  const card = page.locator('section[aria-labelledby=rental]');
  await press(card, 'Rental settings');
  await dialog(page).getByLabel('It can be booked').check();
  await dialog(page).getByLabel('Preparation in minutes').fill('30');
  await dialog(page).getByLabel('Turnaround in minutes').fill('60');
  await press(dialog(page), 'Save');
  await card.getByText('Can be booked. Preparation 30 min, turnaround 1 h.').waitFor();
  await press(card, 'Rental settings');
  await dialog(page).getByLabel('Hand it over only while it is OK').check();
  await dialog(page).getByLabel('OK for, in minutes').fill('1');
  await combo(page, 'Services that count').selectOption({ label: 'Only some' });
  await press(dialog(page), 'Save');
  await dialog(page).getByText('choose a service').waitFor();
  await combo(page, 'Services that count').selectOption({ label: 'All of them' });
  await dialog(page).getByLabel('It is ready').uncheck();
  await dialog(page).getByLabel('Why it is not ready').fill('a new lens');
  await axe(page);
  await shot(page, 'rental-settings-light');
  await press(dialog(page), 'Save');
  await card.getByText('Handed over once all services are OK for 1 min.').waitFor();
  await card.getByText('a new lens').waitFor();
  await press(card, 'Rental settings');
  await dialog(page).getByLabel('Hand it over only while it is OK').uncheck();
  await dialog(page).getByLabel('It is ready').check();
  await press(dialog(page), 'Save');
  await closed(page);

  await page.goto(`${BASE}/rentals`);
  const customer = page.locator('section[aria-labelledby=customers]');
  await press(customer, 'Add a customer');
  await dialog(page).getByLabel('Name', { exact: true }).first().fill('Acme Films');
  await dialog(page).getByLabel('E-mail').fill('ada@example.org');
  await press(dialog(page), 'Add');
  await closed(page);
  await customer.locator('li', { hasText: 'Acme Films' }).getByText('ada@example.org').waitFor();

  const book = async (begin, end) => {
    await press(page, `Book ${device}`);
    await dialog(page).getByLabel('Customer').fill('Acme Films');
    await dialog(page).getByLabel('Begin').fill(noonIn(begin));
    await dialog(page).getByLabel('End', { exact: true }).fill(noonIn(end));
  };
  const bar = (words) => page.getByRole('button', { name: words });
  await book(2, 4);
  await dialog(page).getByText(`${device} is free then.`).waitFor();
  await axe(page);
  await shot(page, 'booking-light');
  await press(dialog(page), 'Book');
  await bar(/^Acme Films: booked, .*preparation from .*turnaround until/).waitFor();
  await book(3, 5);
  await press(dialog(page), 'Book');
  await dialog(page).getByRole('alert').getByText(`${device} is occupied`).waitFor();
  await axe(page);
  await shot(page, 'booking-refused-light');
  await press(dialog(page), 'Use this window');
  await dialog(page).getByText(`${device} is free then.`).waitFor();
  await press(dialog(page), 'Book');
  await until('two bars', async (see) => see(await bar(/^Acme Films: booked/).count()) === 2);
  await axe(page);
  await shot(page, 'rentals-light');

  await bar(/^Acme Films: booked/).first().focus();
  await page.keyboard.press('ArrowRight');
  const label = () => page.evaluate(() => document.activeElement.getAttribute('aria-label'));
  must((await label())?.startsWith('Acme Films: booked'), `the arrow leads to ${await label()}`);
  await page.keyboard.press('Home');
  await page.keyboard.press('Enter');
  await press(dialog(page), `Change end: ${device} for Acme Films`);
  await press(dialog(page), '+ 2 d');
  await press(dialog(page), 'Save');
  await dialog(page).getByRole('button', { name: /^Use the end/ }).click();
  await press(dialog(page), 'Save');
  await closed(page);

  await page.goto(`${BASE}/hosts/${device}`);
  await card.getByText('No customer has it now.').waitFor();
  await card.getByText('Acme Films').first().waitFor();
  await shot(page, 'host-rental-light');
  for (let left = 2; left > 0; left -= 1) {
    await press(card.locator('li').first(), `Cancel: ${device} for Acme Films`);
    await press(dialog(page), 'Cancel rental');
    await closed(page);
    await until(`${left - 1} rentals left`, async (see) => see(await card.locator('li').count()) === left - 1);
  }
  await press(card, 'Block');
  await dialog(page).getByLabel('Reason').fill('a new battery');
  await press(dialog(page), 'Block');
  await press(card, 'End block: a new battery');
  await press(dialog(page), 'End block');
  await card.getByText('a new battery').waitFor({ state: 'detached' });

  await page.goto(`${BASE}/rentals?view=list&state=cancelled`);
  await page.getByText('Acme Films').first().waitFor();
  await axe(page);
  await readsAReport(page, device);
  await page.goto(`${BASE}/rentals?view=list&state=cancelled`);
  await press(customer, 'Erase Acme Films');
  await press(dialog(page), 'Erase customer');
  await customer.getByText('Acme Films').waitFor({ state: 'detached' });
}

/** From the details of a rental; on paper the report is alone. */
async function readsAReport(page, device) {
  await page.getByRole('button', { name: `Details: ${device} for Acme Films` }).first().click();
  await dialog(page).getByRole('link', { name: 'Times, availability and traffic' }).click();
  await page.getByRole('heading', { name: 'Rental report' }).waitFor();
  await page.getByText('Cancelled', { exact: true }).first().waitFor();
  await axe(page);
  await shot(page, 'rental-report-light');
  const nav = page.getByRole('navigation', { name: 'Main' });
  must(await nav.isVisible(), 'the report has no navigation');
  await page.emulateMedia({ media: 'print' });
  must(!(await nav.isVisible()), 'the navigation is printed');
  await shot(page, 'rental-report-print');
  await page.emulateMedia({ media: null });
}

/** The gateway books, and its answer to the page is lost. */
async function losesAnAnswer(page) {
  const lose = async (route) => {
    const answer = await route.fetch();
    await (answer.status() === 201 ? route.abort() : route.fulfill({ response: answer }));
  };
  await page.route('**/api/v1/bookings', lose, { times: 1 });
}

/** What is shown once is closed, and its private key is in the page no more. */
async function closesWhatIsShownOnce(page, key) {
  await page.keyboard.press('Escape');
  await press(page, 'Saved, close');
  await closed(page);
  must(!(await page.content()).includes(key), 'the key is still in the page');
}

/** A renter gets a pair that the browser makes, another one a pair and a QR code of the gateway. */
async function addsRenters(page, people, person) {
  const sent = [];
  const listenTo = (request) => request.method() === 'POST' && sent.push(request.postData() ?? '');
  page.on('request', listenTo);
  const key = async () => (await conf(page).textContent()).match(/^PrivateKey = (\S+)/m)?.[1];
  const begin = async (name) => {
    await press(people, `Add a renter of ${person}`);
    await dialog(page).getByLabel('Name', { exact: true }).fill(name);
  };
  await begin('cleo-laptop');
  await dialog(page).getByText('The private key stays in this browser').waitFor();
  await axe(page);
  await press(dialog(page), 'Add');
  await dialog(page).getByText('Contains the private key. Save it now').waitFor();
  const own = await key();
  must(own && (await conf(page).textContent()).includes('PresharedKey'), 'no configuration');
  must(sent.some((body) => body.includes('"public_key"')) && !sent.some((body) => body.includes(own)), 'the private key was sent');
  await axe(page);
  await shot(page, 'renter-once-light');
  await closesWhatIsShownOnce(page, own);
  await people.getByText('cleo-laptop').waitFor();

  await begin('cleo-phone');
  await combo(page, 'Key pair').selectOption({ label: 'Made by the gateway' });
  await press(dialog(page), 'Add');
  await dialog(page).getByRole('img', { name: 'QR code of the configuration' }).waitFor();
  const first = await key();
  await closesWhatIsShownOnce(page, first);
  await press(people, 'Reissue the configuration of cleo-phone');
  await dialog(page).getByText('stops working at once').waitFor();
  await press(dialog(page), 'Replace keys');
  await dialog(page).getByText('Contains the private key. Save it now').waitFor();
  must((await key()) !== first, 'the configuration is the former one');
  await closesWhatIsShownOnce(page, await key());
  await press(people, 'Remove cleo-phone');
  await dialog(page).getByText('Its tunnel and its connections end now').waitFor();
  await press(dialog(page), 'Remove renter');
  await people.getByText('cleo-phone').waitFor({ state: 'detached' });
  page.off('request', listenTo);
}

/** Books for one renter by one protocol: what is refused keeps the input, and a call that is sent twice books once. */
async function booksForARenter(page, device) {
  await press(page, 'Book a device');
  must((await dialog(page).getByLabel('Customer').inputValue()) === 'Borg Media', 'the customer is not proposed');
  await dialog(page).getByLabel('Device', { exact: true }).fill(device);
  await dialog(page).getByLabel('Begin').fill(noonIn(2));
  await dialog(page).getByLabel('End', { exact: true }).fill(noonIn(4));
  await dialog(page).getByLabel('Name of the rental').fill('lens');
  await dialog(page).getByLabel('Allowance').fill('20 GB');
  await combo(page, 'Access').selectOption({ label: 'Only some protocols' });
  await dialog(page).getByLabel('TCP ports').fill('22, 8080');
  await combo(page, 'Renters').selectOption({ label: 'Only some' });
  await press(dialog(page), 'Book');
  await dialog(page).getByText('choose a renter').waitFor();
  await dialog(page).getByLabel('cleo-laptop of Cleo Borg').check();
  await axe(page);
  await shot(page, 'booking-access-light');
  await press(dialog(page), 'Book');
  await dialog(page).getByText(/8080/).first().waitFor();
  await dialog(page).getByLabel('TCP ports').fill('22');
  await losesAnAnswer(page);
  await press(dialog(page), 'Book');
  await dialog(page).getByText('The gateway does not answer').waitFor();
  await press(dialog(page), 'Book');
  await closed(page);
}

/** The page of a customer: a person, renters, a booking, and a rental with its alias; all of it ends again. */
async function letsRentersIn(page) {
  const device = 'cam-18';
  await page.goto(`${BASE}/rentals`);
  const customers = page.locator('section[aria-labelledby=customers]');
  await press(customers, 'Add a customer');
  await dialog(page).getByLabel('Name', { exact: true }).first().fill('Borg Media');
  await press(dialog(page), 'Add');
  await closed(page);
  await customers.getByRole('link', { name: 'Borg Media' }).click();
  await page.getByRole('heading', { level: 1, name: 'Borg Media' }).waitFor();

  const people = page.locator('section[aria-labelledby=people]');
  await people.getByText('No people.').waitFor();
  await press(people, 'Add a person');
  await dialog(page).getByLabel('Name', { exact: true }).fill('Cleo');
  await press(dialog(page), 'Add');
  await closed(page);
  await press(people, 'Change Cleo');
  await dialog(page).getByLabel('Name', { exact: true }).fill('Cleo Borg');
  await press(dialog(page), 'Save');
  await people.getByText('Cleo Borg').waitFor();
  await addsRenters(page, people, 'Cleo Borg');

  await booksForARenter(page, device);
  const rentals = page.locator('section[aria-labelledby=rentals]');
  const bookings = page.locator('section[aria-labelledby=bookings]');
  await rentals.getByText(/opens in [12] d/).waitFor();
  await until('one booking', async (see) => see(await bookings.locator('li').count()) === 1);
  must((await rentals.locator('li').count()) === 1, 'a repeated call booked twice');
  await press(rentals, `Details: ${device} for Borg Media`);
  await dialog(page).getByText(/^\d+\.\d+\.\d+\.\d+$/).waitFor();
  await dialog(page).getByRole('button', { name: /^Copy the alias \d+\./ }).waitFor();
  await dialog(page).getByText('cleo-laptop of Cleo Borg').waitFor();
  await dialog(page).getByText('lens', { exact: true }).waitFor();
  await dialog(page).getByText('0 B of 20 GB (0 %)').waitFor();
  await axe(page);
  await shot(page, 'rental-light');
  await press(dialog(page), `Change access: ${device} for Borg Media`);
  await combo(page, 'Renters').selectOption({ label: 'All of them' });
  await press(dialog(page), 'Save');
  await closed(page);
  await page.reload();
  await press(rentals, `Details: ${device} for Borg Media`);
  await dialog(page).getByText('All of the customer').waitFor();
  await page.keyboard.press('Escape');
  await closed(page);
  await looksWell(page, 'customer');
  const of = { customer: new URL(page.url()).pathname.split('/').at(-1), person: 'Cleo Borg', rental: 'lens' };
  await usesOwnPage(page, of, { axe, browser, closed, closesWhatIsShownOnce, combo, conf, dialog, listen, looksWell, must, noSidewaysScroll, press, shot, WIDE });

  await page.goto(`${BASE}/hosts/${device}`);
  const card = page.locator('section[aria-labelledby=rental]');
  await card.getByText(/opens in [12] d/).waitFor();
  await card.getByRole('link', { name: 'Borg Media' }).click();
  await press(rentals, `Cancel: ${device} for Borg Media`);
  await press(dialog(page), 'Cancel rental');
  await closed(page);
  await press(people, 'Remove Cleo Borg');
  await dialog(page).getByText('cleo-laptop and my-laptop are removed too').waitFor();
  await press(dialog(page), 'Remove person');
  await people.getByText('No people.').waitFor();
  await press(page, 'Erase');
  await press(dialog(page), 'Erase customer');
  await page.waitForURL(`${BASE}/rentals`);
}

/** In light and dark, and at 360 pixels. */
async function looksWell(page, name) {
  await axe(page);
  await shot(page, `${name}-light`);
  await page.emulateMedia({ colorScheme: 'dark' });
  await axe(page);
  await shot(page, `${name}-dark`);
  await page.emulateMedia({ colorScheme: 'light' });
  await page.setViewportSize(PHONE);
  await noSidewaysScroll(page);
  await shot(page, `${name}-360`);
  await page.setViewportSize(WIDE);
}

async function listsIncidents(page) {
  await page.goto(`${BASE}/incidents`);
  const first = page.locator('section[aria-labelledby=open] a[data-row]').first();
  const text = (await first.textContent()).trim();
  await page.getByRole('heading', { name: 'Past', exact: true }).waitFor();
  await axe(page);
  await shot(page, 'incidents-light');
  await first.click();
  await page.getByRole('heading', { level: 1, name: text }).waitFor();
  await page.locator('section[aria-labelledby=members] .output').first().waitFor();
  await page.locator('section[aria-labelledby=notified] li').first().waitFor();
}

const linkOf = (command) => new URL(execSync(command).toString().match(/http\S+/)[0]);

/** A login link pasted into the open login page, and into its address bar. */
async function signsInByAPastedLink() {
  const byPaste = await open(await browser.newContext({ viewport: WIDE }), '/incidents');
  await byPaste.getByLabel('Name').focus();
  await byPaste.evaluate((text) => {
    const clipboardData = new DataTransfer();
    clipboardData.setData('text', text);
    document.activeElement.dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }));
  }, linkOf(LINK_COMMAND).href);
  await byPaste.waitForURL(`${BASE}/incidents`);
  await byPaste.close();
  const byAddress = await open(await browser.newContext({ viewport: WIDE }), '/login');
  await byAddress.evaluate((hash) => (location.hash = hash), linkOf(LINK_COMMAND).hash);
  await byAddress.waitForURL(`${BASE}/`);
  await byAddress.close();
}

/** A viewer finds no button that the API would refuse, and no call of the page is refused. */
async function showsAViewerOnlyWhatHeMay() {
  const page = listen(await (await browser.newContext({ viewport: WIDE })).newPage());
  await page.goto(`${BASE}/login${linkOf(VIEWER_COMMAND).hash}`);
  await page.waitForURL(`${BASE}/`);
  const refused = [];
  page.on('response', (response) => response.status() === 403 && refused.push(response.url()));
  for (const path of ['/', `/hosts/${OFF_HOST}`, '/incidents', '/downtimes', '/compare', '/access', '/rentals', '/customers/k_0000000000001', '/enrolments']) {
    await page.goto(BASE + path);
    await page.locator('h1').first().waitFor();
    await page.waitForTimeout(800);
    const words = /^(Add|Acknowledge|Block|Book|Downtime|Edit|Check now|Withdraw|Change|End|Cancel|Create|Revoke|Approve|Reject|Reissue|Remove)\b/;
    const buttons = (await page.locator('main button').allTextContents()).map((text) => text.trim()).filter((text) => words.test(text));
    must(buttons.length === 0, `${path} has ${buttons.join(', ')}`);
  }
  must(refused.length === 0, `refused: ${refused.join(', ')}`);
  await page.close();
}

/** A page may move so much of itself while it loads: more would take a button away from the pointer. The sum is Chromium's. */
const MOST_SHIFT = 0.05;
/** Nothing more is loaded after this time. */
const LOADED_MS = 2500;

/** The sum of the layout shifts of a page while it loads, and the largest ones in words. */
async function shiftsOf(context, path) {
  const page = listen(await context.newPage());
  await page.addInitScript(() => {
    window.shifts = [];
    const called = (node) => (node?.nodeType === 1 ? node : node?.parentElement)?.outerHTML.replaceAll(/\s+/g, ' ').slice(0, 90);
    new PerformanceObserver((list) => {
      for (const { value, sources } of list.getEntries()) window.shifts.push({ value, what: called(sources[0]?.node) });
    }).observe({ type: 'layout-shift', buffered: true });
  });
  await page.goto(BASE + path);
  await page.locator('h1').first().waitFor();
  await page.waitForTimeout(LOADED_MS);
  const shifts = (await page.evaluate(() => window.shifts)).sort((a, b) => b.value - a.value);
  await page.close();
  const sum = shifts.reduce((sum, { value }) => sum + value, 0);
  return { sum, words: shifts.slice(0, 3).map(({ value, what }) => `${value.toFixed(3)} ${what}`).join('; ') };
}

/** A page that moves by itself does so each time. What changes in the fleet meanwhile moves it once. */
async function keepsItsPlace(context, paths) {
  for (const path of paths) {
    let moved;
    for (let left = 3; left > 0; left -= 1) {
      moved = await shiftsOf(context, path);
      if (moved.sum <= MOST_SHIFT) break;
    }
    must(moved.sum <= MOST_SHIFT, `${path} moves by ${moved.sum.toFixed(3)}: ${moved.words}`);
  }
}

const statusHas = (page, name) => Number((execSync(`${STATUS_COMMAND} || true`).toString().match(new RegExp(`${name}=(\\d+)`)) ?? [])[1]);
const counted = async (page, name) => Number(await page.evaluate((name) => document.querySelector(`[data-count="${name}"] .count`)?.textContent ?? '0', name));

/** A handled problem stays in the list, is counted apart, and raises no alarm. The unit in preparation is handled too. */
async function countsWhatIsHandledApart(page) {
  await page.goto(`${BASE}/`);
  const name = OFF_HOST;
  execSync(OFF_COMMAND, { stdio: 'inherit' });
  await page.locator('section[aria-labelledby=problems] li:not(.handled)', { hasText: name }).first().waitFor({ timeout: NOTICED_MS });
  await until('it is hard down', async (see) => see(await counted(page, 'hosts-down')) === 1, NOTICED_MS);
  const [down, handled] = [await counted(page, 'hosts-down'), await counted(page, 'hosts-handled')];
  const is = async (n) =>
    until('the counters follow', async (see) => see(`${await counted(page, 'hosts-down')} ${await counted(page, 'hosts-handled')}`) === `${down - n} ${handled + n}`);
  const post = (method) =>
    page.evaluate(
      ([method, name]) => fetch(`/api/v1/hosts/${name}/acknowledgement`, { method, headers: { 'X-Fleetgate': 'dashboard', 'Content-Type': 'application/json' }, body: method === 'POST' ? '{"comment":"on it"}' : undefined }),
      [method, name],
    );
  await post('POST');
  await is(1);
  must(!(await page.locator('h1').textContent()).includes('host down') || down > 1, 'the headline still counts it');
  must(!(await page.title()).includes(' down') || down > 1, 'the title still counts it');
  const row = page.locator('section[aria-labelledby=problems] li.handled', { hasText: name });
  await row.waitFor();
  await shot(page, 'handled-light');
  if (STATUS_COMMAND) {
    must(statusHas(page, 'hosts_down') === down - 1 && statusHas(page, 'hosts_handled') === handled + 1, 'the command counts otherwise');
  }
  await page.locator('[data-count=hosts-handled]').click();
  await until('only what is handled is left', async (see) => see(await rows(page).count()) === handled + 1);
  await axe(page);
  await post('DELETE');
  await is(0);
  execSync(ON_COMMAND, { stdio: 'inherit' });
  await until('it is up again', async (see) => see(await counted(page, 'hosts-down')) === 0, NOTICED_MS);
}

/** The stream is kept away and let through again; nothing else changes. */
async function saysWhenDisconnected(context) {
  const page = listen(await context.newPage());
  await page.route('**/api/v1/stream', (route) => route.abort());
  await page.goto(`${BASE}/`);
  await page.getByText(/Disconnected since/).waitFor();
  await page.unroute('**/api/v1/stream');
  await page.getByText(/Disconnected since/).waitFor({ state: 'hidden', timeout: 30_000 });
  await rows(page).first().waitFor();
  await page.close();
}

async function followsTheFleet(page) {
  await page.goto(`${BASE}/`);
  await stripIs(page, EXPECT, SETTLED_MS);
  const down = Number((await strip(page)).split('/')[1]);
  execSync(OFF_COMMAND, { stdio: 'inherit' });
  const count = async (see) => see(Number((await strip(page)).split('/')[1]));
  await until('one more is down', async (see) => (await count(see)) === down + 1, NOTICED_MS);
  await page.locator('li', { hasText: OFF_HOST }).first().waitFor();
  if (!ON_COMMAND) return;
  execSync(ON_COMMAND, { stdio: 'inherit' });
  await until('it is up again', async (see) => (await count(see)) === down, NOTICED_MS);
}

/** Other sessions of the user end; this one goes on. */
async function choosePassword(page) {
  await page.getByRole('button', { name: 'Choose a password' }).click();
  const dialog = page.getByRole('dialog', { name: 'Choose a password' });
  await shot(page, 'password-light');
  await axe(page);
  const save = dialog.getByRole('button', { name: 'Save' });
  await dialog.getByLabel('New password').fill('a demo horse battery');
  await dialog.getByLabel('Repeat it').fill('a demo horse');
  must(await save.isDisabled(), 'two passwords that differ can be saved');
  await dialog.getByLabel('Repeat it').fill('a demo horse battery');
  await save.click();
  await dialog.waitFor({ state: 'hidden' });
  must((await page.getByText('You signed in with a one-time link').count()) === 0, 'the banner stays');
}

const profile = mkdtempSync(join(tmpdir(), 'fleetgate-e2e-'));
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: [...FLAGS, `--crash-dumps-dir=${profile}`] });
try {
  const first = await browser.newContext({ viewport: WIDE, colorScheme: 'light' });
  const page = listen(await first.newPage());
  await promise('a one-time link logs in and leaves the address bar', async () => {
    await page.goto(LOGIN_URL);
    await page.waitForURL(`${BASE}/`);
    must(!page.url().includes('#'), 'the secret still stands in the address');
  });
  await promise('a user who signed in with a one-time link chooses a password', () => choosePassword(page));
  const storageState = await first.storageState();
  const context = (options) => browser.newContext({ viewport: WIDE, storageState, ...options });

  await promise(`the strip shows ${EXPECT}`, () => stripIs(page, EXPECT, SETTLED_MS));
  await promise('the list shows every host', async () => {
    const handled = await counted(page, 'hosts-handled');
    const all = EXPECT.split(' ')[0].split('/').reduce((sum, count) => sum + Number(count), handled);
    await until(`${all} rows`, async (see) => see(await rows(page).count()) === all);
  });
  await promise('the problems name what is down before all else', async () => {
    if (Number(EXPECT.split('/')[1]) === 0) return;
    const first = page.locator('section[aria-labelledby=problems] li').first();
    await until('the first problem', async (see) => see(await first.textContent()).includes('Down'));
  });
  await shot(page, 'now-light');
  await promise('axe finds nothing serious on the page', () => axe(page));
  await promise('search is one key away and stands in the address', () => search(page));
  await promise('a click on the strip filters the list', () => filterByStrip(page));
  await promise('the keyboard walks problems and hosts, opens one and comes back', () => walkByKeyboard(page));
  await promise('a question mark opens the help, Escape closes it', () => help(page));
  await promise('what is handled is counted apart, by the page and by the command', () => countsWhatIsHandledApart(page));
  const spare = 'spare-1';
  let before = '';
  await promise('a key that is shown once is lost by no Escape, click or way of leaving', async () => {
    before = await keepsWhatIsShownOnce(page, spare);
  });
  await promise('a configuration is reissued after a question, and shown once', () => reissues(page, spare, before));
  await promise('a device is renamed, relabelled and removed; a refused name loses no input', () => editsAndRemoves(page, spare));
  await promise('a downtime is added, changed and ended, with author and end', () => undoesADowntime(page));
  await promise('an acknowledgement is given with an end, and withdrawn', () => undoesAnAcknowledgement(page));
  await promise('an enrolment token shows its command once, and is revoked', () => createsAToken(page));
  await promise('the first device asks for the endpoint; a refused one loses no input', async () => asksForTheEndpoint(await context()));
  await promise('a grant is refused with its reason, added, seen on its host, changed and withdrawn', () => grantsAccess(page));
  await promise('a selection that selects no host is said', () => saysThatASelectionIsEmpty(page));
  await promise('an operator gets keys that are shown once, new ones, and is removed', () => managesOperators(page));
  await promise('a device gets a gate and is booked, a refused window leads to the next free one, and rentals are extended and cancelled', () => rentsADevice(page));
  await promise('a customer has people and renters, whose private key stays in the browser; a rental shows its alias, no booking is made twice, and a link opens the page of the customer', () => letsRentersIn(page));
  await promise('incidents are listed; one shows the output of its members and who was notified', () => listsIncidents(page));
  if (LINK_COMMAND) await promise('a pasted login link signs in', () => signsInByAPastedLink());
  if (VIEWER_COMMAND) await promise('a viewer sees no button that is refused', () => showsAViewerOnlyWhatHeMay());
  await promise('no page moves away from the pointer while it loads', async () =>
    keepsItsPlace(await context(), ['/', `/hosts/${OFF_HOST}`, '/hosts/cam-05', '/hosts/rental-03', '/incidents', '/downtimes', '/compare', '/access', '/rentals', '/rentals?view=list', '/enrolments']));
  await promise('a host opens with its services, its tunnel and its events', () => openHost(page));
  await shot(page, 'host-light');
  await promise('axe finds nothing serious on a host', () => axe(page));
  let incident = '/';
  await promise('an incident opens with its acknowledgement, members, notifications and timeline', async () => {
    incident = await openIncident(page);
  });
  await promise('an incident is acknowledged, and the acknowledgement is withdrawn', () => acknowledgeIncident(page));
  await shot(page, 'incident-light');
  await promise('axe finds nothing serious on an incident', () => axe(page));
  await page.goto(`${BASE}/hosts/${OFF_HOST}`);
  await promise('dark is dark and stays', () => theme(page));
  await promise('axe finds nothing serious on a dark host', () => axe(page));
  await shot(page, 'host-dark');
  await page.goto(BASE + incident);
  await page.getByRole('heading', { name: 'Members', exact: true }).waitFor();
  await promise('axe finds nothing serious on a dark incident', () => axe(page));
  await shot(page, 'incident-dark');
  await page.goto(`${BASE}/access`);
  await page.getByText('every device').first().waitFor();
  await promise('axe finds nothing serious on the dark page of access', () => axe(page));
  await shot(page, 'access-dark');
  await page.goto(`${BASE}/rentals`);
  await page.getByRole('heading', { name: 'Customers' }).waitFor();
  await promise('axe finds nothing serious on the dark page of rentals', () => axe(page));
  await shot(page, 'rentals-dark');

  const dark = await open(await context({ colorScheme: 'dark' }), '/');
  await rows(dark).first().waitFor();
  await promise('axe finds nothing serious on the dark page', () => axe(dark));
  await shot(dark, 'now-dark');

  const phone = await context({ viewport: PHONE });
  for (const path of ['/', `/hosts/${OFF_HOST}`, incident, '/incidents', '/downtimes', '/compare', '/access', '/rentals', '/enrolments', '/login?stay']) {
    const small = await open(phone, path);
    await small.waitForTimeout(600);
    await promise(`360 pixels are enough for ${path}`, () => noSidewaysScroll(small));
    if (path === '/') await shot(small, 'now-360');
    if (path.startsWith('/hosts')) await shot(small, 'host-360');
    if (path === incident) await shot(small, 'incident-360');
    if (path === '/access') await shot(small, 'access-360');
    if (path === '/rentals') await shot(small, 'rentals-360');
    await promise(`axe finds nothing serious there at 360 pixels`, () => axe(small));
    await small.close();
  }

  const stranger = await open(await browser.newContext({ viewport: WIDE }), '/');
  await promise('without a session the page asks for a login', async () => {
    await stranger.getByLabel('Password').waitFor();
    await axe(stranger);
  });
  await shot(stranger, 'login');

  await promise('a lost stream is reported, and comes back by itself', async () => saysWhenDisconnected(await context()));
  if (OFF_COMMAND) await promise('a device that goes off is seen without a reload', () => followsTheFleet(page));
  await promise('nothing complained: no script error, nothing that the policy held back', async () => {
    must(complaints.length === 0, complaints.slice(0, 5).join('\n'));
  });
} finally {
  await browser.close();
  rmSync(profile, { recursive: true, force: true });
}
finish();
