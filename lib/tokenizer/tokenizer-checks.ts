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

const modelTypes = ['BPE', 'Unigram', 'WordPiece', 'WordLevel'];

/**
 * Refuses models that the library would take for another kind, and merges that would never merge. Files from before models had
 * a type say by their fields what they are.
 *
 * @throws `LUTRA_E_UNSUPPORTED_MODEL` for the kind, `LUTRA_E_HEADER` for the merges
 */
export function checkModel({ model }: JsonObject, where: string): void {
  if (!isObject(model)) return;
  const { type, vocab, merges } = model;
  const told = Array.isArray(vocab) || ('continuing_subword_prefix' in model && 'unk_token' in model);
  if (type == null ? !told : !modelTypes.includes(type as string))
    throw unsupported(`${where}: model.type`, JSON.stringify(type) ?? 'nothing', modelTypes.join(', '));
  if (merges === undefined && type !== 'BPE') return;
  const fail = (place: string, found: unknown, expected: string) =>
    lutraError('LUTRA_E_HEADER', {
      message: 'the merges of the tokenizer are none',
      where: `${where}: ${place}`,
      found: String(JSON.stringify(found)).slice(0, 120),
      expected,
    });
  if (!Array.isArray(merges)) throw fail('model.merges', merges, 'a list of pairs');
  const isPair = Array.isArray(merges[0]) ? isListedPair : isWrittenPair;
  const wrong = merges.findIndex((merge) => !isPair(merge));
  if (wrong < 0) return;
  const expected = isPair === isListedPair ? '["left", "right"], as the first' : '"left right", as one text';
  throw fail(`model.merges.${wrong}`, merges[wrong], expected);
}

const isWrittenPair = (merge: unknown): boolean => typeof merge === 'string' && /^[^ ]+ [^ ]+$/.test(merge);
const isListedPair = (merge: unknown): boolean =>
  Array.isArray(merge) && merge.length === 2 && merge.every((side) => typeof side === 'string' && side !== '');

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
