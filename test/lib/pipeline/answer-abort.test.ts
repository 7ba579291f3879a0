import { setTimeout } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { syncing } from '../../../lib/formats/index.js';
import { answerAbort, givenBack } from '../../../lib/pipeline/answer-abort.js';

function gate(): [Promise<void>, () => void] {
  let open = () => {};
  return [new Promise((resolve) => (open = resolve)), open];
}

const reason = new Error('enough');

test('of jobs under one signal an abort is answered early for those in a sync, and all of these are waited for', async () => {
  const controller = new AbortController();
  const { signal } = controller;
  const [firstEnds, endFirst] = gate();
  const [secondEnds, endSecond] = gate();
  const [thirdEnds, endThird] = gate();
  const first = answerAbort((own) => syncing(own, () => firstEnds), signal);
  const second = answerAbort((own) => syncing(own, () => secondEnds), signal);
  const third = answerAbort(() => thirdEnds.then(() => 'ended well'), signal);
  controller.abort(reason);
  await expect(first).rejects.toBe(reason);
  await expect(second).rejects.toBe(reason);
  let back = false;
  const waiting = givenBack(signal).then(() => {
    back = true;
  });
  endSecond();
  await setTimeout(20);
  expect(back).toBe(false);
  endThird();
  expect(await third).toBe('ended well');
  endFirst();
  await waiting;
});

test('a signal that is aborted already ends work as one that is aborted later', async () => {
  const work = answerAbort(async (own) => own?.throwIfAborted(), AbortSignal.abort(reason));
  await expect(work).rejects.toBe(reason);
});
