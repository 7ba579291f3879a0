/** Calls all of them in turn, whatever one throws, and then throws the first error. */
export async function closeAll(...closes: (() => unknown)[]): Promise<void> {
  const errors: unknown[] = [];
  for (const close of closes) {
    try {
      await close();
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length) throw errors[0];
}

/** Like try and finally, but an error of the work is never replaced by one of the closing, which follows from it as a rule. */
export async function withClosing<T>(work: () => Promise<T>, ...closes: (() => unknown)[]): Promise<T> {
  const result = await closingOnFailure(work, ...closes);
  await closeAll(...closes);
  return result;
}

/** Closes only where the work fails. */
export async function closingOnFailure<T>(work: () => T | Promise<T>, ...closes: (() => unknown)[]): Promise<T> {
  try {
    return await work();
  } catch (error) {
    await closeAll(...closes).catch(() => {});
    throw error;
  }
}
