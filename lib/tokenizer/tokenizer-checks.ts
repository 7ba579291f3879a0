import { lutraError } from '../errors.js';

export type JsonObject = Record<string, unknown>;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Split behaviours that the library accepts but does not reproduce. */
const inexactBehaviours = ['MergedWithPrevious', 'MergedWithNext', 'Contiguous'];

/**
 * Refuses what the library would take and get wrong: splits that it does not reproduce, and patterns that it leaves out with
 * a line on the console.
 *
 * @throws `LUTRA_E_UNSUPPORTED_MODEL`
 */
export function refuseUnfaithful(tokenizerJson: JsonObject, where: string): void {
  for (const stage of ['normalizer', 'pre_tokenizer', 'decoder']) refuseStage(tokenizerJson[stage], stage, where);
}

function refuseStage(stage: unknown, path: string, where: string): void {
  if (Array.isArray(stage)) for (const [index, inner] of stage.entries()) refuseStage(inner, `${path}.${index}`, where);
  if (!isObject(stage)) return;
  const { behavior, pattern, type } = stage;
  if (typeof behavior === 'string' && inexactBehaviours.includes(behavior))
    throw unsupported(`${where}: ${path}.behavior`, behavior, 'Isolated or Removed');
  const needed = type === 'Split' || type === 'Replace';
  if ((needed || pattern !== undefined) && !(isObject(pattern) && isPattern(pattern)))
    throw unsupported(
      `${where}: ${path}.pattern`,
      JSON.stringify(pattern) ?? 'nothing',
      '{"Regex": text} or {"String": text}',
    );
  for (const key of ['normalizers', 'pretokenizers', 'decoders']) refuseStage(stage[key], `${path}.${key}`, where);
}

const isPattern = ({ Regex, String: literal }: JsonObject): boolean =>
  typeof (Regex ?? literal) === 'string' && (Regex ?? literal) !== '';

function unsupported(where: string, found: string, expected: string): Error {
  const shown = found.length > 120 ? `${found.slice(0, 117)}...` : found;
  return lutraError('LUTRA_E_UNSUPPORTED_MODEL', {
    message: 'the tokenizer has a part that lutra does not reproduce',
    where,
    found: shown,
    expected,
  });
}

/**
 * Ids that a vocabulary may have: as many as a model's configuration. Those of models end below 300,000; the library keeps a
 * list as long as the largest.
 */
const idLimit = 2 ** 22;

/** @throws `LUTRA_E_HEADER` for an id that is no whole number from 0, or a very large one */
export function checkIds({ model, added_tokens: added }: JsonObject, where: string): void {
  const vocabulary = isObject(model) && isObject(model.vocab) ? model.vocab : {};
  for (const token in vocabulary) requireId(vocabulary[token], `${where}: model.vocab`, token);
  if (isObject(model) && model.unk_id != null) requireId(model.unk_id, `${where}: model`, 'unk_id');
  if (!Array.isArray(added)) return;
  for (const token of added) if (isObject(token)) requireId(token.id, `${where}: added_tokens`, String(token.content));
}

function requireId(id: unknown, where: string, token: string): void {
  if (typeof id === 'number' && Number.isInteger(id) && id >= 0 && id < idLimit) return;
  throw lutraError('LUTRA_E_HEADER', {
    message: `the entry ${JSON.stringify(token.slice(0, 40))} has no id`,
    where,
    found: String(JSON.stringify(id)).slice(0, 120),
    expected: `a whole number below ${idLimit}`,
  });
}
