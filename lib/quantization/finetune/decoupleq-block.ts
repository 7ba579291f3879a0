import { z } from 'zod';
import type { Finetune } from '../method.js';
import { BlockTrainer } from './block-trainer.js';

const options = z.strictObject({
  /** Passes over the calibration windows. */
  epochs: z.int().min(1).default(4),
  learningRate: z.number().positive().default(1e-5),
  /** Whether the learning rate counts in units of what it changes: the root mean square of a layer's scales, or of a norm. */
  relative: z.boolean().default(false),
  /** Added to the root of the second moment. */
  epsilon: z.number().positive().default(2e-5),
  weightDecay: z.number().min(0).default(1e-6),
  /** Whether the norms' weights are trained with the values. */
  norms: z.boolean().default(true),
});

export type DecoupleqBlockOptions = z.infer<typeof options>;

/** Adam's means, as decoupleQ has them. */
const betas = [0.9, 0.99] as const;

/**
 * The block stage of decoupleQ (Guo et al., arXiv 2404.12759): with all codes frozen, Adam moves scales and offsets, and the
 * norms' weights, so that the block's output on the inputs that it will really see comes near to that of the original
 * block. A step a window, in their order; of the numbers after every epoch, rounded as they are stored, and those before
 * the first, the best on all windows stay.
 */
export const decoupleqBlock: Finetune<DecoupleqBlockOptions> = {
  name: 'decoupleq-block',
  options,
  storageAfter: (storage) => (storage === 'zeroCode' ? 'realOffset' : storage),
  trains: ({ norms }, { attentionNorm, feedForwardNorm }) => (norms ? [attentionNorm, feedForwardNorm] : []),
  async run({ options, onEpoch, ...input }, call) {
    const { epochs, norms, relative, ...rest } = options;
    const trainer = await BlockTrainer.create(input, { norms, relative }, call);
    try {
      const lossBefore = await trainer.measure();
      await trainer.keep();
      let lossAfter = lossBefore;
      for (let epoch = 1; epoch <= epochs; epoch++) {
        for (let window = 0; window < input.windows.count; window++) await trainer.step(window, { ...rest, betas });
        const loss = await trainer.measure();
        onEpoch({ epoch, epochs, loss });
        if (!(loss < lossAfter)) continue;
        lossAfter = loss;
        await trainer.keep();
      }
      return { lossBefore, lossAfter };
    } finally {
      trainer.dispose();
    }
  },
};
