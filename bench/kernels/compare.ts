/**
 * `lutra bench` with ONNX Runtime beside it, where it has a kernel for the case:
 *
 *     npx tsx bench/kernels/compare.ts --model llama-2-7b --tokens 1,8,128 --caches cold --plot roofline.svg
 *
 * Takes the same options, and needs `npm ci --ignore-scripts` in bench/peers.
 */
import { Command } from 'commander';
import { type BenchOptions, bench, render, withBenchOptions } from '../../lib/cli/bench.js';
import { runCommand, withCommonOptions } from '../../lib/cli/command.js';
import { lutraError } from '../../lib/errors.js';
import { OnnxRuntime, onnxRuntimeIsInstalled } from '../peers/onnxruntime.js';

await withBenchOptions(withCommonOptions(new Command('compare')))
  .action((options: BenchOptions) =>
    runCommand(
      'compare',
      options,
      async (invocation) => {
        if (!onnxRuntimeIsInstalled())
          throw lutraError('LUTRA_E_NOT_FOUND', {
            message: 'ONNX Runtime is not installed',
            where: 'bench/peers',
            hint: 'Run npm ci --ignore-scripts there, or npx lutra bench for lutra alone.',
          });
        const ort = new OnnxRuntime();
        try {
          return await bench(options, invocation, [ort]);
        } finally {
          await ort.dispose();
        }
      },
      render,
    ),
  )
  .parseAsync();
