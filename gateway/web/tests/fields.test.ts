import { describe, expect, it } from 'vitest';
import { lineOf, refusalsOf } from '../src/lib/fields';

const error = (field: string, detail = 'is wrong') => ({ field, detail });
const form = (...fields: [string, string | undefined][]) => fields.map(([label, path]) => ({ label, path }));
const shown = (fields: ReturnType<typeof form>, ...paths: string[]) => {
  const { fields: found, rest } = refusalsOf(paths.map((path) => error(path)), fields);
  return [[...found].map(([{ label }, text]) => `${label} | ${text}`), rest];
};

describe('an error of a field', () => {
  const grant = form(['By which protocols', 'access'], ['TCP ports', 'access[1].ports'], ['UDP ports', undefined], ['Host', 'target.host']);

  it('stands at the field of the form, under the label of that field', () => {
    expect(shown(grant, 'access[1].ports', 'target.host')).toEqual([['TCP ports | TCP ports: is wrong', 'Host | Host: is wrong'], []]);
    expect(shown(grant, 'access')).toEqual([['By which protocols | By which protocols: is wrong'], []]);
  });

  it('names the row or the name within the field', () => {
    const lists = form(['Networks', 'networks'], ['Labels', 'labels']);
    expect(shown(lists, 'networks[2]')).toEqual([['Networks | Networks (third row): is wrong'], []]);
    expect(shown(lists, 'labels.site', 'labels.kind')).toEqual([['Labels | Labels (site): is wrong; Labels (kind): is wrong'], []]);
    expect(shown(lists, 'networks[11]')).toEqual([['Networks | Networks (row 12): is wrong'], []]);
  });

  it('has words instead of a path where the form has no such field', () => {
    expect(shown(grant, 'rules[1].on_site', '')).toEqual([[], ['On site (second row): is wrong', 'is wrong']]);
    expect(shown(form(['Label', 'label']), 'labels')).toEqual([[], ['Labels: is wrong']]);
    expect(lineOf(error('access[1].ports'))).toBe('Ports (second row): is wrong');
    expect(lineOf(error('expires_in_s'))).toBe('Expires in s: is wrong');
  });
});
