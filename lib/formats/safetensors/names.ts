/** The names that Hugging Face gives to a checkpoint's files. */
export const singleFile = 'model.safetensors';
export const indexFile = 'model.safetensors.index.json';
