import { Validator } from '@seriousme/openapi-schema-validator';
import { expect, test } from 'vitest';

/** The document takes seconds, and a minute on a machine that compiles beside it. */
const PATIENCE = 120_000;
const file = process.env.FLEETGATE_OPENAPI ?? '../../docs/openapi.json';

test('the API document is valid OpenAPI 3.1, and every reference leads somewhere', async () => {
  const validator = new Validator();
  const { valid, errors } = await validator.validate(file);
  expect(errors ?? []).toEqual([]);
  expect(valid).toBe(true);
  expect(validator.version).toBe('3.1');
  expect(() => validator.resolveRefs()).not.toThrow();
}, PATIENCE);
