/** Bytes as people read them. */
export function bytesText(bytes: number): string {
  const [unit, name] = bytes < 1e6 ? [1e3, 'kB'] : bytes < 1e9 ? [1e6, 'MB'] : [1e9, 'GB'];
  return `${(bytes / unit).toFixed(bytes < 1e6 ? 1 : 2)} ${name}`;
}
