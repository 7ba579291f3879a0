import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { LutraError } from '../../../lib/errors.js';
import { evaluate } from '../../../lib/evaluation/index.js';
import { planQuantization, quantizeModel, recordedJob, verifyCheckpoint } from '../../../lib/pipeline/index.js';
import { scratchDirectory, writeRandomModel } from './random-model.js';

const scratch = scratchDirectory();
const model = join(scratch, 'model');
const job = { model, out: join(scratch, 'out'), recipe: { method: 'rtn', bits: 3, groupSize: 32 } };

beforeAll(() => writeRandomModel(model));

// biome-ignore lint/suspicious/noExplicitAny: what JavaScript may pass
const any = (value: unknown): any => value;

test('what is no job at all is refused by type', async () => {
  for (const value of [undefined, null, 'job', 3, [], {}])
    for (const call of [quantizeModel, planQuantization]) {
      const error = await call(any(value)).catch((reason: unknown) => reason);
      expect(error, `${call.name} ${String(value)}`).toBeInstanceOf(LutraError);
      expect(error).toMatchObject({ code: 'LUTRA_E_OPTION' });
    }
});

test.each<[string, unknown]>([
  ['model', 3],
  ['model', ''],
  ['out', undefined],
  ['out', ''],
  ['signal', { aborted: false }],
  ['onProgress', 'print'],
  ['onLayer', 1],
  ['overwrite', 'yes'],
  ['resume', 0],
  ['strict', 'false'],
  ['threads', '2'],
])('of a job, an unusable %s is named: %j', async (field, value) => {
  const error = { code: 'LUTRA_E_OPTION', where: `quantizeModel.${field}` };
  await expect(planQuantization(any({ ...job, [field]: value }))).rejects.toMatchObject(error);
});

test('options that a call does not know, or that are none, are refused', async () => {
  const refused = (call: Promise<unknown>) => expect(call).rejects.toMatchObject({ code: 'LUTRA_E_OPTION' });
  await refused(planQuantization(job, any({ measuretime: true })));
  await refused(planQuantization(job, any(null)));
  await refused(verifyCheckpoint(any(undefined)));
  await refused(verifyCheckpoint(model, any({ modle: model })));
  await refused(recordedJob(model, any('elsewhere')));
  await refused(recordedJob(any(undefined), { model, out: job.out }));
  await refused(evaluate(any({}), any(undefined)));
});
