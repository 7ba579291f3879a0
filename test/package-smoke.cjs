// The package is ESM; require() of it works on every Node that lutra supports.
const assert = require('node:assert/strict');
const lutra = require('lutra');

assert.equal(typeof lutra.lutGemm, 'function');
